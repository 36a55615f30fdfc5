"""Statistics: intervals of accuracies, and comparisons with published values.

Everything here is at the 95 % level and takes accuracies as fractions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist, fmean, stdev
from typing import Literal, NamedTuple

PUBLISHED_IMAGES = 10_000  # CIFAR's test split, on which arXiv 2501.03507 reports
_UPPER = 0.975  # a two-sided interval leaves 2.5 % on either side
_Z = NormalDist().inv_cdf(_UPPER)

Verdict = Literal["within noise", "higher", "lower"]


class Interval(NamedTuple):
    """Ends of a 95 % interval."""

    low: float
    high: float


class Summary(NamedTuple):
    """The accuracy over the runs of one cell.

    Attributes:
        mean: accuracy, averaged over runs.
        low: lower end of the 95 % interval.
        high: upper end of it.
        sd: standard deviation over runs; None for a single one.
        runs: number of runs.
    """

    mean: float
    low: float
    high: float
    sd: float | None
    runs: int


class Comparison(NamedTuple):
    """Comparison of an accuracy with a published one.

    Attributes:
        difference: ours minus theirs.
        z: difference in standard errors; 0 when both are equal.
        verdict: `higher` or `lower` when |z| exceeds 1.96, else `within noise`.
    """

    difference: float
    z: float
    verdict: Verdict


def wilson(correct: int, n: int) -> Interval:
    """Return the Wilson score interval of a proportion.

    Unlike mean +- 1.96 standard errors it stays in [0, 1] and keeps its coverage near 0 and 1,
    where robust accuracies often lie.

    Args:
        correct: successes, 0 to n.
        n: trials, at least 1.

    Returns:
        The 95 % interval.

    Raises:
        ValueError: the counts are impossible.

    Source: Wilson 1927; recommended by Brown, Cai, DasGupta 2001.
    """
    if n < 1 or not 0 <= correct <= n:
        raise ValueError(f"expected 0 <= correct <= n and n >= 1, found {correct} of {n}")
    p, z2 = correct / n, _Z**2
    centre = (p + z2 / (2 * n)) / (1 + z2 / n)
    half = _Z * math.sqrt(p * (1 - p) / n + z2 / (4 * n**2)) / (1 + z2 / n)
    low = 0.0 if correct == 0 else centre - half
    high = 1.0 if correct == n else centre + half
    return Interval(low, high)


def over_seeds(counts: Sequence[tuple[int, int]]) -> Summary:
    """Summarise the runs of a cell.

    For several runs the interval is Student's t interval of their mean. It covers the variation
    over seeds, but not over test images, which all runs share. For one run it is the Wilson
    interval, which covers the variation over test images, but not over seeds.

    Args:
        counts: (correct, n) of each run.

    Returns:
        Mean, 95 % interval (cut to [0, 1]) and spread.

    Raises:
        ValueError: no run, or impossible counts.
    """
    if not counts:
        raise ValueError("expected at least one run, found none")
    if len(counts) == 1:
        correct, n = counts[0]
        return Summary(correct / n, *wilson(correct, n), None, 1)
    accuracies = [correct / n for correct, n in counts]
    mean, sd = fmean(accuracies), stdev(accuracies)
    half = student_t(len(counts) - 1) * sd / math.sqrt(len(counts))
    return Summary(mean, max(0.0, mean - half), min(1.0, mean + half), sd, len(counts))


def compare(
    accuracy: float,
    published: float,
    *,
    n: int,
    sd: float | None = None,
    runs: int = 1,
    published_n: int = PUBLISHED_IMAGES,
) -> Comparison:
    """Test whether an accuracy differs from a published one by more than chance.

    A two-proportion z-test. The published value is one run on `published_n` images, without a
    stated spread. If our spread over seeds is known, its variance is added twice: once divided by
    our number of runs, and once in full, because the published run drew a seed too. With a single
    run of ours the spread is unknown and left out; then `higher` and `lower` mean: by more than the
    choice of test images explains. If both were tested on the same images, the test errs towards
    `within noise`.

    Args:
        accuracy: ours, a fraction; the mean of our runs.
        published: theirs, a fraction.
        n: test images of one run of ours. The runs share them, so they count once.
        sd: standard deviation over our runs; None for one.
        runs: number of our runs.
        published_n: test images of the published run.

    Returns:
        Difference, z and verdict.

    Source: two-proportion z-test with pooled variance, Fleiss, Levin, Paik 2003, section 3.2.
    """
    difference = accuracy - published
    pooled = (accuracy * n + published * published_n) / (n + published_n)
    variance = pooled * (1 - pooled) * (1 / n + 1 / published_n)
    if sd is not None:
        variance += sd**2 * (1 + 1 / runs)
    z = difference / math.sqrt(variance) if difference else 0.0
    if abs(z) <= _Z:
        return Comparison(difference, z, "within noise")
    return Comparison(difference, z, "higher" if z > 0 else "lower")


def student_t(freedom: int) -> float:
    """Return the 97.5 % quantile of Student's t distribution.

    Exact for one and two degrees of freedom, otherwise a series accurate to 0.2 %.

    Args:
        freedom: degrees of freedom, at least 1.

    Returns:
        The quantile, such as 4.303 for 2.

    Source: Abramowitz, Stegun 1964, 26.7.5.
    """
    if freedom == 1:
        return math.tan(math.pi * (_UPPER - 0.5))
    if freedom == 2:
        return (2 * _UPPER - 1) * math.sqrt(2 / (4 * _UPPER * (1 - _UPPER)))
    z: float = _Z
    terms: tuple[float, ...] = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return z + sum(term / float(freedom) ** power for power, term in enumerate(terms, start=1))
