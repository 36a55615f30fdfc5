"""Tables: the values of cells, the published values, and what writers write."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import subprocess
import sys
from statistics import stdev
from typing import get_args, get_type_hints

import pytest

from robustviews.probe import OWN_HEAD, NcropProbe, RobustLinearProbe
from robustviews.reporting.figures import FIGURES
from robustviews.reporting.tables import TABLES, CellValue, comparison, writers
from robustviews.study.columns import Column
from robustviews.study.schema import Figure, Row, Table, Verdicts
from tests.unit.results_tree import COLUMNS, DEVICE, ROWS, small_study

PROBES = {"rle": RobustLinearProbe(epochs=20, rle_start="fresh"), "own": OWN_HEAD}
RUNS = small_study().runs
ALIKE = {
    "probes": PROBES,
    "runs": RUNS | {"simclr-pgd5": dataclasses.replace(RUNS["simclr-pgd5"], batch_size=512)},
}


@pytest.fixture(scope="module")
def alike():
    """The study with heads and trainings like those of the paper."""
    return small_study(**ALIKE)


@pytest.fixture
def table(study, frame):
    return comparison(study, study.tables["table1"], frame)


def with_counts(frame, counts, *, n, eps=0.0):
    """Return the frame with other counts of CF-AMC-SSL's seeds under pgd20."""
    counts = iter(counts)
    return [
        {**row, "correct": next(counts), "n": n}
        if (row["entry"], row["attack"], row["eps"]) == ("emp-free3", "pgd20", eps)
        else row
        for row in frame
    ]


def cell(table, row, column):
    return {values.name: values for values in table.rows}[row].cells[column]


def test_cells_stand_in_the_order_of_the_study(table):
    assert [row.name for row in table.rows] == list(ROWS)
    assert [column.label for column in table.columns] == [
        "clean",
        "pgd20 4/255",
        "pgd20 8/255",
        "minutes",
    ]
    assert all(len(row.cells) == len(COLUMNS) for row in table.rows)


def test_a_cell_is_the_mean_over_seeds_with_evidence_of_every_run(table, frame):
    value = cell(table, "free", 1)
    rows = [row for row in frame if row["entry"] == "emp-free3" and row["attack"] == "pgd20"]
    accuracies = [row["accuracy"] for row in rows if row["eps"] == 4]
    assert value.ours == pytest.approx(sum(accuracies) / 3)
    assert [run.value for run in value.evidence] == accuracies
    assert [run.seed for run in value.evidence] == [0, 1, 2]
    assert {run.device for run in value.evidence} == {DEVICE}
    assert value.evidence[1].record == (
        "results/tiny/attack/emp-free3-digits-s1/rle/pgd20/record.json"
    )


def test_a_published_value_becomes_a_fraction_with_difference_and_verdict(alike, frame):
    changed = with_counts(frame, [7600, 7588, 7576], n=10_000)
    value = cell(comparison(alike, alike.tables["table1"], changed), "free", 0)
    assert value.published == pytest.approx(0.7588)
    assert value.difference == pytest.approx(0.0)
    assert value.verdict.state == "reproduced"
    changed = with_counts(frame, [6600, 6588, 6576], n=10_000)
    value = cell(comparison(alike, alike.tables["table1"], changed), "free", 0)
    assert value.difference == pytest.approx(-0.10)
    assert value.verdict.state == "different"


def test_margins_are_those_of_the_study(frame):
    changed = with_counts(frame, [7600, 7588, 7576], n=10_000)
    study = small_study(**ALIKE, verdicts=Verdicts(margin=0.05))
    value = cell(comparison(study, study.tables["table1"], changed), "free", 0)
    assert (value.verdict.state, value.verdict.margin) == ("undecided", 0.0005)


def test_a_cell_of_another_head_or_training_is_not_comparable_and_says_why(study, frame):
    table = comparison(study, study.tables["table1"], frame)
    value = cell(table, "free", 0)
    assert value.verdict.state == "not comparable"
    assert "head switch probe_epochs is 3 (paper 20" in value.verdict.reason
    assert "training switch batch_size is 100 (code 512)" in cell(table, "pgd", 0).verdict.reason
    assert "free: head switch probe_epochs is 3" in table.comparable
    assert "not comparable" in writers.markdown(table)


@pytest.mark.parametrize(
    ("row", "column", "reason"),
    [("free", 2, "published value not available"), ("pgd", 0, "not run")],
)
def test_a_cell_without_one_side_was_not_attempted(alike, frame, row, column, reason):
    partial = [result for result in frame if result["entry"] != "simclr-pgd5"]
    value = cell(comparison(alike, alike.tables["table1"], partial), row, column)
    assert (value.verdict.state, value.verdict.reason) == ("not attempted", reason)


