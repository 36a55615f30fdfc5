"""What attacks on segmentation increase: a loss of each pixel, and its mean over an image.

Of a pixel with logits z, label y, prediction c = argmax z, p = softmax z and cross-entropy l:

- `cross_entropy`: l.
- `segpgd`: (1 - w) l if c = y, otherwise w l; w = t / 2T in step t of T (Gu et al. 2022).
- `cospgd`: s l with s = p_y / ||p||_2, the cosine between p and the one-hot label (Agnihotri et al.
  2024). The authors' code has softmax, as here; that of SEA has sigmoid.
- `masked_cross_entropy` (MCE): l if c = y, otherwise 0.
- `jensen_shannon` (JS): the Jensen-Shannon divergence of p and the one-hot label.
- `masked_spherical` (MSL): -z_y / ||z||_2 if c = y, otherwise 0.

The last three are those of SEA (Croce, Singh, Hein 2024), which has SegPGD's, too. No gradient
passes through c, w and s.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal, NamedTuple

from robustviews.options import LazyModule
from robustviews.tasks.protocol import VOID

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:
    torch = LazyModule("torch")

Name = Literal[
    "cross_entropy",
    "segpgd",
    "cospgd",
    "masked_cross_entropy",
    "jensen_shannon",
    "masked_spherical",
]


class Pixels(NamedTuple):
    """What a loss is computed from.

    Attributes:
        logits: (B, K, H, W).
        labels: (B, H, W) int64; 0 for void pixels.
        right: (B, H, W) bool, whether the prediction is the label.
        progress: t / T, the share of the steps that are done.
    """

    logits: Tensor
    labels: Tensor
    right: Tensor
    progress: float


def image_loss(name: Name, logits: Tensor, labels: Tensor, *, progress: float = 0.0) -> Tensor:
    """Return the sum of a loss over the pixels of each image that count, divided by all pixels.

    Args:
        name: of the loss.
        logits: (B, K, H, W).
        labels: (B, H, W), `VOID` for pixels that do not count.
        progress: t / T, which only `segpgd` reads.

    Returns:
        (B,); 0 for an image of void pixels.
    """
    counts = labels != VOID
    classes = labels.long().masked_fill(~counts, 0)
    right = logits.detach().argmax(dim=1) == classes
    losses = _LOSSES[name](Pixels(logits, classes, right, progress))  # (B, H, W)
    return losses.where(counts, 0.0).mean(dim=(1, 2))


def wrong_pixels(logits: Tensor, labels: Tensor) -> Tensor:
    """Return how many pixels of each image are misclassified, (B,) int64; void ones never are."""
    return ((logits.argmax(dim=1) != labels) & (labels != VOID)).sum(dim=(1, 2))


def cross_entropy(pixels: Pixels) -> Tensor:
    """Return the cross-entropy (B, H, W)."""
    return torch.nn.functional.cross_entropy(pixels.logits, pixels.labels, reduction="none")


def segpgd(pixels: Pixels) -> Tensor:
    """Return the weighted cross-entropy (B, H, W): of right pixels at first, later of all alike.

    Source: Gu et al. 2022, as sums over both sets of pixels. A mean over each set, as
    in layer6ai-labs/ssl-robustness, is not a number once a set is empty.
    """
    losses, weight = cross_entropy(pixels), pixels.progress / 2
    return torch.where(pixels.right, (1 - weight) * losses, weight * losses)


def cospgd(pixels: Pixels) -> Tensor:
    """Return the cross-entropy (B, H, W), times the cosine between softmax and one-hot label."""
    scores = pixels.logits.detach().softmax(dim=1)
    return cross_entropy(pixels) * _of_label(torch.nn.functional.normalize(scores, dim=1), pixels)


def masked_cross_entropy(pixels: Pixels) -> Tensor:
    """Return the cross-entropy (B, H, W) of right pixels, and 0 for the others."""
    return cross_entropy(pixels).where(pixels.right, 0.0)


def jensen_shannon(pixels: Pixels) -> Tensor:
    """Return the Jensen-Shannon divergence (B, H, W), in [0, log 2].

    With m = (p + onehot) / 2 it is KL(p || m) / 2 + KL(onehot || m) / 2, and p_k / m_k = 2 for
    every k but the label: log 2 + (p_y log p_y - (1 + p_y) log(1 + p_y)) / 2. This form has no
    0 log 0, whose gradient would not be a number.
    """
    log_p = _of_label(pixels.logits.log_softmax(dim=1), pixels)
    p = log_p.exp()
    return math.log(2) + (p * log_p - (1 + p) * p.log1p()) / 2


def masked_spherical(pixels: Pixels) -> Tensor:
    """Return minus the label's logit on the unit sphere (B, H, W) of right pixels, else 0."""
    unit = torch.nn.functional.normalize(pixels.logits, dim=1)  # with gradient through the length
    return -_of_label(unit, pixels).where(pixels.right, 0.0)


def _of_label(values: Tensor, pixels: Pixels) -> Tensor:
    """Return the entries (B, H, W) of the labels in (B, K, H, W)."""
    return values.gather(1, pixels.labels.unsqueeze(1)).squeeze(1)


_LOSSES: dict[Name, Callable[[Pixels], Tensor]] = {
    "cross_entropy": cross_entropy,
    "segpgd": segpgd,
    "cospgd": cospgd,
    "masked_cross_entropy": masked_cross_entropy,
    "jensen_shannon": jensen_shannon,
    "masked_spherical": masked_spherical,
}
