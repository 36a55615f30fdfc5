"""Intervals, spreads and tests, compared with scipy.stats and with simulations."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from robustviews.reporting import accuracies, contrasts, statistics
from robustviews.reporting.statistics import Spread, clopper_pearson, holm, spreads, wilson

RESOLUTIONS = [1e-4] * 5


@pytest.mark.parametrize(("correct", "n"), [(7588, 10_000), (0, 100), (100, 100), (3, 48)])
@pytest.mark.parametrize(("interval", "method"), [(wilson, "wilson"), (clopper_pearson, "exact")])
def test_intervals_of_proportions_are_those_of_scipy(interval, method, correct, n):
    expected = stats.binomtest(correct, n).proportion_ci(method=method)
    assert interval(correct, n) == pytest.approx((expected.low, expected.high))


@pytest.mark.parametrize("interval", [wilson, clopper_pearson])
@pytest.mark.parametrize(("correct", "n"), [(1, 0), (-1, 5), (6, 5)])
def test_impossible_counts_are_refused(interval, correct, n):
    with pytest.raises(ValueError, match="expected 0 <= correct <= n"):
        interval(correct, n)


@pytest.mark.parametrize("freedom", [1, 2, 7.5, 30, math.inf])
def test_students_distribution_is_that_of_scipy(freedom):
    assert statistics.t_quantile(0.975, freedom) == pytest.approx(stats.t.ppf(0.975, freedom))
    assert statistics.t_tail(1.3, freedom) == pytest.approx(stats.t.sf(1.3, freedom))


def test_counts_lie_beyond_a_range_exactly_when_their_interval_does():
    for correct in range(0, 400, 7):
        p = statistics.beyond(correct, 10_000, low=0.01, high=0.02)
        low, high = clopper_pearson(correct, 10_000)
        assert (p < 0.05) == (low > 0.02 or high < 0.01), correct


def test_the_spread_of_a_column_is_pooled_over_its_rows():
    groups = [[0.50, 0.52, 0.51], [0.30, 0.31], [0.7], []]
    expected = math.sqrt((2 * np.var(groups[0], ddof=1) + np.var(groups[1], ddof=1)) / 3)
    for spread in spreads(groups, RESOLUTIONS[: len(groups)]):
        assert spread == pytest.approx((expected, 3))


def test_without_two_seeds_in_any_row_there_is_no_spread():
    assert spreads([[0.5], [], [0.7]], RESOLUTIONS[:3]) == [None, None, None]


def test_seeds_that_agree_have_the_spread_of_one_image():
    (spread,) = spreads([[0.5, 0.5, 0.5]], [1 / 200])
    assert spread == pytest.approx((1 / 200, 2))
    spread, _ = spreads([[0.5, 0.5, 0.5], [0.5]], [1e-4, 1 / 200])
    assert spread == pytest.approx((1e-4, 2))


def test_bartletts_test_is_that_of_scipy():
    random = np.random.default_rng(1)
    groups = [random.normal(0, 1 + row, 5) for row in range(4)]
    variances = np.array([np.var(group, ddof=1) for group in groups])
    freedoms = np.array([len(group) - 1 for group in groups])
    expected = stats.bartlett(*groups).pvalue
    assert statistics.bartlett(variances, freedoms) == pytest.approx(expected)


def test_rows_that_differ_have_spreads_between_their_own_and_the_common_one():
    random = np.random.default_rng(0)
    groups = [list(0.5 + random.normal(0, sd, 8)) for sd in (0.002, 0.004, 0.01, 0.06)]
    groups.append([0.5])
    moderated = spreads(groups, RESOLUTIONS[: len(groups)])
    own = [np.std(group, ddof=1) for group in groups[:4]]
    assert own[0] < moderated[0].sd < moderated[2].sd < moderated[3].sd < own[3]
    common = moderated[4].sd  # a row of one seed knows only the common spread
    assert moderated[0].sd < common < moderated[3].sd
    assert all(spread.freedom <= 28 for spread in moderated)


def test_the_prior_of_moderated_spreads_is_found_again():
    random = np.random.default_rng(0)
    true = 0.01**2 * 6 / random.chisquare(6, 4000)  # Smyth 2004, equation 2
    variances = true * random.chisquare(4, 4000) / 4
    prior, freedom = statistics._prior(variances, np.full(4000, 4))
    assert (math.sqrt(prior), freedom) == pytest.approx((0.01, 6), rel=0.1)


@pytest.mark.parametrize("value", [1e-3, 0.4, 1.6, 50.0])
def test_the_inverse_of_trigamma(value):
    from scipy.special import polygamma

    assert polygamma(1, statistics._trigamma_inverse(value)) == pytest.approx(value)


def test_a_subset_of_the_images_adds_their_variance_and_all_of_them_none():
    assert statistics.of_images(0.5, 1000, 10_000) == pytest.approx(0.25 * (1e-3 - 1e-4))
    assert statistics.of_images(0.5, 10_000, 10_000) == 0
    assert statistics.of_images(0.5, 1000, None) == pytest.approx(0.25e-3)


def test_holm_multiplies_the_smallest_p_value_most_and_keeps_the_order():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.6]) == pytest.approx([1.0, 1.0])
    assert holm([]) == []


def test_the_fewest_seeds_are_those_whose_error_fits():
    spread = Spread(0.01, 14.0)
    seeds = statistics.fewest_seeds(0.005, spread, level=0.95, seeds=3)

    def error(k):
        return stats.t.ppf(0.95, 14 + k - 3) * 0.01 / math.sqrt(k)

    assert error(seeds) <= 0.005 < error(seeds - 1)
    assert statistics.fewest_seeds(-0.001, spread, level=0.95, seeds=3) is None
    assert statistics.fewest_seeds(0.005, spread, level=0.95, seeds=3, fixed=1e-4) is None


def test_two_rows_are_compared_by_welch_if_the_images_add_nothing():
    first, second = [0.50, 0.52, 0.51], [0.47, 0.44, 0.48, 0.45]
    difference = contrasts.welch(first, second, images=1000, image_variance=0.0)
    expected = stats.ttest_ind(first, second, equal_var=False)
    interval = expected.confidence_interval()
    assert difference.interval() == pytest.approx((interval.low, interval.high))
    assert difference.above() == pytest.approx(expected.pvalue / 2)
    assert difference.below() == pytest.approx(1 - expected.pvalue / 2)


@pytest.mark.parametrize("seeds", [3, 5])
def test_the_interval_of_two_rows_covers_trainings_and_images(seeds):
    random = np.random.default_rng(0)
    images, tables, covered = 500, 1500, 0
    for _ in range(tables):
        # Correctness of both rows shares the difficulty of each image.
        difficulty = random.normal(0, 1, images)
        means, per_image = [], []
        for shift, spread in ((0.1, 0.05), (0.0, 0.1)):
            shifts = shift + random.normal(0, spread, (seeds, 1))
            right = (random.normal(0, 0.5, (seeds, images)) + shifts > difficulty).astype(float)
            means.append(list(right.mean(axis=1)))
            per_image.append(right.mean(axis=0))
        true = stats.norm.cdf(0.1 / math.sqrt(1.25 + 0.05**2)) - 0.5
        difference = contrasts.welch(
            *means, images=images, image_variance=np.var(per_image[0] - per_image[1], ddof=1)
        )
        low, high = difference.interval()
        covered += low <= true <= high
    assert 0.945 <= covered / tables <= 0.995


def test_a_mean_over_classes_weighs_each_class_alike():
    correct = np.array([1, 1, 1, 0, 1, 0, 0])
    labels = np.array([3, 3, 3, 3, 5, 5, 9])
    mean, images = accuracies.mean_per_class(correct, labels)
    assert mean == pytest.approx((0.75 + 0.5 + 0) / 3)
    assert images == int(9 / (1 / 4 + 1 / 2 + 1))
    assert accuracies.mean_per_class(correct[:6], np.array([1, 2] * 3)) == (pytest.approx(2 / 3), 6)


def test_the_images_of_a_mean_over_classes_have_its_variance():
    random, sizes = np.random.default_rng(0), [80, 20, 5]
    labels = np.repeat(range(3), sizes)
    means = [
        accuracies.mean_per_class(random.random(len(labels)) < 0.7, labels)[0] for _ in range(4000)
    ]
    _, images = accuracies.mean_per_class(labels == 0, labels)
    assert np.var(means) == pytest.approx(0.7 * 0.3 / images, rel=0.1)
