"""Training images that are held out to choose options of a probe; test images never choose."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from robustviews.datasets.splits import stratified

if TYPE_CHECKING:
    from torch import Tensor

_PART = 10  # one image in ten is held out


def hold_out(labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return the positions to train on and the tenth that is held out, each in order, on the CPU.

    The choice depends on the labels alone, in the proportions of the classes.

    Args:
        labels: (N,) int64, labels of the training images.

    Raises:
        ValueError: there are fewer than two images.
    """
    if len(labels) < 2:
        raise ValueError(
            f"expected at least 2 training images to hold one out, found {len(labels)}"
        )
    held = torch.from_numpy(stratified(labels.cpu().numpy(), max(1, len(labels) // _PART)))
    kept = torch.ones(len(labels), dtype=torch.bool)
    kept[held] = False
    return kept.nonzero().flatten(), held


def best(scores: list[float]) -> int:
    """Return the position of the highest score, the first of equal ones."""
    return max(range(len(scores)), key=scores.__getitem__)
