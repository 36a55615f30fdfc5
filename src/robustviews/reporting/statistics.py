"""Statistics of accuracies: intervals, spread between trainings, tests, several tests at once.

Accuracies are fractions. All rows of a column see the same test images, so that only trainings
vary, unless a subset of the images is attacked. The distributions are those of `scipy.special`,
which is imported at its first use: results of one seed need the normal distribution alone, and
importing `scipy.stats` takes a second.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist, variance
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from robustviews.options import LazyModule

if TYPE_CHECKING:
    from scipy import special
else:
    special = LazyModule("scipy.special")

UNEQUAL = 0.01  # level of Bartlett's test, below which the rows of a column differ in spread
_NORMAL = NormalDist()
_Z = _NORMAL.inv_cdf(0.975)
MOST_SEEDS = 100  # more than anyone trains


class Interval(NamedTuple):
    """Ends of an interval."""

    low: float
    high: float


class Spread(NamedTuple):
    """Standard deviation between trainings.

    Attributes:
        sd: standard deviation, a fraction.
        freedom: degrees of freedom of its estimate; infinite if it is assumed instead of measured.
    """

    sd: float
    freedom: float

    @property
    def assumed(self) -> bool:
        """Whether the spread is assumed instead of measured."""
        return math.isinf(self.freedom)


def percentiles(draws: np.ndarray) -> Interval:
    """Return the 95 % interval of a statistic by its draws of a bootstrap."""
    low, high = np.quantile(draws, (0.025, 0.975))
    return Interval(float(low), float(high))


def wilson(correct: float, n: int) -> Interval:
    """Return the 95 % Wilson score interval of a proportion.

    It stays in [0, 1] and keeps its coverage near 0 and 1, where robust accuracies often lie.

    Args:
        correct: successes, 0 to n.
        n: trials, at least 1.

    Raises:
        ValueError: the counts are impossible.

    Source: Wilson 1927; recommended by Brown, Cai, DasGupta 2001.
    """
    _check_counts(correct, n)
    p, z2 = correct / n, _Z**2
    centre = (p + z2 / (2 * n)) / (1 + z2 / n)
    half = _Z * math.sqrt(p * (1 - p) / n + z2 / (4 * n**2)) / (1 + z2 / n)
    low = 0.0 if correct == 0 else centre - half
    high = 1.0 if correct == n else centre + half
    return Interval(low, high)


def clopper_pearson(correct: float, n: int, level: float = 0.95) -> Interval:
    """Return the exact interval of a proportion.

    Args:
        correct: successes, 0 to n.
        n: trials, at least 1.
        level: probability of coverage, at least.

    Raises:
        ValueError: the counts are impossible.

    Source: Clopper, Pearson 1934.
    """
    _check_counts(correct, n)
    tail = (1 - level) / 2
    low = 0.0 if correct == 0 else special.betaincinv(correct, n - correct + 1, tail)
    high = 1.0 if correct == n else special.betaincinv(correct + 1, n - correct, 1 - tail)
    return Interval(float(low), float(high))


def beyond(correct: float, n: int, *, low: float, high: float) -> float:
    """Return the exact two-sided p-value of the hypothesis that a proportion lies in a range.

    It is below 1 - level exactly if `clopper_pearson` lies outside the range.
    """
    _check_counts(correct, n)
    tails = [1.0]
    if correct / n > high:  # P(X >= correct) at the upper end of the range
        tails.append(2 * float(special.betainc(correct, n - correct + 1, max(0.0, high))))
    if correct / n < low:
        tails.append(2 * float(special.betaincc(correct + 1, n - correct, min(1.0, low))))
    return min(tails)


def t_quantile(level: float, freedom: float) -> float:
    """Return a quantile of Student's t distribution; of the normal one for infinite freedom."""
    if math.isinf(freedom):
        return _NORMAL.inv_cdf(level)
    return float(special.stdtrit(freedom, level))


def t_tail(t: float, freedom: float) -> float:
    """Return the probability that a variable of Student's t distribution exceeds t."""
    if math.isinf(freedom):
        return _NORMAL.cdf(-t)
    return float(special.stdtr(freedom, -t))


def spreads(groups: Sequence[Sequence[float]], resolutions: Sequence[float]) -> list[Spread | None]:
    """Return the spread of each row of a column: pooled, or moderated if the rows differ.

    The rows differ if Bartlett's test says so at the level of 1 %.

    Args:
        groups: accuracies of the trainings of each row; a row may have none or one.
        resolutions: smallest difference of two accuracies of each row, 1 / images. No variance
            counts as smaller than its square, so that seeds that agree have no spread of zero.

    Returns:
        One spread per row; None for all if no row has two trainings.

    Source: Bartlett 1937.
    """
    measured = [pair for pair in zip(groups, resolutions, strict=True) if len(pair[0]) > 1]
    if not measured:
        return [None] * len(groups)
    freedoms = np.array([len(group) - 1 for group, _ in measured])
    variances = np.array([max(variance(group), least**2) for group, least in measured])
    freedom = float(freedoms.sum())
    pooled = float(freedoms @ variances) / freedom
    if bartlett(variances, freedoms) >= UNEQUAL:
        return [Spread(math.sqrt(pooled), freedom)] * len(groups)
    prior, prior_freedom = _prior(variances, freedoms)
    own = iter(variances)
    result: list[Spread | None] = []
    for group in groups:
        degrees = max(0, len(group) - 1)
        value = next(own) if degrees else 0.0
        if math.isinf(prior_freedom):
            result.append(Spread(math.sqrt(prior), freedom))
            continue
        total = prior_freedom + degrees
        moderated = (prior_freedom * prior + degrees * value) / total
        # The prior is estimated from the same rows: it knows no more than all of them.
        result.append(Spread(math.sqrt(moderated), min(total, freedom)))
    return result


