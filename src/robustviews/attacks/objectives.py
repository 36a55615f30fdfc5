"""What PGD increases: losses of the logits, and distances between features, per image.

Losses of the logits z with the label y:

- `cross_entropy` or `ce`: log sum_j exp(z_j) - z_y.
- `margin` or `cw`: max_{j != y} z_j - z_y (Carlini, Wagner 2017).
- `dlr`: the margin, divided by the largest less the third largest logit (Croce, Hein 2020).

Distances of the adversarial feature h from the clean feature h0 need no labels:

- `feature_mse`: mean_i (h_i - h0_i)^2.
- `feature_cosine`: -cos(h, h0).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

from robustviews.options import LazyModule

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:
    torch = LazyModule("torch")

Name = Literal[
    "cross_entropy", "ce", "margin", "cw", "dlr", "feature_mse", "feature_cosine"
]  # of a loss in a study file
SAME = {"ce": "cross_entropy", "cw": "margin"}  # names of one loss; specs have the second
_LEAST = 1e-12  # denominator of DLR, as in the official code


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the cross-entropy (B,) of logits (B, classes) and labels (B,)."""
    return torch.nn.functional.cross_entropy(logits, labels, reduction="none")


def margin(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the largest logit of another class less the logit of the label.

    Args:
        logits: (B, classes).
        labels: (B,) int64.

    Returns:
        (B,), positive where the image is misclassified. Unlike that of the cross-entropy, the
        gradient does not vanish when the classifier is confident.

    Source: Carlini, Wagner 2017, objective f6, untargeted and without its cut-off at zero.
    """
    label = labels.unsqueeze(1)  # (B, 1)
    others = logits.scatter(1, label, -torch.inf)  # (B, classes)
    return others.max(dim=1).values - logits.gather(1, label).squeeze(1)


def dlr(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the difference of logits ratio: the margin over the largest less the third logit.

    Args:
        logits: (B, classes), at least 3 classes.
        labels: (B,) int64.

    Returns:
        (B,), the same for logits that are shifted, or multiplied by a positive number.

    Raises:
        ValueError: there are fewer than three classes.

    Source: Croce, Hein 2020, equation 6; 1e-12 in the denominator as in their code.
    """
    if logits.shape[1] < 3:
        raise ValueError(f"loss: dlr needs 3 classes, found {logits.shape[1]}; write loss: margin")
    first, _, third = logits.topk(3, dim=1).values.unbind(dim=1)
    return margin(logits, labels) / (first - third + _LEAST)


def feature_mse(features: Tensor, clean: Tensor) -> Tensor:
    """Return the mean squared difference (B,) of features (B, ...).

    Source: `EmbedAttack` of layer6ai-labs/ssl-robustness, the code of arXiv 2407.12588.
    """
    return (features - clean).square().flatten(1).mean(dim=1)


def feature_cosine(features: Tensor, clean: Tensor) -> Tensor:
    """Return the negative cosine (B,) between features (B, ...). Source: as `feature_mse`."""
    return -torch.nn.functional.cosine_similarity(features.flatten(1), clean.flatten(1), dim=1)


LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "cross_entropy": cross_entropy,
    "margin": margin,
    "dlr": dlr,
}
DISTANCES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "feature_mse": feature_mse,
    "feature_cosine": feature_cosine,
}
