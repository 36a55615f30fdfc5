"""Supervised training, the baseline of the self-supervised methods."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from robustviews.methods.protocol import Base, Batch, Loss, Net
from robustviews.options import LazyModule

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from robustviews.machine import distributed
else:
    torch, distributed = LazyModule("torch"), LazyModule("robustviews.machine.distributed")


@dataclass(frozen=True)
class Supervised(Base):
    """Cross-entropy on labels, the baseline of the self-supervised methods."""

    supervised: ClassVar[bool] = True
    divided: ClassVar[Literal["views", "images"]] = "images"
    own_projector: ClassVar[bool] = True  # its classifier

    def check_views(self, count: int) -> None:
        """Raise ValueError unless there is exactly one view."""
        if count != 1:
            raise ValueError(f"supervised takes exactly 1 view, found count: {count}")

    def target(self, batch: Batch) -> Tensor:
        """Return the one augmented view: (B, 3, H, W)."""
        return batch.views[0]

    def train_loss(self, net: Net, batch: Batch, adversarial: Tensor) -> Tensor:
        """Return the cross-entropy of the perturbed images."""
        loss = torch.nn.functional.cross_entropy(net(adversarial), batch.labels)
        return distributed.share(loss)

    def attack_loss(self, net: Net, batch: Batch) -> Loss:
        """Return the training loss itself."""
        return lambda adversarial: self.train_loss(net, batch, adversarial)
