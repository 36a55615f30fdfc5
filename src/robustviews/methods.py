"""Methods: the views that a method reads, what an adversary may perturb, and the loss.

Each method is a frozen dataclass of its options. Images are in [0, 1]; `forward` maps images (N, 3,
H, W) to the inputs of the loss: unit-norm projections (N, D), or logits (N, classes) for the
supervised method.

In distributed training, `Batch` is this rank's share of the minibatch, and each loss is scaled so
that the sum over ranks equals the single-process loss.

Source: arXiv 2501.03507 and its reference code. Where they differ, an option names both.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal, NamedTuple, Protocol

from robustviews.options import LazyModule, option, switch

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from robustviews import losses
    from robustviews.machine import distributed
else:
    torch, losses = LazyModule("torch"), LazyModule("robustviews.losses")
    distributed = LazyModule("robustviews.machine.distributed")

Forward = Callable[["Tensor"], "Tensor"]
Loss = Callable[["Tensor"], "Tensor"]


class Batch(NamedTuple):
    """One minibatch as a method reads it."""

    images: Tensor  # (B, 3, H, W) in [0, 1], not augmented, at the size of the views
    views: Tensor  # (V, B, 3, H, W) in [0, 1]
    labels: Tensor  # (B,) int64; only the supervised method uses them


class DivisionError(ValueError):
    """Minibatches cannot be divided among ranks; the message says what to change."""


class Share(NamedTuple):
    """The share of one rank in every minibatch."""

    views: range  # of each image
    images: range  # of the minibatch


class Method(Protocol):
    """What a method must provide; its row in `METHODS` names it for study files.

    Attributes:
        supervised: whether the method uses labels.
        divided: what is divided among ranks. `views`: each rank has all images and some of their
            views; `images`: each rank has some images and all their views.
    """

    supervised: ClassVar[bool]
    divided: ClassVar[Literal["views", "images"]]

    def check_views(self, count: int) -> None:
        """Raise ValueError if the method cannot use this number of views."""

    def target(self, batch: Batch) -> Tensor:
        """Return the images that a perturbation is added to: (..., 3, H, W)."""

    def train_loss(self, forward: Forward, batch: Batch, adversarial: Tensor) -> Tensor:
        """Return the scalar loss that the encoder minimises, given the perturbed target."""

    def attack_loss(self, forward: Forward, batch: Batch) -> Loss:
        """Return the loss that an adversary maximises, as a function of the perturbed target."""


@dataclass(frozen=True)
class EmpSsl:
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

    def train_loss(self, forward: Forward, batch: Batch, adversarial: Tensor) -> Tensor:
        """Return the EMP-SSL loss of the perturbed views."""
        views, images = adversarial.shape[:2]
        z = forward(adversarial.flatten(0, 1)).view(views, images, -1)  # (V, B, D)
        invariance = losses.invariance(z, kind=self.emp_invariance)
        coding_rate = losses.total_coding_rate(z, eps=self.tcr_eps)
        if self.emp_scale == "unit_sum":
            return views * (
                invariance + coding_rate
            )  # a sum over this rank's views is already a share
        return distributed.share(200.0 * invariance + coding_rate)

    def attack_loss(self, forward: Forward, batch: Batch) -> Loss:
        """Return the training loss itself: the adversary perturbs every view."""
        return lambda adversarial: self.train_loss(forward, batch, adversarial)


@dataclass(frozen=True)
class SimClr:
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
    supervised: ClassVar[bool] = False
    divided: ClassVar[Literal["views", "images"]] = "images"

    def check_views(self, count: int) -> None:
        """Raise ValueError unless there are exactly two views."""
        if count != 2:
            raise ValueError(f"simclr takes exactly 2 views, found count: {count}")

    def target(self, batch: Batch) -> Tensor:
        """Return the view that is perturbed: (B, 3, H, W)."""
        return batch.images if self.simclr_train_pair == "raw" else batch.views[1]

    def train_loss(self, forward: Forward, batch: Batch, adversarial: Tensor) -> Tensor:
        """Return NT-Xent of the training pair; each of the two has its own forward pass."""
        clean = batch.views[1] if self.simclr_train_pair == "same_view" else batch.views[0]
        return self._nt_xent(forward(clean), forward(adversarial))

    def attack_loss(self, forward: Forward, batch: Batch) -> Loss:
        """Return NT-Xent of the adversary's pair."""
        if self.simclr_attack_pair == "same_view":
            clean = self.target(batch)
        else:
            clean = batch.views[1] if self.simclr_train_pair == "same_view" else batch.views[0]
        if self.simclr_clean_branch == "recomputed":
            return lambda adversarial: self._nt_xent(forward(clean), forward(adversarial))
        with torch.no_grad():
            anchor = forward(clean)
        return lambda adversarial: self._nt_xent(anchor, forward(adversarial))

    def _nt_xent(self, z1: Tensor, z2: Tensor) -> Tensor:
        loss = losses.nt_xent(
            torch.stack((z1, z2)),
            temperature=self.simclr_temperature,
            base_temperature=self.simclr_base_temperature,
            with_self=self.simclr_denominator == "with_self",
        )
        return distributed.share(loss)


@dataclass(frozen=True)
class Supervised:
    """Cross-entropy on labels, the baseline of the self-supervised methods."""

    supervised: ClassVar[bool] = True
    divided: ClassVar[Literal["views", "images"]] = "images"

    def check_views(self, count: int) -> None:
        """Raise ValueError unless there is exactly one view."""
        if count != 1:
            raise ValueError(f"supervised takes exactly 1 view, found count: {count}")

    def target(self, batch: Batch) -> Tensor:
        """Return the one augmented view: (B, 3, H, W)."""
        return batch.views[0]

    def train_loss(self, forward: Forward, batch: Batch, adversarial: Tensor) -> Tensor:
        """Return the cross-entropy of the perturbed images."""
        loss = torch.nn.functional.cross_entropy(forward(adversarial), batch.labels)
        return distributed.share(loss)

    def attack_loss(self, forward: Forward, batch: Batch) -> Loss:
        """Return the training loss itself."""
        return lambda adversarial: self.train_loss(forward, batch, adversarial)


def divide(method: Method, *, views: int, batch_size: int, ranks: int) -> list[Share]:
    """Divide minibatches evenly among ranks, and return the share of each rank.

    Args:
        method: decides whether views or images are divided.
        views: views per image.
        batch_size: images in a minibatch.
        ranks: processes that train together.

    Raises:
        DivisionError: the views or images cannot be divided evenly.
    """
    key, count = ("views.count", views) if method.divided == "views" else ("batch_size", batch_size)
    if count % ranks:
        raise DivisionError(
            f"{key}: {count} cannot be divided evenly among {ranks} ranks; make it a multiple of "
            f"{ranks}, or the number of ranks a divisor of {count}"
        )
    parts = [range(rank * count // ranks, (rank + 1) * count // ranks) for rank in range(ranks)]
    if method.divided == "views":
        return [Share(part, range(batch_size)) for part in parts]
    return [Share(range(views), part) for part in parts]


METHODS: dict[str, type[Method]] = {
    "emp_ssl": EmpSsl,
    "simclr": SimClr,
    "supervised": Supervised,
}
