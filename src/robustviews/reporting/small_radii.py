"""What attacks of growing radius leave of clean accuracy: two statistics, and their bootstrap.

With accuracies a(e) at radii e_1 < ... < e_k and a(0) of clean images:

- `retained`: mean over radii of a(e) / a(0).
- `e50`: radius where a(e) = a(0) / 2 for the first time: linear in log e between two radii, linear
  in e below the first one; the largest radius if accuracy does not halve.

The bootstrap draws test images with replacement, see `accuracies.draws`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from statistics import fmean, variance

import numpy as np

from robustviews.reporting.accuracies import Answers, Array, draws
from robustviews.reporting.statistics import Interval, percentiles, t_quantile
from robustviews.study.columns import HALVING, RETAINED


def statistic(
    name: str, flags: Mapping[float, Array] | Answers, metric: str = ""
) -> tuple[float, Array]:
    """Return a statistic of one attacked classifier, and its bootstrap replicates.

    Args:
        name: `retained` or `e50`.
        flags: by radius, (n,) weights of images that are right, else 0; radius 0 for clean images.
            Of a dense task its answers.
        metric: of a dense task; empty for its first one.

    Returns:
        The statistic, and (DRAWS,) of its replicates, which of a dense task are centred on it.
    """
    if isinstance(flags, Answers):
        radii, n = np.array(sorted(flags.by_radius)), len(flags.truth)
        accuracies = flags.scores(np.vstack([np.ones(n), draws(n)]), metric)
        accuracies[np.isnan(accuracies[:, 0])] = accuracies[0]  # a draw without an object
    else:
        radii = np.array(sorted(flags))
        correct = np.stack([flags[radius] for radius in radii], axis=1)  # (n, 1 + k)
        accuracies = np.vstack([correct.mean(axis=0), _resampled(correct)])  # (1 + DRAWS, 1 + k)
    values = STATISTICS[name](accuracies, radii)
    value, drawn = float(values[0]), values[1:]
    if isinstance(flags, Answers):  # draws have a higher AP than the images, see `accuracies.score`
        drawn = (drawn + (value - drawn.mean())).clip(0, radii[-1] if name == HALVING else None)
    return value, drawn


def interval(values: Sequence[float], replicates: Array) -> Interval:
    """Return the 95 % interval of the mean of a statistic over trainings.

    For one training the percentiles of the replicates; for several Student's t, with the spread
    between trainings and the variance over images.

    Args:
        values: of each training.
        replicates: (DRAWS,), averaged over trainings.
    """
    if len(values) == 1:
        return percentiles(replicates)
    error = math.sqrt(variance(values) / len(values) + replicates.var())
    half = t_quantile(0.975, len(values) - 1) * error
    return Interval(max(0.0, fmean(values) - half), fmean(values) + half)


def retained(accuracies: Array, radii: Array) -> Array:
    """Return the mean over radii of a(e) / a(0), (...,); 0 if no clean image is right.

    Args:
        accuracies: (..., 1 + k), of clean images first.
        radii: (1 + k,), from 0.
    """
    del radii
    clean = accuracies[..., :1]
    ratios = np.divide(
        accuracies[..., 1:], clean, out=np.zeros_like(accuracies[..., 1:]), where=clean > 0
    )
    found: Array = ratios.mean(axis=-1)
    return found


def halving(accuracies: Array, radii: Array) -> Array:
    """Return the radius where a(e) = a(0) / 2, (...,). Arguments as in `retained`."""
    half = accuracies[..., :1] / 2
    fallen = accuracies[..., 1:] <= half
    first = np.where(fallen.any(axis=-1), fallen.argmax(axis=-1), len(radii) - 2)  # 0 is e_1
    before = np.take_along_axis(accuracies, first[..., None], -1)[..., 0]
    after = np.take_along_axis(accuracies, first[..., None] + 1, -1)[..., 0]
    fall, low, high = before - after, radii[first], radii[first + 1]
    share = np.divide(before - half[..., 0], fall, out=np.ones_like(fall), where=fall > 0)
    share = share.clip(0, 1)
    logs = np.log(np.where(low > 0, low, high))
    found: Array = np.where(low > 0, np.exp(logs + share * (np.log(high) - logs)), share * high)
    found = np.where(fallen.any(axis=-1), found, radii[-1])
    return np.where(accuracies[..., 0] > 0, found, 0.0)


def _resampled(correct: Array) -> Array:
    """Return accuracies (DRAWS, 1 + k) of images drawn from those of (n, 1 + k)."""
    parts = np.array_split(draws(len(correct)), 20)
    sums = [part.astype(np.float32) @ correct for part in parts]  # exact for weights of 1
    return np.concatenate(sums).astype(np.float64) / len(correct)


STATISTICS: dict[str, Callable[[Array, Array], Array]] = {RETAINED: retained, HALVING: halving}
