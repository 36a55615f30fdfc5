"""Claims: inequalities between rows, tested on results and evaluated on the published numbers."""

from __future__ import annotations

import dataclasses

import pytest
import yaml

from robustviews.artifacts import write_text
from robustviews.reporting import claims, results, terminal
from robustviews.study import load_study
from robustviews.study.schema import Claim, Row, Table
from tests.unit.results_tree import COLUMNS, small_study
from tests.unit.study.mistakes import BASE
from tests.unit.study.test_studies import ROOT

RUNS = small_study().runs
SEEDS = (0, 1, 2, 3)
ROWS = {
    "left": Row("emp-free3", "rle", published=(75.0, 50.0, 30.0, 97)),
    "right": Row("simclr-pgd5", "rle", published=(73.0, 45.0, "unavailable", 934)),
    "own": Row("supervised-free3", "own"),
}


def study(**holds):
    """Return a study with claims of one table; all its rows have four seeds."""
    return small_study(
        runs={name: dataclasses.replace(run, seeds=SEEDS) for name, run in RUNS.items()},
        tables={"table1": Table("T", COLUMNS, ROWS)},
        figures={},
        claims={name: Claim("words", "table1", tuple(texts)) for name, texts in holds.items()},
    )


def frame(left, right, *, own=0.5, seeds=SEEDS, minutes=(10.0, 40.0), n=10_000, spread=0.002):
    """Return results whose seeds spread around an accuracy, the same in all columns."""
    rows = []
    entries = {"emp-free3": left, "simclr-pgd5": right, "supervised-free3": own}
    for number, (entry, accuracy) in enumerate(entries.items()):
        for seed in seeds:
            for eps in (0.0, 4.0, 8.0):
                correct = round(n * (accuracy + spread * (seed - 1.5)))
                rows.append(
                    {
                        "run": f"{entry}-digits-s{seed}",
                        "seed": seed,
                        "probe": "own" if entry.startswith("supervised") else "rle",
                        "attack": "pgd20",
                        "eps": eps,
                        "metric": "top-1",
                        "n": n,
                        "correct": correct,
                        "low": 0.0,
                        "high": 1.0,
                        "pretrain_minutes": minutes[min(number, 1)],
                        "device": "cpu",
                        "sanity": "",
                        "record": "record.json",
                    }
                )
    return rows


def outcome(rows, *holds):
    (result,) = claims.evaluate(study(F1=holds), rows)
    return result


# A sign-flip in the comparison fails these.


@pytest.mark.parametrize(
    ("text", "left", "right", "state"),
    [
        ("left > right", 0.60, 0.50, "holds"),
        ("left > right", 0.50, 0.60, "fails"),
        ("left < right", 0.50, 0.60, "holds"),
        ("left < right", 0.60, 0.50, "fails"),
        ("left >= right - 5", 0.58, 0.60, "holds"),
        ("left >= right - 5", 0.50, 0.60, "fails"),
        ("left >= right + 5", 0.70, 0.60, "holds"),
        ("left >= right + 5", 0.61, 0.60, "fails"),
        ("left <= right + 5", 0.61, 0.60, "holds"),
        ("left <= 0.5 * right", 0.20, 0.60, "holds"),
        ("left <= 0.5 * right", 0.40, 0.60, "fails"),
        ("left > right", 0.501, 0.500, "undecided"),
        ("left >= right - 1 on clean", 0.501, 0.500, "undecided"),
        ("left <= 0.3 * right on minutes", 0.5, 0.5, "holds"),
        ("left <= 0.2 * right on minutes", 0.5, 0.5, "fails"),
        ("left > right on minutes", 0.5, 0.5, "fails"),
        ("left < right on passes", 0.5, 0.5, "holds"),  # 3 x 4 x 3 against 6 x 2 x 6
        ("left <= 0.4 * right on passes", 0.5, 0.5, "fails"),
    ],
)
def test_a_claim_holds_fails_or_is_undecided(text, left, right, state):
    unpublished = {name: dataclasses.replace(row, published=()) for name, row in ROWS.items()}
    without = study(F1=[text])
    without.tables["table1"] = Table("T", COLUMNS, unpublished)
    (result,) = claims.evaluate(without, frame(left, right))
    assert (result.state, result.published) == (state, "not published")


