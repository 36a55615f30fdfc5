"""Claims about what rows retain: most rows, a narrowing advantage, the influence of a factor."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from robustviews.reporting import claims, contrasts, robustness
from robustviews.reporting.figures import gaps
from robustviews.reporting.outcomes import Outcome, Part
from robustviews.reporting.tables.values import CellValue, Evidence, RowValues
from robustviews.study import factors, load_study
from robustviews.study.claims import Column
from robustviews.study.problems import StudyError
from robustviews.study.schema import Claim, Row, Table
from tests.unit.results_tree import small_study
from tests.unit.study.mistakes import BASE

METHODS = ("a", "b", "c", "d", "e", "f", "g")
COLUMNS = ("digits/pgd20/retained", "digits/pgd20/e50")
DRAWS = np.random.default_rng(0).normal(0, 0.003, 2000)


def row(name, retained, *, seeds=3, halving=None, spread=0.004):
    """Return a row whose seeds spread around what it retains."""
    cells = []
    for column, value in zip(COLUMNS, (retained, halving or 8 * retained), strict=True):
        values = [value + spread * (seed - (seeds - 1) / 2) for seed in range(seeds)]
        evidence = [
            Evidence(name, s, v, 0.0, 1.0, 1000, 1000, "cpu", "", "top-1")
            for s, v in enumerate(values)
        ]
        cells.append(
            CellValue(
                Column.parse(column),
                seeds,
                ours=value,
                evidence=tuple(evidence),
                replicates=value + DRAWS,
            )
        )
    return RowValues(name, name, name, "linear", tuple(cells))


def outcome(monkeypatch, claim, *tables):
    """Return the outcome of a claim about tables of rows, by what each row retains."""
    named = {f"table{number}": table for number, table in enumerate(tables)}
    study = small_study(
        runs={},
        tables={
            name: Table("T", COLUMNS, {row: Row(row, "linear", **levels(row)) for row in table})
            for name, table in named.items()
        },
        figures={},
        claims={"B": claim},
    )
    order = iter(tables)
    monkeypatch.setattr(robustness, "row_values", lambda *_: list(next(order).values()))
    (found,) = claims.evaluate(study, [])
    return found


def levels(name):
    group, _, level = name.partition("-")
    return {"group": group, "level": float(level)} if level.isdigit() else {}


def table(gaps, *, over=0.5, **options):
    rows = {name: row(name, over + gap, **options) for name, gap in zip(METHODS, gaps, strict=True)}
    return {**rows, "sup": row("sup", over, **options)}


MOST = Claim("SSL retains more", "table0", most=METHODS, over="sup")


@pytest.mark.parametrize(
    ("gaps", "state"),
    [
        ([0.1] * 7, "holds"),
        ([0.1] * 5 + [0.0, 0.0], "holds"),
        ([0.1] * 4 + [0.0] * 3, "undecided"),  # four of seven are too few
        ([0.2] * 6 + [-0.1], "undecided"),  # one is significantly worse
        ([-0.1] * 7, "fails"),
        ([-0.1] * 4 + [0.2] * 3, "fails"),  # four of seven are significantly worse
        ([0.0] * 7, "undecided"),
    ],
)
def test_most_rows_and_their_mean_have_to_retain_more(monkeypatch, gaps, state):
    assert outcome(monkeypatch, MOST, table(gaps)).state == state


def test_a_figure_has_a_dot_for_each_advantage_of_the_claims(monkeypatch):
    rows = table([0.1] * 7)
    study = small_study(
        runs={},
        tables={"table0": Table("T", COLUMNS, {name: Row(name, "linear") for name in rows})},
        figures={},
        claims={"B": MOST},
    )
    monkeypatch.setattr(robustness, "row_values", lambda *_: list(rows.values()))
    found = robustness.advantages(study, [])
    assert {title: list(parts) for title, parts in found.items()} == {"T: over sup": [*METHODS]}
    assert [part.ours for part in found["T: over sup"].values()] == pytest.approx([10.0] * 7)
    found["T: over sup"][METHODS[0]] = Part(METHODS[0], missing="not run")
    (axis,) = gaps(found, title="Advantages").axes
    assert len(axis.containers) == 6
    assert [text.get_text() for text in axis.get_yticklabels()] == ["T: over sup"]


@pytest.mark.parametrize(("gap", "state"), [(-0.007, "undecided"), (-0.01, "fails")])
def test_a_claim_fails_by_either_of_two_tests_each_at_half_the_level(monkeypatch, gap, state):
    rows = table([gap] * 7)
    weights = {**{(0, name): 1 / 7 for name in METHODS}, (0, "sup"): -1.0}
    mean = robustness.estimate([rows], weights, "retained").difference
    assert mean.below() < 0.05  # both would fail by this test alone
    found = outcome(monkeypatch, MOST, rows)
    assert dict(found.tests)["fails"] == pytest.approx(2 * mean.below())
    assert found.state == state


def on(*datasets):
    """Return a table of one row, whose draws on signs vary twice as much as those on digits."""
    cell, spread = row("a", 0.5, seeds=1).cells[0], {"digits": DRAWS, "signs": 2 * DRAWS}
    cells = [
        dataclasses.replace(
            cell, column=Column.parse(f"{name}/pgd20/retained"), replicates=0.5 + spread[name]
        )
        for name in datasets
    ]
    return {"a": RowValues("a", "a", "a", "linear", tuple(cells))}


@pytest.mark.parametrize(
    ("first", "second", "error"),
    [
        (("digits", "signs"), ("signs", "digits"), 0.0),  # the same images in another place
        (("digits",), ("digits",), 0.0),
        (("digits",), ("signs",), 100 * 5**0.5 * 0.003),  # other images err independently
    ],
)
def test_images_of_two_tables_are_paired_by_the_name_of_their_data_set(first, second, error):
    weights = {(0, "a"): 1.0, (1, "a"): -1.0}
    found = robustness.estimate([on(*first), on(*second)], weights, "retained").difference
    assert found.error == pytest.approx(error, rel=0.1, abs=1e-9)


def test_a_claim_that_holds_only_before_the_correction_is_undecided():
    found = Outcome("a", "", "", "holds", (), (("holds", 0.03), ("narrows", 0.0)))
    assert found.decided(0.0, 9).state == "narrows"


def test_networks_of_one_training_say_nothing_about_methods(monkeypatch):
    found = outcome(monkeypatch, MOST, table([0.1] * 7, seeds=1))
    assert found.state == "holds for these networks"
    assert "one network per method, 7 above zero" in found.decisive.text
    assert outcome(monkeypatch, MOST, table([0.1] * 7, seeds=2)).state == "holds"


def test_statistics_that_disagree_decide_nothing(monkeypatch):
    rows = table([0.1] * 7)
    rows["sup"] = row("sup", 0.5, halving=8.0)
    assert outcome(monkeypatch, MOST, rows).state == "depends on the statistic"


@pytest.mark.parametrize(
    ("linear", "tuned", "state"),
    [(0.1, 0.02, "holds"), (0.1, 0.07, "narrows"), (0.1, 0.15, "fails"), (-0.1, 0.0, "undecided")],
)
@pytest.mark.parametrize(("seeds", "scope"), [(3, ""), (1, " for these networks")])
def test_an_advantage_narrows_by_half(monkeypatch, linear, tuned, state, seeds, scope):
    claim = dataclasses.replace(MOST, narrows="table1")
    pair = (table([gap] * 7, seeds=seeds) for gap in (linear, tuned))
    found = outcome(monkeypatch, claim, *pair)
    assert found.state == (state if state == "undecided" else state + scope)


@pytest.mark.parametrize(
    ("per_doubling", "state"),
    [
        (0.05, "influences"),
        (-0.05, "influences"),
        (0.0, "no relevant influence"),
        (0.005, "no relevant influence"),  # there is one, but it is too small to matter
    ],
)
def test_a_factor_influences_or_not(monkeypatch, per_doubling, state):
    rows = {
        f"{group}-{level}": row(f"{group}-{level}", base + per_doubling * math.log2(level / 100))
        for group, base in (("x", 0.4), ("y", 0.7))
        for level in (100, 200, 800)
    }
    claim = Claim("duration influences", "table0", influences=1.0)
    found = outcome(monkeypatch, claim, rows)
    assert found.state == state
    assert found.parts[0].ours == pytest.approx(100 * per_doubling, abs=1e-6)


def test_words_are_compared_with_the_first_one_of_their_group():
    rows = {
        "a": Row("r", "p", group="x", level="crop"),
        "b": Row("r", "p", group="x", level="colour"),
        "c": Row("r", "p", group="y", level="crop"),
        "d": Row("r", "p", group="y", level="colour"),
        "e": Row("r", "p"),
        "f": Row("r", "p", group="z", level="blur"),
        "g": Row("r", "p", group="z", level="colour"),
    }
    found = factors.comparisons(Table("T", COLUMNS, rows))
    assert found == {
        "colour against crop": {"a": -0.5, "b": 0.5, "c": -0.5, "d": 0.5},
        "colour against blur": {"f": -1.0, "g": 1.0},
    }


def test_a_claim_does_not_average_two_metrics_of_an_attack():
    columns = ("scenes/pgd/retained", "scenes/pgd/retained:pixel-accuracy")
    assert factors.retained_attacks(Table("T", columns, {})) == ["pgd", "pgd:pixel-accuracy"]


def test_signs_are_exchanged_in_all_ways():
    above, below, interval = contrasts.sign_flips([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0])
    assert (above, below) == (1 / 128, 1.0)
    assert 0 < interval.low < 4 < interval.high < 7
    assert interval.low == pytest.approx(8 - interval.high, abs=1e-6)
    assert contrasts.sign_flips([1.0, 2.0])[2] is None


@pytest.mark.parametrize(
    ("text", "key", "message"),
    [
        ("most: [free, own]", "claims.B.most", "add the row that they are compared with"),
        ("most: [free, free2], over: own", "claims.B.most", "no row `free2` in `main`"),
        ("most: [free, own], over: own", "claims.B.over", "compares `own` with itself"),
        ("most: [free, own], over: own", "claims.B.table", "needs <dataset>/<attack>/retained"),
        ("influences: 1", "claims.B.influences", "needs rows with a `level`"),
        ("influences: 0", "claims.B.influences", "must be"),
        ("holds: [free > own], influences: 1", "claims.B.holds", "found holds and influences"),
        ("holds: [free > own], over: own", "claims.B.over", "belongs to a claim with `most`"),
    ],
)
def test_mistakes_of_claims_are_reported(tmp_path, text, key, message):
    path = tmp_path / "study.yaml"
    claim = f"claims:\n  B: {{says: words, table: main, {text}}}\n"
    path.write_text(BASE + claim, encoding="utf-8")
    with pytest.raises(StudyError) as caught:
        load_study(path)
    assert any(found.key == key and message in found.message for found in caught.value.problems)
