"""EMP-SSL, as in arXiv 2501.03507 and its reference code.

Where the two differ, an option names both.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from robustviews.methods.protocol import Base, Batch, Loss, Net
from robustviews.options import LazyModule, switch

if TYPE_CHECKING:
    from torch import Tensor

    from robustviews import losses
    from robustviews.machine import distributed
else:
    losses = LazyModule("robustviews.losses")
    distributed = LazyModule("robustviews.machine.distributed")


@dataclass(frozen=True)
class EmpSsl(Base):
    """EMP-SSL: many crops of an image agree with their mean, and the images of a batch spread out.

    Attributes:
        emp_invariance: `cosine` is the mean cosine between a projection and the mean over views
            (code); `trace` is trace(Z_i^T Zbar), the sum over the batch of their inner products,
            without dividing by the norm of the mean (paper).
        emp_scale: `weighted_mean` is 200 x invariance + 1 x coding rate, each a mean over views
            (code); `unit_sum` weighs both by 1 and sums over views (paper, with the sign corrected
            for minimisation).
        tcr_eps: distortion of the coding rate, in place of the formula's eps squared. Code: 0.2;
            paper: 0.04.
    """

    emp_invariance: Literal["cosine", "trace"] = switch(
        "cosine", code=("cosine",), paper=("trace",)
    )
    emp_scale: Literal["weighted_mean", "unit_sum"] = switch(
        "weighted_mean", code=("weighted_mean",), paper=("unit_sum",)
    )
    tcr_eps: float = switch(0.2, gt=0, code=(0.2,), paper=(0.04,))
    supervised: ClassVar[bool] = False
    divided: ClassVar[Literal["views", "images"]] = "views"  # a coding rate needs all images

    def check_views(self, count: int) -> None:
        """Raise ValueError for fewer than two views: one view agrees with itself."""
        if count < 2:
            raise ValueError(f"emp_ssl needs at least 2 views, found count: {count}")

    def target(self, batch: Batch) -> Tensor:
        """Return all views: (V, B, 3, H, W)."""
        return batch.views

    def train_loss(self, net: Net, batch: Batch, adversarial: Tensor) -> Tensor:
        """Return the EMP-SSL loss of the perturbed views."""
        views, images = adversarial.shape[:2]
        z = losses.unit(net(adversarial.flatten(0, 1)))
        z = z.view(views, images, -1)  # (V, B, D)
        invariance = losses.invariance(z, kind=self.emp_invariance)
        coding_rate = losses.total_coding_rate(z, eps=self.tcr_eps)
        if self.emp_scale == "unit_sum":
            return views * (invariance + coding_rate)  # a sum over views is already a share
        return distributed.share(200.0 * invariance + coding_rate)

    def attack_loss(self, net: Net, batch: Batch) -> Loss:
        """Return the training loss itself: the adversary perturbs every view."""
        return lambda adversarial: self.train_loss(net, batch, adversarial)