def test_the_difference_is_left_minus_right():
    part = outcome(frame(0.60, 0.50), "left > right on clean").decisive
    assert part.ours == pytest.approx(10)
    assert part.interval.low < 10 < part.interval.high
    assert part.published == pytest.approx(2)


def test_one_inequality_that_is_not_significant_leaves_the_claim_undecided():
    rows = frame(0.60, 0.50, own=0.599)
    assert outcome(rows, "left > right").state == "holds"
    assert outcome(rows, "left > right", "left > own").state == "undecided"
    assert outcome(rows, "left > right", "own > left + 5").state == "fails"


def test_holm_counts_the_claims_of_the_study():
    rows = frame(0.516, 0.50)
    (alone,) = claims.evaluate(study(F1=["left > right on clean"]), rows)
    many = claims.evaluate(study(**{f"F{n}": ["left > right on clean"] for n in range(1, 9)}), rows)
    assert many[0].p == pytest.approx(8 * alone.p)
    assert (alone.state, many[0].state) == ("holds", "undecided")


def test_few_images_decide_less():
    assert outcome(frame(0.53, 0.50), "left > right on clean").state == "holds"
    assert outcome(frame(0.53, 0.50, n=500), "left > right on clean").state == "undecided"


def test_a_mean_over_classes_decides_no_more_than_the_images_that_it_weighs_as():
    rows = frame(0.53, 0.50)
    assert outcome(rows, "left > right on clean").state == "holds"
    weighed = [{**row, "accuracy": row["correct"] / row["n"], "weighs": 500} for row in rows]
    assert outcome(weighed, "left > right on clean").state == "undecided"


def test_one_seed_is_no_test():
    result = outcome(frame(0.60, 0.50, seeds=(0,)), "left > right")
    assert (result.state, result.decisive.missing) == ("undecided", "one seed")


def test_a_claim_waits_for_all_seeds():
    result = outcome(frame(0.60, 0.50, seeds=SEEDS[:3]), "left > right")
    assert (result.state, result.decisive.missing) == ("undecided", "3 of 4 seeds")


def test_a_row_that_was_not_run_or_not_established_leaves_the_claim_not_attempted():
    rows = frame(0.60, 0.50)
    partial = [row for row in rows if not row["run"].startswith("simclr")]
    assert outcome(partial, "left > right").state == "not attempted"
    struck = [{**row, "sanity": "AS9"} if row["eps"] == 8 else row for row in rows]
    result = outcome(struck, "left > right")
    assert result.state == "not attempted"
    assert result.decisive.missing == "attack not established: AS9"
    assert outcome(struck, "left > right on clean").state == "holds"


def test_minutes_of_different_devices_are_not_compared():
    rows = frame(0.6, 0.5)
    rows = [{**row, "device": f"device of {row['run'][:3]}"} for row in rows]
    result = outcome(rows, "left < right on minutes")
    assert (result.state, result.decisive.missing) == ("undecided", "minutes of different devices")


@pytest.mark.parametrize(
    ("text", "published"),
    [
        ("left > right on clean", "holds"),
        ("left >= right + 2 on clean", "holds"),
        ("left > right + 2 on clean", "fails"),
        ("right > left on pgd20/4", "fails"),
        ("left > right on pgd20", "unavailable"),
        ("left > own on clean", "not published"),
        ("left <= 0.2 * right on minutes", "holds"),
        ("left <= 0.1 * right on minutes", "fails"),
        ("left > right on digits/clean, pgd20/4", "holds"),
    ],
)
def test_the_published_numbers_are_compared_too(text, published):
    assert outcome([], text).published == published


def test_a_claim_that_the_papers_numbers_contradict_says_so_unless_ours_hold():
    assert outcome([], "right > left on clean").state == "not even on the published numbers"
    assert outcome(frame(0.6, 0.5), "right > left on clean").state == (
        "not even on the published numbers"
    )
    result = outcome(frame(0.5, 0.6), "right > left on clean")
    assert (result.state, result.published) == ("holds", "fails")