def test_cells_without_a_published_value_have_no_verdict(alike, frame):
    table = comparison(alike, alike.tables["table1"], frame)
    assert cell(table, "supervised", 0).verdict is None
    assert cell(table, "pgd", 2).verdict is None


def test_the_spread_of_a_column_comes_from_its_rows_with_several_seeds(alike, frame):
    table = comparison(alike, alike.tables["table1"], frame)
    accuracies = [run.value for run in cell(table, "free", 1).evidence]
    assert cell(table, "pgd", 1).spread == pytest.approx((stdev(accuracies), 2))
    assert cell(table, "pgd", 1).half > cell(table, "free", 1).half


@pytest.mark.parametrize(
    ("ours", "low", "high", "spread"),
    [
        (0.0, 0.0, 0.0741, "7"),  # 0 of 48 images: half of Wilson's interval is not where it ends
        (1.0, 0.9259, 1.0, "7"),
        (0.05, 0.0, 0.11, "6"),
        (0.5, 0.36, 0.62, "13"),  # not cut: half
    ],
)
def test_an_interval_that_is_cut_at_an_end_shows_how_far_it_reaches(ours, low, high, spread):
    value = CellValue(Column.parse("digits/pgd20/8"), 1, ours=ours, low=low, high=high)
    assert writers.cell_text(value).spread == spread


def test_a_row_that_stands_twice_in_a_table_counts_once(alike, frame):
    rows = ROWS | {"again": ROWS["free"]}
    table = comparison(alike, Table("T", COLUMNS, rows), frame)
    assert cell(table, "again", 1).spread.freedom == 2


# Cells whose attack is not established


def struck(frame, entry="simclr-pgd5"):
    """Return the frame with a head whose attack is not established."""
    return [
        {**row, "sanity": "AS3 AS9"} if row["entry"] == entry and row["eps"] else row
        for row in frame
    ]


def test_a_number_whose_attack_is_not_established_is_struck_with_the_failed_checks(alike, frame):
    table = comparison(alike, alike.tables["table1"], struck(frame))
    value = cell(table, "pgd", 1)
    assert (value.struck, value.difference) == ("AS3 AS9", None)
    assert value.verdict.reason == "attack not established: AS3 AS9"
    assert f"~~{100 * value.ours:.0f}~~ (attack not established: AS3 AS9" in writers.markdown(table)
    assert f"\\sout{{{100 * value.ours:.0f}}} (attack not" in writers.latex(table)
    assert "\\usepackage[normalem]{ulem}" in writers.latex(table)
    assert "Struck through" in table.legend
    lines = list(csv.DictReader(io.StringIO(writers.csv(table))))
    line = next(line for line in lines if (line["row"], line["column"]) == ("pgd", "pgd20 4/255"))
    assert float(line["ours"]) == pytest.approx(100 * value.ours, rel=1e-5)
    assert (line["state"], line["struck"]) == ("not attempted", "AS3 AS9")


def test_clean_accuracy_and_minutes_are_not_struck(alike, frame):
    table = comparison(alike, alike.tables["table1"], [{**row, "sanity": "AS9"} for row in frame])
    assert [bool(value.struck) for value in table.rows[0].cells] == [False, True, True, False]
    assert not cell(comparison(alike, alike.tables["table1"], frame), "free", 1).struck


def test_a_struck_cell_does_not_lend_its_spread(alike, frame):
    table = comparison(alike, alike.tables["table1"], struck(frame, "emp-free3"))
    assert cell(table, "pgd", 1).spread is None
    assert cell(table, "pgd", 0).spread is not None


def test_a_struck_cell_does_not_count_among_the_cells_of_the_table(alike, frame):
    def p(frame):
        return cell(comparison(alike, alike.tables["table1"], frame), "free", 0).verdict.p

    assert p(struck(frame)) < p(frame)


# Notes


def test_minutes_have_the_range_over_seeds_and_no_verdict(table):
    value = cell(table, "free", 3)
    assert value.ours == pytest.approx(3.1)
    assert (value.low, value.high) == pytest.approx((3.0, 3.2))
    assert (value.published, value.difference, value.verdict) == (97, None, None)
    assert (value.covers, value.spread) == (None, None)
    assert value.evidence[0].record == "results/tiny/pretrain/emp-free3-digits-s0/record.json"


