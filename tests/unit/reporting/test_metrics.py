"""The cells of all tables as numbers for comparing revisions."""

from __future__ import annotations

import json

import pytest

from robustviews import artifacts
from robustviews.cli import main
from robustviews.reporting.tables.metrics import headline, metrics
from tests.unit.results_tree import COLUMNS
from tests.workflow.project import TINY


def test_every_cell_is_a_number_in_percent_or_minutes(study, frame):
    numbers = metrics(study, frame)
    assert numbers.pop("claims") == {"F2": "undecided"}
    assert {table: set(rows) for table, rows in numbers.items()} == {
        "table1": {"free", "pgd", "supervised"},
        "aa": {"free"},
    }
    assert tuple(numbers["table1"]["pgd"]) == COLUMNS
    (clean,) = [row for row in frame if row["entry"] == "simclr-pgd5" and row["eps"] == 0]
    assert numbers["table1"]["pgd"]["digits/clean"] == pytest.approx(
        100 * clean["correct"] / clean["n"], rel=1e-5
    )
    assert numbers["table1"]["pgd"]["digits/minutes"] == pytest.approx(6)
    assert numbers["table1"]["free"]["digits/minutes"] == pytest.approx(3.1)  # mean of three seeds


def test_cells_that_were_not_run_are_left_out(study, frame):
    partial = [row for row in frame if row["attack"] != "autoattack"]
    assert metrics(study, partial)["aa"] == {"free": {}}


def test_the_headline_fits_into_a_line_and_leaves_out_struck_rows(study, frame):
    every = metrics(study, frame)["table1"]
    shown = headline(study, frame)
    robust = {row: cells["digits/pgd20/8"] for row, cells in every.items()}
    assert shown["attack"] == "digits/pgd20/8"
    assert shown["robust_best"] == pytest.approx(max(robust.values()), abs=0.01)
    assert robust[shown["best_row"]] == max(robust.values())
    assert shown["robust_mean"] == pytest.approx(sum(robust.values()) / 3, abs=0.01)
    assert shown["clean_mean"] == pytest.approx(
        sum(cells["digits/clean"] for cells in every.values()) / 3, abs=0.01
    )
    struck = [{**row, "sanity": "AS9"} if row["eps"] else row for row in frame]
    assert "robust_mean" not in headline(study, struck)
    assert len(shown) <= 7


def test_struck_cells_are_left_out(study, frame):
    struck = [{**row, "sanity": "AS9"} if row["eps"] else row for row in frame]
    assert any("pgd20" in column for column in metrics(study, frame)["table1"]["pgd"])
    assert not any("pgd20" in column for column in metrics(study, struck)["table1"]["pgd"])


def test_the_verb_writes_them_beside_the_report(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["metrics", "--study", str(TINY), "--partial"]) == 0
    text = (tmp_path / "results/tiny/metrics.json").read_text(encoding="utf-8")
    accuracies = {"emp": {}, "simclr": {}, "supervised": {}}
    assert json.loads(text) == {"accuracies": accuracies, "claims": {"F1": "not attempted"}}
    assert text == json.dumps(json.loads(text), indent=1, sort_keys=True) + "\n"
    assert main(["metrics", "--study", str(TINY)]) == 2
    assert artifacts.read_json(tmp_path / "results/tiny/metrics.json") == json.loads(text)
