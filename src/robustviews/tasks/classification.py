"""Classification: one class for an image; an answer is right or wrong."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from robustviews.options import LazyModule

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from robustviews.tasks.protocol import Array
else:
    torch, nn = LazyModule("torch"), LazyModule("torch.nn")


class Classification:
    """One class for an image. Stored are (n,) uint8, 1 where it is right, and the labels (n,)."""

    name: ClassVar[str] = "classification"
    metrics: ClassVar[tuple[str, ...]] = ("top-1",)

    def head(self, channels: Sequence[int], classes: int) -> nn.Module:
        """Raise ValueError: probes have heads of their own, which read features."""
        raise ValueError(f"a classifier of {classes} classes reads features, not {channels} maps")

    def loss(
        self, outputs: Tensor, labels: Tensor, weights: Tensor | None, size: tuple[int, int]
    ) -> Tensor:
        """Return the cross-entropy (B,) of logits (B, K) and labels (B,)."""
        return nn.functional.cross_entropy(outputs, labels, weight=weights, reduction="none")

    def class_weights(self, labels: Tensor, classes: int) -> None:
        """Return None: classes count alike."""

    def flipped(self, labels: Tensor, width: int) -> Tensor:
        """Return the labels: a mirrored image has the same class."""
        return labels

    def check(self, outputs: Tensor, labels: Tensor) -> None:
        """Raise ValueError unless outputs are logits (B, K) for labels from 0 to K - 1."""
        if outputs.dim() != 2 or len(outputs) != len(labels):
            shape = tuple(outputs.shape)
            raise ValueError(
                f"expected logits (B, classes), found {shape} for {len(labels)} images"
            )
        low, high, classes = labels.min().item(), labels.max().item(), outputs.shape[1]
        if low < 0 or high >= classes:
            raise ValueError(
                f"expected labels from 0 to {classes - 1}, as the classifier has {classes} logits; "
                f"found labels from {low} to {high}"
            )

    def truth(self, labels: Array, answers: Array) -> Array:
        """Return the labels (n,)."""
        return labels

    def wrong(self, answers: Array, truth: Array) -> Iterator[str]:
        """Yield a line unless answers are zeros and ones (n,)."""
        if answers.shape != truth.shape:
            yield f"expected one flag per image, {truth.shape}; found {answers.shape}"
        elif not np.isin(answers, (0, 1)).all():
            yield "holds values other than 0 and 1"

    def answers(self, outputs: Tensor, labels: Tensor, size: tuple[int, int]) -> Tensor:
        """Return 1 where the largest logit is that of the label, (B,) uint8."""
        return (outputs.argmax(dim=1) == labels).to(torch.uint8)

    def quality(self, answers: Array, truth: Array) -> Array:
        """Return 1 where an image is right, (n,)."""
        return answers

    def score(self, answers: Array, truth: Array, counts: Array, metric: str = "") -> Array:
        """Return the share of right images, (R,)."""
        share: Array = counts @ (answers == 1) / counts.sum(axis=1)
        return share


CLASSIFICATION = Classification()