def test_markdown_shows_the_published_value_and_marks_significant_differences(alike, frame):
    changed = with_counts(frame, [7600, 7588, 7576], n=10_000)
    changed = with_counts(changed, [4600, 4597, 4594], n=10_000, eps=4.0)
    text = writers.markdown(comparison(alike, alike.tables["table1"], changed))
    line = next(line for line in text.splitlines() if line.startswith("| CF-AMC-SSL"))
    assert "| 75.9 ±0.3 (75.88, 0.0, reproduced) |" in line
    assert "| 46.0 ±0.1 (55.97, **-10.0**, different) |" in line
    assert line.count("(published value not available)") == 1
    assert line.endswith("| 3.1 (97) |")


def test_a_cell_without_published_value_is_ours_alone(table):
    line = next(line for line in writers.markdown(table).splitlines() if "supervised" in line)
    assert "(" not in line
    assert line.count("±") == 3


def test_a_cell_that_was_not_run_shows_so_beside_its_published_value(study, frame):
    partial = [row for row in frame if row["entry"] != "simclr-pgd5"]
    table = comparison(study, study.tables["table1"], partial)
    line = next(line for line in writers.markdown(table).splitlines() if "SimCLR" in line)
    assert line.split(" | ")[2:4] == ["not run (72.86)", "not run (47.98)"]
    assert "not run (934)" in line


def test_a_cell_with_some_seeds_says_how_many(study, frame):
    partial = [row for row in frame if row["run"] != "emp-free3-digits-s1"]
    text = writers.markdown(comparison(study, study.tables["table1"], partial))
    assert "2 of 3 seeds" in text


def test_a_bar_in_a_label_does_not_break_the_markdown_table(table):
    lines = [line for line in writers.markdown(table).splitlines() if line.startswith("|")]
    assert len({line.replace("\\|", "").count("|") for line in lines}) == 1
    assert any("SimCLR \\| PGD_5" in line for line in lines)


def test_rows_with_different_probes_name_them(study, frame, table):
    assert table.shows_probe
    assert "| supervised-free3 | own |" in writers.markdown(table)
    one = comparison(study, study.tables["aa"], frame)
    assert not one.shows_probe


def test_protocol_names_what_is_needed_to_repeat_the_table(table):
    expected = (
        "Probes: rle (linear head on 5-step PGD examples of 8/255, 3 epochs); "
        "own (the classifier that the network was trained with). "
        "Attacks: pgd20 (PGD, 20 steps of 2.55/255, no random start). "
        "Test images: 200. Seeds: 0, 1, 2."
    )
    assert table.protocol == expected
    assert expected in writers.markdown(table)


def test_the_legend_names_the_intervals_and_what_verdicts_mean(alike, study, frame):
    table = comparison(alike, alike.tables["table1"], frame)
    for text in ("Student's t", "within 2 points (within 1 below 10 %", "Holm", "One seed: never"):
        assert text in table.legend
    single = [row for row in frame if row["seed"] == 0]
    (seedless,) = [comparison(alike, alike.tables["table1"], single).legend]
    assert "no verdict, unless the difference is more than 4.2 points" in seedless
    assert "Wilson's" in seedless
    unpublished = Table("T", COLUMNS[:1], {"a": Row("supervised-free3", "own")})
    assert "One seed: no verdict." in comparison(study, unpublished, frame).legend


def test_the_legend_of_several_seeds_near_zero_still_explains_verdicts(alike, frame):
    low = [{**row, "correct": 0} for row in frame if row["run"].startswith("emp-free3")]
    assert len({row["seed"] for row in low}) > 1
    row = next(row for row in ROWS.values() if row.run == "emp-free3")
    table = dataclasses.replace(alike.tables["table1"], rows={"low": row})
    legend = comparison(alike, table, low).legend
    assert "Undecided: neither" in legend
    assert "One seed" not in legend


def test_a_table_without_minutes_has_the_same_bytes_on_another_machine_and_day(study, frame):
    others = [{**row, "pretrain_minutes": 99.0, "device": "cuda: other"} for row in frame]
    table = dataclasses.replace(
        study.tables["table1"],
        columns=COLUMNS[:3],
        rows={
            name: dataclasses.replace(row, published=row.published[:3])
            for name, row in ROWS.items()
        },
    )
    for write in writers.WRITERS.values():
        first, second = (write(comparison(study, table, rows)) for rows in (frame, others))
        assert first == second
        whole = study.tables["table1"]
        first, second = (write(comparison(study, whole, rows)) for rows in (frame, others))
        assert first != second


def test_a_table_with_minutes_names_the_machine(table, study, frame):
    assert f"Minutes are those of pretraining only on {DEVICE}." in table.legend
    assert DEVICE not in writers.markdown(comparison(study, study.tables["aa"], frame))


