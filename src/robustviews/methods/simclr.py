"""SimCLR, as in arXiv 2501.03507 and its reference code.

Where the two differ, an option names both.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from robustviews.methods.protocol import Base, Batch, Heads, Loss, Net
from robustviews.options import LazyModule, option, switch

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
class SimClr(Base):
    """SimCLR: each view of an image identifies the other view among all images of the batch.

    Only the second view is perturbed.

    Attributes:
        simclr_temperature: temperature of NT-Xent. Code: 0.07; alternative: 0.5.
        simclr_base_temperature: if given, the loss is multiplied by temperature /
            base_temperature. Code: 0.07.
        simclr_denominator: whether an embedding counts in its own denominator: `without_self`
            (code), `with_self` (the paper's sum).
        simclr_train_pair: the training pair of clean view and perturbed target. `views`: (x1, x2 +
            delta) (code); `same_view`: (x2, x2 + delta) (text); `raw`: (x1, x + delta) with the
            un-augmented x (Figure 1a).
        simclr_attack_pair: pair whose loss the PGD adversary maximises. `same_view`: (x2, x2 +
            delta) (code, PGD); `train_pair`: the training pair (code, free training, where
            both are one pass by construction).
        simclr_clean_branch: how the adversary's clean view is encoded. `recomputed`: in every
            attack step, with gradient (code: 12 passes per update); `once`: once and detached (7
            with a backward pass).
        projector: widths of the layers of the projector, if `encoder.hidden` is null.
    """

    simclr_temperature: float = switch(0.07, gt=0, code=(0.07,))
    simclr_base_temperature: float | None = option(0.07, gt=0)
    simclr_denominator: Literal["without_self", "with_self"] = switch(
        "without_self", code=("without_self",), paper=("with_self",)
    )
    simclr_train_pair: Literal["views", "same_view", "raw"] = switch(
        "views", code=("views",), paper=("same_view", "raw")
    )
    simclr_attack_pair: Literal["same_view", "train_pair"] = switch(
        "same_view", code={"pgd": ("same_view",)}
    )
    simclr_clean_branch: Literal["recomputed", "once"] = switch(
        "recomputed", code={"pgd": ("recomputed",)}
    )
    projector: tuple[int, ...] = option((2048, 256), ge=1)
    own_projector: ClassVar[bool] = True
    supervised: ClassVar[bool] = False
    divided: ClassVar[Literal["views", "images"]] = "images"

    def heads(self, encoder: Encoder) -> Heads:
        """Return a projector without batch norm."""
        if encoder.projects:
            return Heads()
        return Heads(projectors.mlp(encoder.outputs, self.projector, norm=False))

    def check_views(self, count: int) -> None:
        """Raise ValueError unless there are exactly two views."""
        if count != 2:
            raise ValueError(f"simclr takes exactly 2 views, found count: {count}")

    def target(self, batch: Batch) -> Tensor:
        """Return the view that is perturbed: (B, 3, H, W)."""
        return batch.images if self.simclr_train_pair == "raw" else batch.views[1]

    def train_loss(self, net: Net, batch: Batch, adversarial: Tensor) -> Tensor:
        """Return NT-Xent of the training pair; each of the two has its own forward pass."""
        clean = batch.views[1] if self.simclr_train_pair == "same_view" else batch.views[0]
        return self._nt_xent(net(clean), net(adversarial))

    def attack_loss(self, net: Net, batch: Batch) -> Loss:
        """Return NT-Xent of the adversary's pair."""
        if self.simclr_attack_pair == "same_view":
            clean = self.target(batch)
        else:
            clean = batch.views[1] if self.simclr_train_pair == "same_view" else batch.views[0]
        if self.simclr_clean_branch == "recomputed":
            return lambda adversarial: self._nt_xent(net(clean), net(adversarial))
        with torch.no_grad():
            anchor = net(clean)
        return lambda adversarial: self._nt_xent(anchor, net(adversarial))

    def _nt_xent(self, z1: Tensor, z2: Tensor) -> Tensor:
        loss = losses.nt_xent(
            torch.stack((losses.unit(z1), losses.unit(z2))),
            temperature=self.simclr_temperature,
            base_temperature=self.simclr_base_temperature,
            with_self=self.simclr_denominator == "with_self",
        )
        return distributed.share(loss)