def floored_spread(accuracies: Sequence[float], resolution: float) -> Spread:
    """Return the spread of at least two trainings; seeds that agree have that of one image.

    Args:
        accuracies: one per training.
        resolution: smallest difference of two accuracies, 1 / images.
    """
    return Spread(math.sqrt(max(variance(accuracies), resolution**2)), len(accuracies) - 1)


def bartlett(variances: np.ndarray, freedoms: np.ndarray) -> float:
    """Return the p-value of Bartlett's test that variances are equal; 1 for a single one."""
    rows, freedom = len(variances), freedoms.sum()
    if rows < 2:
        return 1.0
    pooled = freedoms @ variances / freedom
    statistic = freedom * math.log(pooled) - freedoms @ np.log(variances)
    correction = 1 + (np.sum(1 / freedoms) - 1 / freedom) / (3 * (rows - 1))
    return float(special.chdtrc(rows - 1, max(0.0, statistic / correction)))


def _prior(variances: np.ndarray, freedoms: np.ndarray) -> tuple[float, float]:
    """Return variance and degrees of freedom of the prior that rows share, by moments.

    Source: Smyth 2004, section 6.2.
    """
    half = freedoms / 2
    logs = np.log(variances) - special.digamma(half) + np.log(half)
    excess = np.var(logs, ddof=1) - np.mean(special.polygamma(1, half))
    if excess <= 0:
        return float(np.exp(np.mean(logs))), math.inf
    prior = 2 * _trigamma_inverse(float(excess))
    log = np.mean(logs) + special.digamma(prior / 2) - math.log(prior / 2)
    return float(np.exp(log)), prior


def _trigamma_inverse(value: float) -> float:
    """Return y with trigamma(y) = value, by Newton's method (Smyth 2004, appendix)."""
    y = 0.5 + 1 / value
    for _ in range(50):
        trigamma = special.polygamma(1, y)
        step = float(trigamma * (1 - trigamma / value) / special.polygamma(2, y))
        y += step
        if abs(step) < 1e-9 * y:
            break
    return y


def of_images(accuracy: float, n: int, total: int | None) -> float:
    """Return the variance of an accuracy on n of `total` test images; 0 if they are all.

    Args:
        accuracy: mean over trainings, which all see the same images.
        n: attacked images.
        total: test images; None if unknown, which counts as infinitely many.
    """
    rest = 1 / total if total else 0.0
    return max(0.0, accuracy * (1 - accuracy) * (1 / n - rest))


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values adjusted for several tests: below a level if rejected at that level.

    Source: Holm 1979.
    """
    adjusted, largest = [0.0] * len(p_values), 0.0
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    for rank, place in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[place]))
        adjusted[place] = largest
    return adjusted


def assumed_limit(spread: float) -> float:
    """Return the difference of two single trainings that is significant at an assumed spread."""
    return _Z * math.sqrt(2) * spread


def fewest_seeds(
    bound: float, spread: Spread, *, level: float, seeds: int, fixed: float = 0.0, others: int = 0
) -> int | None:
    """Return the smallest number of seeds whose error stays within a bound.

    Each further seed adds a degree of freedom to a measured spread.

    Args:
        bound: largest t_level * error.
        spread: present spread.
        level: level of the quantile t.
        seeds: present number of seeds.
        fixed: variance that more seeds do not reduce.
        others: single trainings whose spread the error includes; more seeds do not reduce it.

    Returns:
        At least 2; None if no number up to 100 is enough.
    """
    k = np.arange(2, MOST_SEEDS + 1)
    error = np.sqrt(spread.sd**2 * (others + 1 / k) + fixed)
    if spread.assumed:
        quantile = np.full(len(k), t_quantile(level, math.inf))
    else:
        quantile = special.stdtrit(np.maximum(1, spread.freedom + k - seeds), level)
    enough = k[quantile * error <= bound]
    return int(enough[0]) if len(enough) else None


def own_spread(values: Sequence[float]) -> float | None:
    """Return the standard deviation of a row's own trainings; None for fewer than two."""
    return math.sqrt(variance(values)) if len(values) > 1 else None


def _check_counts(correct: float, n: int) -> None:
    if n < 1 or not 0 <= correct <= n:
        raise ValueError(f"expected 0 <= correct <= n and n >= 1, found {correct} of {n}")