def test_the_text_of_claims_has_a_line_each_and_the_decisive_inequality():
    outcomes = claims.evaluate(study(F1=["left > right on clean"]), frame(0.6, 0.5))
    text = terminal.claims(outcomes, colour=False)
    assert "F1     holds   holds              words" in text
    assert "F1: left > right on digits/clean: difference +10" in text
    assert "published +2.00" in text


def test_the_paper_study_has_all_claims_and_the_published_numbers_say_what_they_say():
    paper = load_study(ROOT / "studies/cf-amc-ssl.yaml")
    outcomes = {one.name: one for one in claims.evaluate(paper, [])}
    published = {name: one.published for name, one in outcomes.items()}
    assert published == {
        **dict.fromkeys(("F1", "F2", "F3", "F6", "F7", "F8"), "holds"),
        "F4": "unavailable",
        "F5": "fails",
    }
    against = [
        round(part.published, 2) for part in outcomes["F5"].parts if part.is_published is False
    ]
    assert against == [-2.15, -2.16]


def test_the_claim_on_the_page_of_the_docs_is_that_of_the_paper_study():
    page = (ROOT / "docs/verdicts.md").read_text(encoding="utf-8")
    block = page.split("```yaml\nclaims:")[1].split("```")[0]
    example = yaml.safe_load(f"claims:{block}")["claims"]["F5"]
    claim = load_study(ROOT / "studies/cf-amc-ssl.yaml").claims["F5"]
    assert example == {"says": claim.says, "table": claim.table, "holds": list(claim.holds)}


# Mistakes in a study file

CLAIM = """\
claims:
  F1: {says: words, table: main, holds: [free > own]}
"""


def problems(tmp_path, text):
    path = tmp_path / "study.yaml"
    write_text(path, text)
    try:
        load_study(path)
    except ValueError as error:
        return [f"{problem.line} {problem.key}: {problem.message}" for problem in error.problems]
    return []


def test_a_claim_of_a_table_or_figure_is_accepted(tmp_path):
    assert problems(tmp_path, BASE + CLAIM) == []
    assert (
        problems(tmp_path, BASE + CLAIM.replace("free > own", "free >= own - 1.5 on clean")) == []
    )


@pytest.mark.parametrize(
    ("old", "new", "key", "message"),
    [
        (
            "table: main",
            "table: maln",
            "claims.F1.table",
            "no `maln` in `tables` or `figures`",
        ),
        ("free > own", "fre > own", "claims.F1.holds[0]", "no row `fre` in `main`; did you mean"),
        ("free > own", "free is better", "claims.F1.holds[0]", "expected `ROW > ROW`, such as"),
        ("free > own", "free > own-1", "claims.F1.holds[0]", "no row `own-1` in `main`; did you"),
        ("free > own", "free > free", "claims.F1.holds[0]", "compares `free` with itself"),
        (
            "free > own",
            "free > own on pgd2",
            "claims.F1.holds[0]",
            "`main` has `pgd2`; did",
        ),
        (
            "[free > own]",
            "[]",
            "claims.F1.holds",
            "expected one of holds, most, influences, found none",
        ),
        ("says: words, ", "", "claims.F1.says", "this key is missing"),
        ("F1:", "F 1:", "claims.F 1", "not a usable name"),
    ],
)
def test_a_mistake_in_a_claim_is_reported_at_its_place(tmp_path, old, new, key, message):
    found = problems(tmp_path, BASE + CLAIM.replace(old, new))
    line = len(BASE.splitlines()) + 2
    assert len(found) == 1, found
    assert found[0].startswith(f"{line} {key}: ")
    assert message in found[0]


def test_no_table_may_have_the_name_under_which_metrics_hold_claims(tmp_path):
    (found,) = problems(tmp_path, BASE.replace("  main:", "  claims:"))
    assert "`claims` is a reserved name" in found


def test_frames_of_this_file_have_the_columns_that_claims_read():
    assert set(frame(0.5, 0.5)[0]) <= set(results.Result.__annotations__)
