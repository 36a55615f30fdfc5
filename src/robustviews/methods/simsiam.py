"""SimSiam. Source: Chen, He 2021, equation 2 and algorithm 1."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from robustviews.methods.protocol import Batch, Heads, ManyViews, Net, across
from robustviews.options import LazyModule, option

if TYPE_CHECKING:
    from torch import Tensor

    from robustviews import losses, projectors
    from robustviews.encoder import Encoder
    from robustviews.machine import distributed
else:
    losses, projectors = LazyModule("robustviews.losses"), LazyModule("robustviews.projectors")
    distributed = LazyModule("robustviews.machine.distributed")


@dataclass(frozen=True)
class SimSiam(ManyViews):
    """SimSiam: the prediction of each view is the projection of the other, without its gradient.

    The loss of more than two views is the mean over all pairs. The predictor trains at the initial
    learning rate, without a schedule.

    Attributes:
        projector: widths of the layers of the projector, if `encoder.hidden` is null.
        predictor: width of the hidden layer of the predictor.
    """

    projector: tuple[int, ...] = option((2048, 2048, 2048), ge=1)
    predictor: int = option(512, ge=1)
    static_lr: ClassVar[tuple[str, ...]] = ("predictor",)

    def heads(self, encoder: Encoder) -> Heads:
        """Return a projector that ends in a batch norm, and a predictor with a bottleneck."""
        projector, width = None, encoder.outputs
        if not encoder.projects:
            projector = projectors.mlp(width, self.projector, bias=False, last_norm=True)
            width = self.projector[-1]
        return Heads(projector, projectors.mlp(width, (self.predictor, width), bias=False))

    def train_loss(self, net: Net, batch: Batch, adversarial: Tensor) -> Tensor:
        """Return minus the mean cosine of predictions and projections of another view."""
        z = [net(view) for view in self.student_views(batch, adversarial)]
        predictions = [net.predict(one) for one in z]
        targets = [one.detach() for one in z]
        return distributed.share(-across(targets, predictions, losses.cosine))
