"""Accuracy as a data set says: the share of right images, or its mean over the classes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from robustviews.reporting.statistics import wilson

if TYPE_CHECKING:
    from robustviews.datasets.protocol import Accuracy
    from robustviews.reporting.results import Result
    from robustviews.study.plan import Cell
    from robustviews.study.schema import Study

    Array = np.ndarray[Any, Any]


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
    share, n = row["correct"] / row["n"], row["n"]
    if accuracy == "mean_per_class":
        share, n = mean_per_class(correct, labels)
        row["weighs"] = n
    row["accuracy"] = share
    row["low"], row["high"] = wilson(share * n if "weighs" in row else row["correct"], n)


def weighs(result: Result) -> int:
    """Return the number of images of equal weight that have the same error."""
    return result.get("weighs", result["n"])


def counted(result: Result) -> tuple[float, int]:
    """Return (correct, n); a mean over classes as of so many images of equal weight."""
    if "weighs" not in result:
        return result["correct"], result["n"]
    return (result["accuracy"] or 0.0) * result["weighs"], result["weighs"]


def test_images(study: Study, cell: Cell, results: list[Result]) -> int | None:
    """Return the images of the test split, in the same unit as `counted`; None if unknown."""
    counts = study.datasets[cell.dataset].counts
    if counts is None or not results or "weighs" not in results[0]:
        return counts[1] if counts else None
    return round(counts[1] * results[0]["weighs"] / results[0]["n"])
