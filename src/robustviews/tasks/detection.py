"""Detection of objects: boxes with classes, scored by average precision.

A network answers at the A = g x g locations of a square grid with outputs (B, A, K + 5): a logit of
each of K classes, distances to the left, upper, right and lower side of a box, and the logit of the
centre-ness. The image has g x g equal cells, whose centres are the locations; see `tasks.fcos`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from robustviews.options import LazyModule
from robustviews.tasks.average_precision import average_precision, of_each_image

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from robustviews.tasks import fcos
    from robustviews.tasks.protocol import Array
else:
    torch, fcos = LazyModule("torch"), LazyModule("robustviews.tasks.fcos")

_BESIDES = 5  # outputs of a location besides its classes
_OVERLAPS = {"AP50": np.array([0.5]), "AP": np.linspace(0.5, 0.95, 10)}


class Detection:
    """Detection with an anchor-free detector of one level (FCOS), as `tasks.protocol.Task`."""

    name: ClassVar[str] = "detection"
    metrics: ClassVar[tuple[str, ...]] = tuple(_OVERLAPS)

    def head(self, channels: Sequence[int], classes: int) -> nn.Module:
        """Return a new detector on the two coarsest levels of an encoder, or on its only one."""
        return fcos.Head(channels, classes)

    def loss(
        self, outputs: Tensor, labels: Tensor, weights: Tensor | None, size: tuple[int, int]
    ) -> Tensor:
        """Return the sum (B,) of focal loss, generalised IoU and centre-ness of each image.

        Args:
            outputs: (B, A, classes + 5).
            labels: (B, M, 5).
            weights: None, since the focal loss weighs by itself.
            size: height and width of the images in pixels.
        """
        return fcos.losses(outputs, fcos.assign(labels, outputs, size), size).total()

    def class_weights(self, labels: Tensor, classes: int) -> Tensor | None:
        """Return None: all classes count alike. The labels are checked."""
        check(labels, classes)
        return None

    def flipped(self, labels: Tensor, width: int) -> Tensor:
        """Return the boxes (B, M, 5) of mirrored images."""
        turned = labels.clone()
        turned[..., 0], turned[..., 2] = width - labels[..., 2], width - labels[..., 0]
        return torch.where(labels[..., 4:] >= 0, turned, labels)

    def check(self, outputs: Tensor, labels: Tensor) -> None:
        """Raise ValueError unless outputs are (B, A, K + 5) for labels (B, M, 5) of K classes."""
        if outputs.dim() != 3 or len(outputs) != len(labels) or outputs.shape[2] <= _BESIDES:
            found = f"{tuple(outputs.shape)} for labels {tuple(labels.shape)}"
            raise ValueError(f"expected outputs (B, locations, classes + 5), found {found}")
        check(labels, outputs.shape[2] - _BESIDES)

    def truth(self, labels: Array, answers: Array) -> Array:
        """Return the labels themselves."""
        return labels

    def wrong(self, answers: Array, truth: Array) -> Iterator[str]:
        """Yield a line unless answers are boxes with scores, best first, and no class after -1."""
        if answers.ndim != 3 or answers.shape[2] != 6 or len(answers) != len(truth):
            yield f"expected boxes ({len(truth)}, detections, 6), found {answers.shape}"
            return
        known = answers[..., 5] >= 0
        scores = np.where(known, answers[..., 4], 0)
        if not np.isfinite(answers).all() or ((scores < 0) | (scores > 1)).any():
            yield "holds scores outside [0, 1] or values that are not finite"
        if (np.diff(scores, axis=1) > 0).any() or (np.diff(known.astype(int), axis=1) > 0).any():
            yield "does not list the best detections first"
        sides = answers[..., 2:4] - answers[..., :2]
        if (sides[known] < 0).any():
            yield "holds boxes of negative size"

    def answers(self, outputs: Tensor, labels: Tensor, size: tuple[int, int]) -> Tensor:
        """Return detections (B, 50, 6): x1, y1, x2, y2, score, class; class -1 where there is none.

        Best first; scores of more than .05; of detections of a class that overlap by more than .5,
        the best one.
        """
        return fcos.detect(outputs, size)[0]

    def quality(self, answers: Array, truth: Array) -> Array:
        """Return the AP50 (n,) of each image alone; without objects, 1 for no detection, else 0."""
        return of_each_image(answers, truth, _OVERLAPS["AP50"])

    def score(self, answers: Array, truth: Array, counts: Array, metric: str = "") -> Array:
        """Return AP50, or AP: the mean over least overlaps of .5, .55, ..., .95 (R,).

        A draw without any object has NaN. Equal to the official evaluation of COCO.
        """
        overlaps = _OVERLAPS.get(metric or self.metrics[0])
        if overlaps is None:
            raise ValueError(f"metric: detection has {' and '.join(_OVERLAPS)}, found {metric!r}")
        return average_precision(answers, truth, counts, overlaps)


def check(labels: Tensor, classes: int) -> None:
    """Raise ValueError for labels (n, M, 5) with a class that does not exist or an empty box."""
    kinds = labels[..., 4]
    wrong = (kinds < -1) | (kinds >= classes) | (kinds != kinds.round())
    sides = labels[..., 2:4] - labels[..., :2]
    empty = (kinds >= 0) & ~(torch.isfinite(sides) & (sides > 0)).all(dim=-1)
    for bad, problem in (
        (wrong, f"the class must be a whole number from 0 to {classes - 1}, or -1 for no object"),
        (empty, "a box needs x1 < x2 and y1 < y2; drop or correct it in the data set"),
    ):
        if bad.any():
            image, row = bad.nonzero()[0].tolist()
            found = ", ".join(f"{value:g}" for value in labels[image, row].tolist())
            raise ValueError(f"image {image}, object {row}: {problem}; found {found}")


DETECTION = Detection()
