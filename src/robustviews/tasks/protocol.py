"""What a task must provide: a head, its losses, and how its answers are scored.

A network answers with one tensor per batch, its outputs, whose first dimension is the image:

- classification: logits (B, K);
- segmentation: logits (B, K, H, W);
- detection: (B, A, K + 5), see `tasks.detection`.

Labels of a prepared data set have the image first, too:

- classification: (N,) int64;
- segmentation: (N, S, S) uint8, the class of each pixel, `VOID` for pixels that do not count;
- detection: (N, M, 5) float32, x1, y1, x2, y2 in pixels of the prepared image, and the class; rows
  without an object have class -1.

What results store of answers and labels has the image first, so that all tasks choose, resample and
compare images alike.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Protocol

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor, nn

    Array = np.ndarray[Any, Any]

VOID = 255  # label of pixels that do not count


class Maps(NamedTuple):
    """What dense heads read of an encoder.

    Attributes:
        levels: (B, C, h, w) of each stage, from fine to coarse.
        size: height and width of the images in pixels.
    """

    levels: tuple[Tensor, ...]
    size: tuple[int, int]


class Task(Protocol):
    """What a task must provide.

    Attributes:
        name: of the task, as data sets, probes and attacks state it.
        metrics: what its answers are scored by; the first one is meant where none is named.
    """

    name: ClassVar[str]
    metrics: ClassVar[tuple[str, ...]]

    def head(self, channels: Sequence[int], classes: int) -> nn.Module:
        """Return a new head, which maps `Maps` with these channels to outputs of the network.

        Its initial weights come from torch's global generator.
        """

    def loss(
        self, outputs: Tensor, labels: Tensor, weights: Tensor | None, size: tuple[int, int]
    ) -> Tensor:
        """Return the loss (B,) of each image that trains a head.

        Args:
            outputs: of the network.
            labels: of the images, as the data set has them.
            weights: (K,) of the classes, from `class_weights`.
            size: height and width of the images in pixels.
        """

    def class_weights(self, labels: Tensor, classes: int) -> Tensor | None:
        """Return weights (K,) of the classes in training; None if all count alike."""

    def flipped(self, labels: Tensor, width: int) -> Tensor:
        """Return the labels of images that are mirrored from left to right, `width` pixels wide."""

    def check(self, outputs: Tensor, labels: Tensor) -> None:
        """Raise ValueError if outputs do not have the form of the task, or labels do not fit."""

    def truth(self, labels: Array, answers: Array) -> Array:
        """Return what results store of the labels (n, ...).

        Args:
            labels: (n, ...), as the data set has them.
            answers: stored answers or truth of as many classes.
        """

    def wrong(self, answers: Array, truth: Array) -> Iterator[str]:
        """Yield why stored answers cannot be answers about images of a stored truth."""

    def answers(self, outputs: Tensor, labels: Tensor, size: tuple[int, int]) -> Tensor:
        """Return what results store of a batch's outputs, (B, ...), given labels and image size."""

    def quality(self, answers: Array, truth: Array) -> Array:
        """Return how good the answers about each image are, (n,): the worst case has the lowest."""

    def score(self, answers: Array, truth: Array, counts: Array, metric: str = "") -> Array:
        """Return a metric, a fraction (R,).

        Args:
            answers: (n, ...), as stored.
            truth: (n, ...), as stored.
            counts: (R, n), how often each image counts: 1 each, or those of a bootstrap.
            metric: one of `metrics`; empty for the first.
        """
