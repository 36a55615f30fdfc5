"""Average precision of detections, as a function of how often each image counts.

Detections are matched to objects once; each draw of a bootstrap then weighs the matches. Source:
the official evaluation of COCO (pycocotools), with greedy matching, precision made monotone, and
its 101 recalls in float64. Those of torchmetrics are rounded to float32 unless it is given these.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from robustviews.tasks.protocol import Array

RECALLS = np.linspace(0, 1, 101)
_LARGEST = 2**22  # weights of detections in memory at once


def average_precision(answers: Array, truth: Array, counts: Array, overlaps: Array) -> Array:
    """Return average precision, the mean over overlaps and over the classes of the draw's objects.

    Args:
        answers: (n, D, 6) detections: box, score, class; class -1 marks rows without a detection.
        truth: (n, M, 5) objects: box, class; class -1 marks rows without an object.
        counts: (R, n), how often each image counts in each draw.
        overlaps: (T,), least intersection over union of a detection with its object.

    Returns:
        (R,) in [0, 1]; NaN where no image of the draw has an object, since nothing is defined.
    """
    total, classes = np.zeros(len(counts)), np.zeros(len(counts), dtype=np.int64)
    for one in _by_class(answers, truth, overlaps):
        positives = counts @ one.objects  # (R,)
        classes += positives > 0
        step = max(1, _LARGEST // max(1, len(one.images)))
        for start in range(0, len(counts), step):
            part = slice(start, start + step)
            weights = np.ascontiguousarray(counts[part].T)
            total[part] += _interpolated(one, weights, positives[part]).mean(axis=0)
    mean: Array = np.divide(total, classes, out=np.full(len(counts), np.nan), where=classes > 0)
    return mean


def of_each_image(answers: Array, truth: Array, overlaps: Array) -> Array:
    """Return the average precision (n,) of each image alone.

    An image without objects has 1 if it has no detections either, otherwise 0. Arguments as in
    `average_precision`.
    """
    count = len(answers)
    total, classes = np.zeros(count), np.zeros(count)
    for one in _by_class(answers, truth, overlaps):
        order = np.argsort(one.images, kind="stable")  # best first in each image
        bounds = np.searchsorted(one.images[order], np.arange(count + 1))
        for image in np.flatnonzero(one.objects):
            own = order[bounds[image] : bounds[image + 1]]
            alone = _Matched(np.zeros_like(own), one.hits[:, own], one.objects[[image]])
            total[image] += _interpolated(alone, np.ones((1, 1), np.int64), alone.objects).mean()
        classes += one.objects > 0
    silent = (answers[..., 5] < 0).all(axis=1)
    return np.where(classes > 0, total / np.maximum(classes, 1), silent.astype(float))


class _Matched(NamedTuple):
    """Detections and objects of one class.

    Attributes:
        images: (E,), image of each detection, best detection first.
        hits: (T, E) bool, whether the detection has an object, for each overlap.
        objects: (n,), number of objects in each image.
    """

    images: Array
    hits: Array
    objects: Array


def _by_class(answers: Array, truth: Array, overlaps: Array) -> Iterator[_Matched]:
    """Yield the matches of each class of the objects."""
    scores = np.where(answers[..., 5] >= 0, answers[..., 4].astype(float), -np.inf)
    order = np.argsort(-scores, axis=1, kind="stable")[:, : _most(answers[..., 5])]
    answers = np.take_along_axis(answers, order[..., None], axis=1).astype(float)
    hits = _hits(answers, truth[:, : _most(truth[..., 4])].astype(float), overlaps)
    for label in np.unique(truth[..., 4][truth[..., 4] >= 0]):
        images, ranks = np.nonzero(answers[..., 5] == label)
        best = np.argsort(-answers[images, ranks, 4], kind="stable")
        images, ranks = images[best], ranks[best]
        yield _Matched(images, hits[:, images, ranks], (truth[..., 4] == label).sum(axis=1))


def _most(classes: Array) -> int:
    """Return how many of the first columns of (n, D) have a detection or object in some image."""
    used = np.flatnonzero((classes >= 0).any(axis=0))
    return int(used[-1]) + 1 if len(used) else 0


def _hits(answers: Array, truth: Array, overlaps: Array) -> Array:
    """Return (T, n, D), whether each detection has an object: best first, each takes the closest.

    Among objects that are equally close a detection takes the last one, as in pycocotools.
    """
    close = _intersection_over_union(answers[..., :4], truth[..., :4])  # (n, D, M)
    same = (answers[..., None, 5] == truth[:, None, :, 4]) & (truth[:, None, :, 4] >= 0)
    close = np.where(same, close, -1)[..., ::-1]  # the last object first: argmax takes the first
    count, ranks, objects = close.shape
    hits = np.zeros((len(overlaps), count, ranks), dtype=bool)
    if not objects:
        return hits
    free = np.ones((len(overlaps), count, objects), dtype=bool)
    for rank in range(ranks):
        able = free & (close[:, rank] >= overlaps[:, None, None])
        taken = np.where(able, close[:, rank], -1).argmax(axis=-1)[..., None]  # (T, n, 1)
        hits[..., rank] = np.take_along_axis(able, taken, axis=-1)[..., 0]
        left = np.take_along_axis(free, taken, axis=-1) & ~hits[..., rank, None]
        np.put_along_axis(free, taken, left, axis=-1)
    return hits


def _intersection_over_union(first: Array, second: Array) -> Array:
    """Return (n, D, M) of boxes (n, D, 4) and (n, M, 4)."""
    first, second = first[:, :, None], second[:, None]
    low = np.maximum(first[..., :2], second[..., :2])
    common = (np.minimum(first[..., 2:], second[..., 2:]) - low).clip(0).prod(axis=-1)
    one, other = ((boxes[..., 2:] - boxes[..., :2]).prod(axis=-1) for boxes in (first, second))
    shares: Array = common / np.maximum(one + other - common, np.finfo(float).tiny)
    return shares


def _interpolated(one: _Matched, weights: Array, positives: Array) -> Array:
    """Return the mean precision at 101 recalls, (T, R); 0 where a draw has no object.

    Args:
        one: detections of a class.
        weights: (n, R), how often each image counts.
        positives: (R,), number of objects of the draw.
    """
    seen = weights[one.images].cumsum(axis=0)  # (E, R)
    some, draw = np.unique(np.maximum(positives, 1).astype(np.int64), return_inverse=True)
    recalls = [np.searchsorted(RECALLS, np.arange(some[-1] + 1) / n, side="right") for n in some]
    reached = np.stack(recalls)  # how many recalls so many right detections of n objects reach
    precisions = np.zeros((len(one.hits), len(draw)))
    for overlap, hits in enumerate(one.hits):
        at = np.flatnonzero(hits)
        right = weights[one.images[at]].cumsum(axis=0)  # (J, R)
        precision = right / np.maximum(seen[at], 1)
        precision = np.maximum.accumulate(precision[::-1])[::-1]  # the largest from here on
        more = np.diff(reached[draw, right.astype(np.int64)], axis=0, prepend=0)
        precisions[overlap] = (precision * more).sum(axis=0) / len(RECALLS)
    return precisions * (positives > 0)