def test_an_attack_on_views_is_not_said_to_be_one_on_images(study):
    probes = study.probes | {"crops": NcropProbe(n=4)}
    words = "Through crops an attack perturbs every view"
    for columns, probe, expected in (
        (COLUMNS, "crops", True),
        (COLUMNS, "rle", False),
        (("digits/clean",), "crops", False),
    ):
        table = Table("T", columns, {"one": Row("emp-free3", probe)})
        changed = dataclasses.replace(study, probes=probes, tables={"t": table})
        assert (words in comparison(changed, table, []).comparable) == expected


def test_a_reduced_autoattack_is_not_called_comparable(study, frame):
    table = comparison(study, study.tables["aa"], frame)
    assert "autoattack is a reduced version" in table.comparable
    attacks = study.attacks | {"autoattack": type(study.attacks["autoattack"])(eps=(8.0,))}
    standard = comparison(small_study(attacks=attacks), study.tables["aa"], frame)
    assert "autoattack is the standard version" in standard.comparable


def test_a_demonstration_says_so_on_every_format(frame):
    study = small_study(demonstration="Demonstration: no reproduction.")
    table = comparison(study, study.tables["table1"], frame)
    for write in (writers.markdown, writers.csv, writers.latex):
        assert "Demonstration: no reproduction." in write(table)
    assert "not with any published number" in table.comparable


def test_csv_has_a_line_per_cell_with_its_records(table):
    lines = list(csv.DictReader(io.StringIO(writers.csv(table))))
    assert len(lines) == len(ROWS) * len(COLUMNS)
    first = lines[0]
    assert (first["row"], first["column"], first["unit"]) == ("free", "clean", "%")
    assert float(first["ours"]) == pytest.approx(100 * table.rows[0].cells[0].ours, rel=1e-5)
    assert first["published"] == "75.88"
    assert len(first["records"].split()) == 3
    assert lines[2]["published"] == "unavailable"
    assert lines[3]["unit"] == "minutes"


def test_latex_is_escaped_and_its_rows_have_the_same_width(table):
    text = writers.latex(table)
    assert "PGD\\_5" in text
    body = text[text.index("\\midrule") : text.index("\\bottomrule")]
    rows = [line for line in body.splitlines() if line.endswith(r"\\")]
    assert [line.replace("\\&", "").count("&") for line in rows] == [5, 5, 5]
    assert "\\begin{tabular}{llrrrr}" in text
    assert "\\multicolumn{4}{c}{digits}" in text
    assert "5 \\%" in text


def test_latex_escapes_every_special_character():
    assert writers.escape(r"50% & $a_b^c$ #{~} \x") == (
        r"50\% \& \$a\_b\textasciicircum{}c\$ \#\{\textasciitilde{}\} \textbackslash{}x"
    )


@pytest.mark.parametrize(
    ("fraction", "text"), [(-0.0001, "0.0"), (0.012, "+1.2"), (-0.049, "-4.9")]
)
def test_a_difference_has_its_sign_but_is_never_minus_zero(fraction, text):
    assert writers.signed(fraction) == text


def test_every_kind_of_table_can_be_made_without_any_result(study):
    for kind in TABLES.values():
        table = kind(study, Table("T", COLUMNS, {"a": Row("simclr-pgd5", "rle")}), [])
        assert "not run" in writers.markdown(table)
        assert writers.csv(table)
        assert writers.latex(table)


def test_tables_load_neither_torch_nor_matplotlib():
    code = (
        "import sys, robustviews.reporting.results, robustviews.reporting.tables.writers;"
        "sys.exit(any(name in sys.modules for name in ('torch', 'matplotlib', 'jinja2', 'scipy')))"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_one_seed_needs_no_scipy_which_a_bare_host_of_the_headline_lacks(frame):
    code = (
        "import json, sys; sys.modules['scipy'] = None;"
        "from robustviews.reporting.tables import comparison, writers;"
        "from tests.unit.reporting.test_tables import ALIKE, small_study;"
        "study = small_study(**ALIKE); frame = json.loads(sys.stdin.read());"
        "print(writers.markdown(comparison(study, study.tables['table1'], frame)))"
    )
    single = [row for row in frame if row["seed"] == 0]
    done = subprocess.run(
        [sys.executable, "-c", code],
        input=json.dumps(single),
        check=True,
        capture_output=True,
        text=True,
    )
    assert "different, assumed spread" in done.stdout


def test_every_layout_that_a_study_may_name_can_be_made():
    for block, kinds in ((Table, TABLES), (Figure, FIGURES)):
        assert set(get_args(get_type_hints(block)["kind"])) == set(kinds)
