"""Barlow Twins. Source: Zbontar et al. 2021, equation 1."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING

from robustviews.methods.protocol import Batch, Heads, ManyViews, Net
from robustviews.options import LazyModule, option

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from robustviews import losses, projectors
    from robustviews.encoder import Encoder
    from robustviews.machine import distributed
else:
    torch, losses = LazyModule("torch"), LazyModule("robustviews.losses")
    projectors = LazyModule("robustviews.projectors")
    distributed = LazyModule("robustviews.machine.distributed")

_EPS = 1e-5  # of the batch norm in the official code


@dataclass(frozen=True)
class BarlowTwins(ManyViews):
    """Barlow Twins: the cross-correlation of two views over a batch becomes the identity.

    The loss of more than two views is the mean over all pairs.

    Attributes:
        off_diagonal: weight of the elements off the diagonal.
        loss_scale: factor of the loss. Official code: 1 with another learning rate; solo-learn for
            CIFAR: 0.1.
        projector: widths of the layers of the projector, if `encoder.hidden` is null.
    """

    off_diagonal: float = option(0.0051, gt=0)
    loss_scale: float = option(0.1, gt=0)
    projector: tuple[int, ...] = option((2048, 2048, 2048), ge=1)

    def heads(self, encoder: Encoder) -> Heads:
        """Return a projector with batch norm."""
        if encoder.projects:
            return Heads()
        return Heads(projectors.mlp(encoder.outputs, self.projector))

    def train_loss(self, net: Net, batch: Batch, adversarial: Tensor) -> Tensor:
        """Return the mean loss of pairs of views."""
        views = [net(view) for view in self.student_views(batch, adversarial)]
        standardised = [_standardised(losses.whole(z)) for z in views]  # (N, D) each
        loss = torch.stack([self._loss(*pair) for pair in combinations(standardised, 2)]).mean()
        return distributed.share(self.loss_scale * loss)

    def _loss(self, z1: Tensor, z2: Tensor) -> Tensor:
        correlation = z1.T @ z2 / len(z1)  # (D, D)
        diagonal = correlation.diagonal()
        redundancy = correlation.square().sum() - diagonal.square().sum()
        return (diagonal - 1).square().sum() + self.off_diagonal * redundancy


def _standardised(z: Tensor) -> Tensor:
    """Return projections (N, D) with mean 0 and variance 1 in each dimension."""
    variance, mean = torch.var_mean(z, dim=0, correction=0)
    return (z - mean) / (variance + _EPS).sqrt()
