"""BYOL. Source: Grill et al. 2020, equation 2 and section 3.2."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from robustviews.methods.protocol import Batch, Heads, ManyViews, Net, across, momentum
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
class Byol(ManyViews):
    """BYOL: the prediction of each view is the teacher's projection of the other view.

    The teacher sees the first two views; further views go to the student only, as in solo-learn.

    Attributes:
        tau: momentum of the teacher at the first update; it rises to 1 along a cosine. In free
            training, every replay is an update.
        projector: widths of the layers of the projector, if `encoder.hidden` is null.
        predictor: width of the hidden layer of the predictor.
    """

    tau: float = option(0.99, ge=0, le=1)
    projector: tuple[int, ...] = option((4096, 256), ge=1)
    predictor: int = option(4096, ge=1)
    teacher: ClassVar[tuple[str, ...]] = ("encoder", "projector")

    def heads(self, encoder: Encoder) -> Heads:
        """Return a projector and a predictor with batch norm in their hidden layer."""
        projector, width = None, encoder.outputs
        if not encoder.projects:
            projector = projectors.mlp(width, self.projector)
            width = self.projector[-1]
        return Heads(projector, projectors.mlp(width, (self.predictor, width)))

    def train_loss(self, net: Net, batch: Batch, adversarial: Tensor) -> Tensor:
        """Return the squared distance of unit vectors of different views, twice its mean."""
        targets = net.target(batch.views)
        predictions = [net.predict(net(one)) for one in self.student_views(batch, adversarial)]
        return distributed.share(4 - 4 * across(targets, predictions, losses.cosine))

    def after_step(self, net: Net, batch: Batch, progress: float) -> None:
        """Move the teacher."""
        net.follow(momentum(self.tau, progress))
