"""BYOL. Source: Grill et al. 2020, equation 2 and section 3.2."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from robustviews.methods.protocol import Batch, Heads, Net, TwoViews, momentum
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
class Byol(TwoViews):
    """BYOL: the prediction of each view is the teacher's projection of the other view.

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
        """Return the squared distance of unit vectors, summed over both directions."""
        t1, t2 = net.target(batch.views)
        p1, p2 = (net.predict(net(view)) for view in (batch.views[0], adversarial))
        return distributed.share(4 - 2 * losses.cosine(p1, t2) - 2 * losses.cosine(p2, t1))

    def after_step(self, net: Net, batch: Batch, progress: float) -> None:
        """Move the teacher."""
        net.follow(momentum(self.tau, progress))
