"""Verdicts: when a published value is reproduced, and how often verdicts are wrong."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from benchmarks.verdicts import simulate
from robustviews.reporting import verdicts
from robustviews.reporting.verdicts import Sample
from robustviews.study.schema import Verdicts

N = 10_000


def sample(*accuracies, published=None, n=N, total=N):
    return Sample(tuple((round(value * n), n) for value in accuracies), total, published)


def judge(*column, **rules):
    spreads = verdicts.spreads_of(column)
    (judged,) = verdicts.judge([column], [spreads], Verdicts(**rules))
    return judged


def test_a_difference_within_the_margin_with_95_percent_confidence_is_reproduced():
    (verdict,) = judge(sample(0.50, 0.502, 0.504, published=0.507))
    reach = stats.t.ppf(0.95, 2) * 0.002 / math.sqrt(3)
    assert 0.005 + reach < 0.02
    assert (verdict.state, verdict.margin) == ("reproduced", 0.02)
    margin = 100 * (0.005 + reach)
    values = sample(0.50, 0.502, 0.504, published=0.507)
    assert judge(values, margin=margin + 0.001)[0].state == "reproduced"
    assert judge(values, margin=margin - 0.001)[0].state == "undecided"


@pytest.mark.parametrize("published", [0.402, 0.602])
def test_a_difference_beyond_what_one_more_training_explains_is_different(published):
    (verdict,) = judge(sample(0.50, 0.502, 0.504, published=published))
    predicted = 0.002 * math.sqrt(1 + 1 / 3)
    assert verdict.state == "different"
    assert verdict.p == pytest.approx(2 * stats.t.sf(0.1 / predicted, 2))


def test_heads_of_the_same_encoders_add_no_degrees_of_freedom():
    """Accuracies of four heads differ by constants; intervals must cover 95 % of the truths."""
    random, covered = np.random.default_rng(0), 0
    for _ in range(2000):
        trainings = 0.5 + 0.01 * random.standard_normal(3)
        column = [sample(*trainings + 0.01 * head, n=10**6, total=10**6) for head in range(4)]
        spreads = verdicts.spreads_of(column, ["encoder"] * 4)
        low, high = verdicts.interval(column[0], spreads[0])
        covered += low <= 0.5 <= high
    assert 0.94 < covered / 2000 < 0.96
    assert verdicts.spreads_of(column, list("abcd"))[0].freedom == 8


def test_a_large_difference_of_trainings_that_spread_is_undecided():
    (verdict,) = judge(sample(0.47, 0.50, 0.53, published=0.56))
    assert verdict.state == "undecided"
    predicted = 0.03 * math.sqrt(1 + 1 / verdict.seeds)
    assert 2 * stats.t.sf(0.06 / predicted, verdict.seeds - 1) == pytest.approx(0.05, rel=1)


def test_a_significant_difference_within_the_margin_is_not_different():
    (verdict,) = judge(sample(*[0.50, 0.5001] * 4, published=0.515))
    assert verdict.p < 0.001
    assert verdict.state == "reproduced"


def test_a_significant_difference_just_within_the_margin_is_undecided():
    (verdict,) = judge(sample(0.5, 0.5005, published=0.51975))
    assert verdict.p < 0.05
    assert verdict.state == "undecided"


def test_the_named_number_of_seeds_decides():
    values = (0.496, 0.504, 0.512)
    (verdict,) = judge(sample(*values, published=0.515))
    assert verdict.state == "undecided"
    spread = verdict.spread
    for seeds, decides in ((verdict.seeds, True), (verdict.seeds - 1, False)):
        reach = stats.t.ppf(0.95, 2 + seeds - 3) * spread.sd / math.sqrt(seeds)
        assert (0.011 + reach <= 0.02) == decides


def test_a_difference_beyond_the_margin_that_no_seed_of_ours_decides_says_so():
    (verdict,) = judge(sample(0.48, 0.50, 0.52, published=0.525))
    assert (verdict.state, verdict.seeds) == ("undecided", None)


@pytest.mark.parametrize(
    ("published", "margin"), [(0.0999, 0.01), (0.1, 0.02), (0.5, 0.02), (0.995, 0.02)]
)
def test_low_published_values_have_the_small_margin(published, margin):
    assert judge(sample(0.5, 0.51, published=published))[0].margin == margin


def test_the_spread_of_a_column_is_shared_by_its_rows():
    alone = judge(sample(0.50, 0.501, published=0.51))
    together = judge(
        sample(0.50, 0.501, published=0.51), sample(0.60, 0.615, 0.63), sample(0.4, 0.41, 0.42)
    )
    assert together[0].spread.freedom == 5
    assert together[0].spread.sd > alone[0].spread.sd
    assert together[1] is None


def test_holm_counts_every_compared_cell_of_the_table():
    column = [sample(0.50, 0.51, published=0.507) for _ in range(10)]
    spreads = [verdicts.spreads_of(column)] * 2

    def verdict(others):
        first = [sample(0.50, 0.51, published=0.539), *column[1:]]
        unpublished = [sample(0.50, 0.51)] * 10
        return verdicts.judge([first, others(unpublished)], spreads, Verdicts())[0][0]

    alone, together = verdict(lambda cells: cells), verdict(lambda _: column)
    assert together.p == pytest.approx(2 * alone.p)
    assert (alone.state, together.state) == ("different", "undecided")


def test_one_seed_is_never_reproduced():
    (verdict,) = judge(sample(0.5, published=0.5))
    assert (verdict.state, verdict.spread.assumed) == ("undecided", True)


@pytest.mark.parametrize(("distance", "state"), [(0.0410, "undecided"), (0.0420, "different")])
def test_one_seed_is_different_only_beyond_the_assumed_spread(distance, state):
    assert 0.0410 < 1.96 * math.sqrt(2) * 0.015 < 0.0420
    (verdict,) = judge(sample(0.5, published=0.5 + distance))
    assert verdict.state == state
    assert ("assumed spread" in str(verdict)) == (state == "different")


def test_a_measured_spread_of_other_rows_replaces_the_assumed_one():
    verdict, _ = judge(sample(0.5, published=0.53), sample(0.600, 0.601, 0.602, 0.603, 0.604))
    assert not verdict.spread.assumed
    assert str(verdict) == "different"


def test_few_attacked_images_widen_interval_and_verdict():
    all_images, some = (sample(0.50, 0.51, published=0.505, n=500, total=t) for t in (500, N))
    (spread,) = verdicts.spreads_of([some])
    assert verdicts.interval(some, spread).low < verdicts.interval(all_images, spread).low
    assert judge(some)[0].p == pytest.approx(1)
    added = 0.505 * 0.495 * (1 / 500 - 1 / N)
    half = stats.t.ppf(0.975, 1) * math.sqrt(spread.sd**2 / 2 + added)
    assert verdicts.interval(some, spread) == pytest.approx((0.505 - half, 0.505 + half))


def test_zero_of_ten_thousand_is_not_different_from_four():
    (verdict,) = judge(sample(0.0, 0.0, 0.0, published=0.0004))
    assert (verdict.state, verdict.margin) == ("reproduced", 0.01)


def test_near_zero_the_counts_of_all_seeds_decide():
    (verdict,) = judge(sample(0.0, 0.0002, published=0.0196))
    assert verdict.state == "different"
    (verdict,) = judge(sample(0.002, 0.004, published=0.0125, n=500))
    assert verdict.state == "undecided"
    assert verdict.seeds > 2
    (verdict,) = judge(sample(0.999, 1.0, published=0.98))
    assert verdict.state == "different"


def test_near_zero_trainings_that_spread_are_not_different():
    (verdict,) = judge(sample(0.001, 0.018, 0.004, published=0.025))
    assert verdict.state == "undecided"
    (verdict,) = judge(sample(0.007, 0.008, 0.008, published=0.025))
    assert str(verdict) == "different"  # by counts: no spread is assumed


def test_rows_near_zero_do_not_lend_their_spread():
    column = (sample(0.0, 0.0001), sample(0.5, 0.52))
    assert verdicts.spreads_of(column)[1] == verdicts.spreads_of(column[1:])[0]


@pytest.mark.parametrize("accuracy", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("seeds", [1, 2, 5])
def test_no_interval_has_a_width_of_zero(accuracy, seeds):
    cell = sample(*[accuracy] * seeds)
    (spread,) = verdicts.spreads_of([cell])
    low, high = verdicts.interval(cell, spread)
    assert high - low > 1e-5
    assert 0 <= low <= accuracy <= high <= 1


def test_without_result_or_published_value_there_is_no_verdict():
    assert judge(Sample((), N, 0.5), sample(0.5, 0.51)) == [None, None]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("spread", "seeds", "reproduced", "found"),
    [(0.4, 3, 0.999, 0.99), (0.8, 3, 0.80, 0.58), (0.8, 5, 0.89, 0.81)],
)
def test_simulated_tables_have_few_false_alarms_and_the_stated_power(
    spread, seeds, reproduced, found
):
    rates = simulate(spread, seeds, tables=500)
    assert rates.alarm <= 0.05
    assert rates.reproduced == pytest.approx(reproduced, abs=0.02)
    assert rates.found == pytest.approx(found, abs=0.1)
    assert rates.edge <= 0.05 + 2 * (0.05 * 0.95 / 500) ** 0.5
