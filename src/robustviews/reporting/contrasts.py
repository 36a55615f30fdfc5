"""Differences of rows, and other weighted sums of them, with their tests."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from statistics import fmean, variance
from typing import NamedTuple

import numpy as np

from robustviews.reporting.statistics import Interval, t_quantile, t_tail

_LEVEL = 0.95


class Difference(NamedTuple):
    """Difference of two rows, with its standard error and the degrees of freedom of the error."""

    mean: float
    error: float
    freedom: float

    def interval(self) -> Interval:
        """Return the 95 % interval of the true difference."""
        half = t_quantile((1 + _LEVEL) / 2, self.freedom) * self.error
        return Interval(self.mean - half, self.mean + half)

    def above(self, bound: float = 0.0) -> float:
        """Return the p-value of the one-sided test that the true difference exceeds a bound."""
        if not self.error:
            return float(self.mean <= bound)
        return t_tail((self.mean - bound) / self.error, self.freedom)

    def below(self, bound: float = 0.0) -> float:
        """Return the p-value of the one-sided test that a bound exceeds the true difference."""
        return Difference(-self.mean, self.error, self.freedom).above(-bound)


def welch(
    first: Sequence[float],
    second: Sequence[float],
    *,
    images: int,
    image_variance: float,
    factor: float = 1.0,
) -> Difference:
    """Compare two rows: first - factor * second, averaged over seeds.

    Both rows see the same test images. Their trainings count as independent; for two probes of the
    same encoders this is an upper bound of the error as long as the rows rise and fall together.

    Args:
        first: accuracies of at least two trainings.
        second: the same of the other row.
        images: test images.
        image_variance: variance over images of the difference of mean correctness, S_d^2.
        factor: by which `second` is multiplied.

    Source: Welch 1947, with the images as a third source; degrees of freedom: Satterthwaite 1946.
    """
    weighed = [-factor * value for value in second]
    return contrast([first, weighed], images=images, image_variance=image_variance)


def contrast(
    groups: Sequence[Sequence[float]], *, images: int, image_variance: float
) -> Difference:
    """Return a sum of means over trainings, the groups of which are independent.

    Args:
        groups: values of at least two trainings each, multiplied by their weight.
        images: test images.
        image_variance: variance over images of the whole sum, for one image.

    Source: as `welch`.
    """
    parts = [(variance(group) / len(group), len(group) - 1) for group in groups]
    parts.append((image_variance / images, images - 1))
    total = sum(part for part, _ in parts)
    shares = sum(part**2 / freedom for part, freedom in parts)
    freedom = total**2 / shares if shares else float(min(degrees for _, degrees in parts))
    return Difference(sum(map(fmean, groups)), math.sqrt(total), freedom)


def sign_flips(values: Sequence[float]) -> tuple[float, float, Interval | None]:
    """Test the mean of a few differences by exchanging their signs in all ways.

    Args:
        values: at most 12 differences, each of a network of its own.

    Returns:
        p-values of the one-sided tests that the mean is above and below zero, and the 95 %
        interval of the mean; None if there are too few values for one.

    Source: Fisher 1935; interval by inversion of the test.
    """
    numbers = np.asarray(values, dtype=float)
    signs = np.array(list(itertools.product((1, -1), repeat=len(numbers))))

    def above(shift: float) -> float:
        moved = numbers - shift
        return float(np.mean(signs @ moved >= moved.sum() - 1e-12))

    def below(shift: float) -> float:
        moved = numbers - shift
        return float(np.mean(signs @ moved <= moved.sum() + 1e-12))

    if 2 ** (1 - len(numbers)) > 1 - _LEVEL:
        return above(0), below(0), None
    low = _crossing(above, numbers.min(), numbers.mean())
    high = _crossing(lambda shift: below(-shift), -numbers.max(), -numbers.mean())
    return above(0), below(0), Interval(low, -high)


def _crossing(p_value: Callable[[float], float], low: float, high: float) -> float:
    """Return the largest shift that a one-sided test rejects, between two shifts."""
    for _ in range(50):
        middle = (low + high) / 2
        if p_value(middle) <= (1 - _LEVEL) / 2:
            low = middle
        else:
            high = middle
    return low
