"""VICReg. Source: Bardes et al. 2022, equations 1 to 6, and its official code."""

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

_EPS = 1e-4  # keeps the gradient of a standard deviation finite


@dataclass(frozen=True)
class VicReg(ManyViews):
    """VICReg: two views agree, dimensions vary over a batch, and do not vary together.

    The loss of more than two views is the mean over all pairs.

    Attributes:
        invariance: weight of the mean squared difference of both views.
        variance: weight of the hinge on standard deviations below 1, a mean over both views.
            solo-learn takes their sum: its published 25 is 50 here.
        covariance: weight of the squared covariances of different dimensions, a sum over both
            views.
        projector: widths of the layers of the projector, if `encoder.hidden` is null.
    """

    invariance: float = option(25.0, ge=0)
    variance: float = option(25.0, ge=0)
    covariance: float = option(1.0, ge=0)
    projector: tuple[int, ...] = option((2048, 2048, 2048), ge=1)

    def heads(self, encoder: Encoder) -> Heads:
        """Return a projector with batch norm."""
        if encoder.projects:
            return Heads()
        return Heads(projectors.mlp(encoder.outputs, self.projector))

    def train_loss(self, net: Net, batch: Batch, adversarial: Tensor) -> Tensor:
        """Return the mean loss of pairs of views."""
        z = [losses.whole(net(view)) for view in self.student_views(batch, adversarial)]  # (N, D)
        distances = [(z1 - z2).square().mean() for z1, z2 in combinations(z, 2)]
        loss = self.invariance * torch.stack(distances).mean()
        loss = loss + self.variance * torch.stack([_hinge(one) for one in z]).mean()
        loss = loss + self.covariance * 2 * torch.stack([_covariance(one) for one in z]).mean()
        return distributed.share(loss)


def _hinge(z: Tensor) -> Tensor:
    """Return by how much standard deviations of projections (N, D) are below 1, in the mean."""
    return torch.relu(1 - (z.var(dim=0) + _EPS).sqrt()).mean()


def _covariance(z: Tensor) -> Tensor:
    """Return the sum of squared covariances of different dimensions of (N, D), divided by D."""
    centred = z - z.mean(dim=0)
    covariance = centred.T @ centred / (len(z) - 1)  # (D, D)
    squares = covariance.square()
    return (squares.sum() - squares.diagonal().sum()) / z.shape[1]
