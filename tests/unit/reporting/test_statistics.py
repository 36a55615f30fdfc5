"""Intervals and verdicts, compared with independently computed values."""

from __future__ import annotations

import pytest

from robustviews.reporting.statistics import compare, over_seeds, student_t, wilson


@pytest.mark.parametrize(
    ("correct", "n", "low", "high"),
    # ends solve |p_hat - p| = 1.96 sqrt(p (1 - p) / n), found by bisection
    [(7588, 10_000, 0.750317, 0.767085), (0, 100, 0.0, 0.036994), (100, 100, 0.963006, 1.0)],
)
def test_wilson_interval_has_the_textbook_ends(
    correct: int, n: int, low: float, high: float
) -> None:
    assert wilson(correct, n) == pytest.approx((low, high), abs=2e-6)


def test_half_width_of_a_published_cell_is_that_stated_in_the_study() -> None:
    low, high = wilson(7588, 10_000)
    assert 0.008 < (high - low) / 2 < 0.010


@pytest.mark.parametrize(("correct", "n"), [(-1, 10), (11, 10), (0, 0)])
def test_impossible_counts_are_refused(correct: int, n: int) -> None:
    with pytest.raises(ValueError, match="expected 0 <= correct <= n"):
        wilson(correct, n)


@pytest.mark.parametrize(
    ("freedom", "quantile"), [(1, 12.7062), (2, 4.3027), (3, 3.1824), (4, 2.7764), (30, 2.0423)]
)
def test_student_quantiles_match_the_printed_tables(freedom: int, quantile: float) -> None:
    assert student_t(freedom) == pytest.approx(quantile, rel=2e-3)


def test_one_run_has_the_interval_of_its_test_images_and_no_spread() -> None:
    summary = over_seeds([(300, 400)])
    assert summary.sd is None
    assert (summary.low, summary.high) == wilson(300, 400)
    assert (summary.mean, summary.runs) == (0.75, 1)


def test_three_runs_have_the_t_interval_of_their_mean() -> None:
    summary = over_seeds([(70, 100), (72, 100), (74, 100)])
    half = 4.3027 * 0.02 / 3**0.5
    assert summary.mean == pytest.approx(0.72)
    assert summary.sd == pytest.approx(0.02)
    assert (summary.low, summary.high) == pytest.approx((0.72 - half, 0.72 + half), abs=1e-5)


def test_an_interval_never_leaves_the_range_of_an_accuracy() -> None:
    low = over_seeds([(0, 100), (4, 100)])
    high = over_seeds([(100, 100), (96, 100)])
    assert (low.low, high.high) == (0.0, 1.0)


def test_no_run_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one run"):
        over_seeds([])


@pytest.mark.parametrize(
    ("ours", "published", "z", "verdict"),
    # the two examples of arXiv 2501.03507 Table 1, rows 7 and 2
    [(0.7588, 0.7655, -1.1, "within noise"), (0.3334, 0.2849, 7.4, "higher")],
)
def test_verdict_on_single_runs_is_the_two_proportion_test(
    ours: float, published: float, z: float, verdict: str
) -> None:
    comparison = compare(ours, published, n=10_000)
    assert comparison.z == pytest.approx(z, abs=0.05)
    assert comparison.verdict == verdict
    assert comparison.difference == pytest.approx(ours - published)


def test_a_clear_fall_is_lower() -> None:
    assert compare(0.28, 0.33, n=10_000).verdict == "lower"


def test_our_spread_over_seeds_counts_for_the_published_run_too() -> None:
    assert compare(0.76, 0.74, n=10_000).verdict == "higher"
    spread = compare(0.76, 0.74, n=10_000, sd=0.01, runs=3)
    assert spread.verdict == "within noise"
    image_variance = 2 * 0.75 * 0.25 / 10_000
    seed_variance = 0.01**2 * (1 + 1 / 3)
    assert spread.z == pytest.approx(0.02 / (image_variance + seed_variance) ** 0.5)


def test_fewer_images_of_ours_decide_less() -> None:
    assert compare(0.36, 0.33, n=500).verdict == "within noise"
    assert compare(0.36, 0.33, n=10_000).verdict == "higher"


def test_two_zeros_are_no_difference() -> None:
    assert compare(0.0, 0.0, n=500) == (0.0, 0.0, "within noise")
