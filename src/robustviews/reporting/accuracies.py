"""Accuracies as task and data set say: shares of right images, their mean over classes, AP, mIoU.

An accuracy that is no share of images stands for so many images of equal weight as have the same
standard error; for mIoU and AP that of a bootstrap over images.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from robustviews.reporting.statistics import wilson

if TYPE_CHECKING:
    from robustviews.datasets.protocol import Accuracy
    from robustviews.reporting.results import Result
    from robustviews.study.plan import Cell
    from robustviews.study.schema import Study
    from robustviews.tasks.protocol import Task

Array = np.ndarray[Any, Any]

DRAWS = 2000  # of a bootstrap
_SEED = 0


@dataclass(frozen=True)
class Answers:
    """What a network answered about the images of one evaluation of a dense task.

    Attributes:
        task: what was asked.
        by_radius: answers (n, ...) at each radius, 0 for clean images.
        truth: (n, ...), what is stored of the labels.
    """

    task: Task
    by_radius: Mapping[float, Array]
    truth: Array

    def __iter__(self) -> Iterator[float]:
        """Iterate over the radii."""
        return iter(self.by_radius)

    def scores(self, counts: Array, metric: str = "") -> Array:
        """Return a metric (R, 1 + k) at all radii, given how often each image counts (R, n)."""
        answers = (self.by_radius[radius] for radius in sorted(self.by_radius))
        found = [self.task.score(one, self.truth, counts, metric) for one in answers]
        return np.stack(found, axis=1)


@lru_cache(maxsize=4)
def draws(count: int) -> Array:
    """Return how often each of `count` images is in each draw of a bootstrap, (DRAWS, count) uint8.

    The same draws for all cells with as many images, so that two cells are compared on the same
    images (Efron, Tibshirani 1993, chapter 8).
    """
    generator = np.random.Generator(np.random.PCG64(_SEED))
    rows = (generator.integers(count, size=count) for _ in range(DRAWS))
    return np.stack([np.bincount(row, minlength=count) for row in rows]).astype(np.uint8)


def score(row: Result, task: Task, answers: Array, truth: Array) -> None:
    """Add to a row its metric, by the task, with the interval of as many images as it weighs.

    Not with percentiles of the bootstrap: draws have on average a higher AP than the images, since
    the largest precision from a recall on is counted, so that these may not hold the value.
    """
    n = len(truth)
    counts = np.vstack([np.ones(n), draws(n)])
    found = task.score(answers, truth, counts, row["metric"])
    value, spread = float(found[0]), float(np.nanvar(found[1:]))
    weighs = max(1, round(value * (1 - value) / spread)) if spread > 0 else n
    row["accuracy"], row["correct"], row["weighs"] = value, None, weighs
    row["low"], row["high"] = wilson(value * weighs, weighs)


def mean_per_class(correct: Array, labels: Array) -> tuple[float, int]:
    """Return the mean share of right images over classes, and how many images it weighs as.

    Args:
        correct: (n,), 1 where an image is right, else 0; n is at least 1.
        labels: (n,), class of each image.
    """
    _, numbers, sizes = np.unique(labels, return_inverse=True, return_counts=True)
    mean = (np.bincount(numbers, weights=correct) / sizes).mean()
    return float(mean), int(len(sizes) ** 2 / (1 / sizes).sum())


def weights(labels: Array) -> Array:
    """Return the weight (n,) of each image, 1 on average, with which a mean is one over classes."""
    _, numbers, sizes = np.unique(labels, return_inverse=True, return_counts=True)
    each: Array = len(labels) / len(sizes) / sizes
    return each[numbers]


def count(row: Result, correct: Array, labels: Array, accuracy: Accuracy) -> None:
    """Add to a row its accuracy and interval, given which images are right and their classes."""
    right, n = int(np.sum(correct)), len(correct)
    share, row["correct"] = right / n, right
    if accuracy == "mean_per_class":
        share, n = mean_per_class(correct, labels)
        row["weighs"] = n
    row["accuracy"] = share
    row["low"], row["high"] = wilson(share * n if "weighs" in row else right, n)


def weighs(result: Result) -> int:
    """Return the number of images of equal weight that have the same error."""
    return result.get("weighs", result["n"])


def counted(result: Result) -> tuple[float, int]:
    """Return (correct, n); a mean over classes as of so many images of equal weight."""
    if "weighs" not in result:
        return result["correct"] or 0, result["n"]
    return (result["accuracy"] or 0.0) * result["weighs"], result["weighs"]


def test_images(study: Study, cell: Cell, results: list[Result]) -> int | None:
    """Return the images of the test split, in the same unit as `counted`; None if unknown."""
    counts = study.datasets[cell.dataset].counts
    if counts is None or not results or "weighs" not in results[0]:
        return counts[1] if counts else None
    return round(counts[1] * results[0]["weighs"] / results[0]["n"])
