"""DINO. Source: Caron et al. 2021, algorithm 1 and section 3.1, and its official code."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from robustviews.methods.protocol import Batch, Heads, ManyViews, Net, across, momentum
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


@dataclass(frozen=True)
class Dino(ManyViews):
    """DINO: the student's distribution over prototypes is that of the teacher for another view.

    The teacher sees the first two views; further views go to the student only. The teacher is what
    is evaluated.

    Attributes:
        prototypes: number K of prototypes, the outputs of the last layer.
        temperature: temperature of the student.
        teacher_temperature: temperature of the teacher after its warm-up.
        warmup_temperature: temperature of the teacher in the first pass of its warm-up.
        warmup_epochs: passes of the warm-up; 0 for none.
        center_momentum: part of the center that stays at each update.
        tau: momentum of the teacher at the first update; it rises to 1 along a cosine. In free
            training, every replay is an update.
        frozen_epochs: passes in which the last layer is not updated.
        projector: widths of the layers of the projector, if `encoder.hidden` is null.
    """

    prototypes: int = option(4096, ge=2)
    temperature: float = option(0.1, gt=0)
    teacher_temperature: float = option(0.07, gt=0)
    warmup_temperature: float = option(0.04, gt=0)
    warmup_epochs: int = option(0, ge=0)
    center_momentum: float = option(0.9, ge=0, lt=1)
    tau: float = option(0.9995, ge=0, le=1)
    frozen_epochs: int = option(1, ge=0)
    projector: tuple[int, ...] = option((2048, 2048, 256), ge=1)
    teacher: ClassVar[tuple[str, ...]] = ("encoder", "projector", "predictor")
    evaluated: ClassVar[Literal["student", "teacher"]] = "teacher"

    def heads(self, encoder: Encoder) -> Heads:
        """Return a projector without batch norm, and prototypes."""
        projector, width = None, encoder.outputs
        if not encoder.projects:
            projector = projectors.mlp(width, self.projector, norm=False, activation="gelu")
            projectors.truncated_normal_(projector)
            width = self.projector[-1]
        return Heads(projector, projectors.Prototypes(width, self.prototypes))

    def init_state(self, encoder: Encoder) -> dict[str, Tensor]:
        """Return the center (1, K) of the teacher's outputs: zero."""
        return {"center": torch.zeros(1, self.prototypes)}

    def train_loss(self, net: Net, batch: Batch, adversarial: Tensor) -> Tensor:
        """Return the cross-entropy of teacher and student for different views, in the mean."""
        student = [net.predict(net(view)) for view in self.student_views(batch, adversarial)]
        logs = [torch.log_softmax(one / self.temperature, dim=-1) for one in student]  # (B, K)
        centred = net.target(batch.views) - net.state["center"]  # (2, B, K)
        targets = torch.softmax(centred / self._teacher_temperature(net.epoch), dim=-1)
        return distributed.share(-across(targets, logs, losses.agreement))

    def after_step(self, net: Net, batch: Batch, progress: float) -> None:
        """Move the center to the teacher's mean output for this minibatch; then the teacher."""
        mean = distributed.mean(net.target(batch.views).mean(dim=(0, 1)))  # (K,)
        net.state["center"].lerp_(mean, 1 - self.center_momentum)
        net.follow(momentum(self.tau, progress))

    def frozen(self, epoch: int) -> tuple[str, ...]:
        """Return the last layer for the first passes."""
        return ("predictor",) if epoch < self.frozen_epochs else ()

    def _teacher_temperature(self, epoch: int) -> float:
        """Return the teacher's temperature in a pass, counted from 0: linear, then constant."""
        done = min(1.0, epoch / max(self.warmup_epochs - 1, 1)) if self.warmup_epochs else 1.0
        start, end = self.warmup_temperature, self.teacher_temperature
        return start + done * (end - start)
