"""Semantic segmentation: a class for each pixel, scored by intersection over union."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from robustviews.options import LazyModule
from robustviews.tasks.protocol import VOID

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from robustviews.tasks import pyramid
    from robustviews.tasks.protocol import Array
else:
    torch, nn = LazyModule("torch"), LazyModule("torch.nn")
    pyramid = LazyModule("robustviews.tasks.pyramid")

_AT_ONCE = 64  # images whose pixels are counted together, as wider numbers


class Segmentation:
    """A class for each pixel.

    Stored are, for each image and class, how many pixels are right and how many have the class in
    the answer, (n, K, 2) int32, and how many have it as a label, (n, K) int32. Void pixels are not
    counted.
    """

    name: ClassVar[str] = "segmentation"
    metrics: ClassVar[tuple[str, ...]] = ("mIoU", "pixel-accuracy")

    def head(self, channels: Sequence[int], classes: int) -> nn.Module:
        """Return a feature pyramid of the three coarsest levels with logits (B, K, H, W)."""
        return pyramid.Pyramid(channels, classes)

    def loss(
        self, outputs: Tensor, labels: Tensor, weights: Tensor | None, size: tuple[int, int]
    ) -> Tensor:
        """Return the cross-entropy (B,), a weighted mean over the pixels that are not void."""
        valid, target = labels != VOID, labels.long()
        target = torch.where(valid, target, 0)
        each = nn.functional.cross_entropy(outputs, target, reduction="none")  # (B, H, W)
        weight = valid if weights is None else valid * weights[target]
        return (each * weight).sum(dim=(1, 2)) / weight.sum(dim=(1, 2)).clamp_min(1e-12)

    def class_weights(self, labels: Tensor, classes: int) -> Tensor:
        """Return (all pixels / pixels of the class)^0.5 for each class, 1 on average."""
        parts = labels.split(_AT_ONCE)
        counts = [_pixels(part.long(), part != VOID, classes).sum(dim=0) for part in parts]
        pixels = torch.stack(counts).sum(dim=0).clamp_min(1)
        weights = (pixels.sum() / pixels).sqrt()
        return weights / weights.mean()

    def flipped(self, labels: Tensor, width: int) -> Tensor:
        """Return the labels (B, H, W) of mirrored images."""
        return labels.flip(-1)

    def check(self, outputs: Tensor, labels: Tensor) -> None:
        """Raise ValueError unless outputs are logits (B, K, H, W) for labels (B, H, W)."""
        if outputs.dim() != 4 or (len(outputs), *outputs.shape[2:]) != tuple(labels.shape):
            found = f"{tuple(outputs.shape)} for labels {tuple(labels.shape)}"
            raise ValueError(f"expected logits (B, classes, H, W), found {found}")
        classes = outputs.shape[1]
        highest = torch.where(labels == VOID, 0, labels).max().item()
        if highest >= classes:
            expected = f"expected labels from 0 to {classes - 1}, or {VOID} for void pixels"
            raise ValueError(f"{expected}; found {highest}")

    def truth(self, labels: Array, answers: Array) -> Array:
        """Return how many pixels of each image have each class as their label, (n, K) int32."""
        classes = answers.shape[1]
        counts = [np.bincount(each[each != VOID], minlength=classes) for each in labels]
        return np.stack(counts).astype(np.int32)

    def wrong(self, answers: Array, truth: Array) -> Iterator[str]:
        """Yield a line unless right pixels are part of those of the answer and of the labels."""
        if answers.shape != (*truth.shape, 2):
            yield f"expected counts of pixels {(*truth.shape, 2)}, found {answers.shape}"
            return
        right, found = answers[..., 0], answers[..., 1]
        if (right < 0).any() or (right > np.minimum(found, truth)).any():
            yield "says of a class that more pixels are right than have it"
        if (found.sum(axis=1) != truth.sum(axis=1)).any():
            yield "does not give each labelled pixel one class"

    def answers(self, outputs: Tensor, labels: Tensor, size: tuple[int, int]) -> Tensor:
        """Return how many pixels are right, and have each class in the answer, (B, K, 2) int32."""
        found, classes = outputs.argmax(dim=1), outputs.shape[1]
        right = _pixels(found, found == labels, classes)
        return torch.stack([right, _pixels(found, labels != VOID, classes)], dim=2)

    def quality(self, answers: Array, truth: Array) -> Array:
        """Return the share of right pixels of each image, (n,); 1 where all pixels are void."""
        pixels, right = truth.sum(axis=1), answers[..., 0].sum(axis=1)
        shares: Array = np.divide(right, pixels, out=np.ones(len(right)), where=pixels > 0)
        return shares

    def score(self, answers: Array, truth: Array, counts: Array, metric: str = "") -> Array:
        """Return the mean over the classes of the draw's labels of intersection / union, (R,).

        Intersections and unions are summed over images first. `pixel-accuracy` is the share of
        right pixels.
        """
        right, found = (counts @ answers[..., part] for part in (0, 1))  # (R, K)
        labelled = counts @ truth
        if metric == "pixel-accuracy":
            share: Array = right.sum(axis=1) / np.maximum(labelled.sum(axis=1), 1)
            return share
        present = labelled > 0
        shares = right / np.maximum(found + labelled - right, 1) * present
        mean: Array = shares.sum(axis=1) / np.maximum(present.sum(axis=1), 1)
        return mean


def _pixels(classes_of: Tensor, counted: Tensor, classes: int) -> Tensor:
    """Return how many counted pixels of each image (n, H, W) have each class, (n, K) int32."""
    images = torch.arange(len(classes_of), device=classes_of.device).view(-1, 1, 1)
    keys = (images * classes + classes_of)[counted]
    numbers = torch.bincount(keys, minlength=len(classes_of) * classes)
    return numbers.view(-1, classes).to(torch.int32)


SEGMENTATION = Segmentation()
