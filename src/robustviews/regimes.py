"""Regimes: how one minibatch becomes parameter updates, with or without an adversary.

A regime computes the method's losses on a network in train mode and calls `update` (optimizer,
schedule and the method's state) after each backward pass. Perturbations are added to the method's
target, in pixel units.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal, Protocol

from robustviews.attacks import ascend, in_pixels, pgd
from robustviews.methods import Batch, Method
from robustviews.options import LazyModule, option, switch

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from robustviews.machine import distributed, runtime
    from robustviews.network import Network
else:
    torch, nn = LazyModule("torch"), LazyModule("torch.nn")
    distributed, runtime = (
        LazyModule("robustviews.machine.distributed"),
        LazyModule("robustviews.machine.runtime"),
    )

Update = Callable[[], None]


class Regime(Protocol):
    """What a regime must provide; its row in `REGIMES` names it for study files.

    Attributes:
        adversarial: whether images are perturbed.
    """

    adversarial: ClassVar[bool]

    @property
    def eps(self) -> float:
        """Radius of the perturbation, in 1/255; 0 without an adversary."""

    @property
    def steps(self) -> int:
        """Attack steps before each update."""

    @property
    def updates_per_batch(self) -> int:
        """Updates per minibatch."""

    def train_batch(
        self,
        net: Network,
        method: Method,
        batch: Batch,
        delta: Tensor | None,
        update: Update,
        generator: torch.Generator | None,
    ) -> tuple[list[Tensor], Tensor | None]:
        """Train on one minibatch.

        Args:
            net: network in train mode.
            method: views and loss.
            batch: minibatch.
            delta: perturbation from the last minibatch; None before the first minibatch.
            update: updates parameters and learning rate; called after each backward pass.
            generator: generator of random starts.

        Returns:
            The loss of each update, or this rank's share of it (scalars on the device), and the
            perturbation for the next minibatch, if any.
        """


@dataclass(frozen=True)
class Standard:
    """No adversary."""

    adversarial: ClassVar[bool] = False
    eps: ClassVar[float] = 0.0
    steps: ClassVar[int] = 0
    updates_per_batch: ClassVar[int] = 1

    def train_batch(
        self,
        net: Network,
        method: Method,
        batch: Batch,
        delta: Tensor | None,
        update: Update,
        generator: torch.Generator | None,
    ) -> tuple[list[Tensor], None]:
        """Update once on the loss of the clean target."""
        net.zero_grad(set_to_none=True)
        loss = method.train_loss(net, batch, method.target(batch))
        loss.backward()
        update()
        return [loss.detach()], None


@dataclass(frozen=True)
class Pgd:
    """Adversarial training: one update per minibatch, after a PGD attack that starts at zero.

    Attributes:
        eps: radius, in 1/255 (switch `pgd_eps`). Code: 8; a comment beside it in the script of
            EMP-SSL says 64 for CIFAR-10.
        step_size: in 1/255; 2.55 is the paper's 0.01.
        steps: steps of the attack.
        pgd_weight_grads: gradient of the update. `sum`: over all attack steps and the final pass,
            since the code clears gradients only before the attack (code); `final`: of the final
            pass only (paper).
        attack_batchnorm: batch norm during the attack. `updating`: train mode, every attack step
            updates the running statistics (code); `frozen`: train mode, the running statistics stay
            as they are; `eval`: running statistics are used.
    """

    eps: float = switch(
        8.0,
        ge=0,
        le=255,
        name="pgd_eps",
        code={"emp_ssl": (8.0, 64.0), "simclr": (8.0,)},
        paper=(8.0,),
    )
    step_size: float = option(2.55, gt=0, le=255)
    steps: int = option(5, ge=1)
    pgd_weight_grads: Literal["sum", "final"] = switch("sum", code=("sum",), paper=("final",))
    attack_batchnorm: Literal["updating", "frozen", "eval"] = switch("updating", code=("updating",))
    adversarial: ClassVar[bool] = True
    updates_per_batch: ClassVar[int] = 1

    def train_batch(
        self,
        net: Network,
        method: Method,
        batch: Batch,
        delta: Tensor | None,
        update: Update,
        generator: torch.Generator | None,
    ) -> tuple[list[Tensor], None]:
        """Attack, then update once on the loss of the attacked target."""
        net.zero_grad(set_to_none=True)
        summed = self.pgd_weight_grads == "sum"
        with (
            attack_mode(net, self.attack_batchnorm),
            contextlib.nullcontext() if summed else runtime.frozen(net),
        ):
            adversarial = pgd(
                method.attack_loss(net, batch),
                method.target(batch),
                eps=in_pixels(self.eps),
                step_size=in_pixels(self.step_size),
                steps=self.steps,
                parameter_grads=summed,
            )
        loss = method.train_loss(net, batch, adversarial)
        loss.backward()
        update()
        return [loss.detach()], None


@dataclass(frozen=True)
class Free:
    """Free adversarial training: in each of m replays, one backward pass serves both sides.

    Attributes:
        replays: m; each replay updates the parameters.
        eps: radius, in 1/255.
        step_size: step size of the perturbation, in 1/255 (switch `free_step_size`). Code: 2.55
            (0.01); Algorithm 1: eps.
        delta_lifetime: `run`: one perturbation per batch slot, carried through all minibatches
            (code); `minibatch`: a new one for each minibatch.
        delta_start: start of a perturbation, `zero` (code) or `uniform` in the ball.
        delta_first_clip: whether x + delta is clipped to [0, 1] also in the first replay of a
            minibatch, when delta is new or comes from another minibatch. Code: false.
    """

    replays: int = option(3, ge=1)
    eps: float = option(8.0, ge=0, le=255)
    step_size: float = switch(2.55, gt=0, le=255, name="free_step_size", code=(2.55,), paper=(8.0,))
    delta_lifetime: Literal["run", "minibatch"] = switch("run", code=("run",))
    delta_start: Literal["zero", "uniform"] = switch("zero", code=("zero",))
    delta_first_clip: bool = switch(False, code=(False,))
    adversarial: ClassVar[bool] = True
    steps: ClassVar[int] = 0  # the backward pass of the update also moves the perturbation

    @property
    def updates_per_batch(self) -> int:
        """One per replay."""
        return self.replays

    def train_batch(
        self,
        net: Network,
        method: Method,
        batch: Batch,
        delta: Tensor | None,
        update: Update,
        generator: torch.Generator | None,
    ) -> tuple[list[Tensor], Tensor]:
        """Replay the minibatch m times: minimise over parameters, maximise over delta."""
        target, eps = method.target(batch), in_pixels(self.eps)
        fresh = delta is None or self.delta_lifetime == "minibatch"
        if fresh:
            delta = torch.zeros_like(target)
            if self.delta_start == "uniform":  # each rank draws for all ranks, and keeps its part
                whole = distributed.empty_gathered(target).uniform_(-eps, eps, generator=generator)
                delta = distributed.part(whole)
        assert delta is not None
        if self.delta_first_clip:
            delta = (target + delta).clamp(0, 1) - target
        losses = []
        for _ in range(self.replays):
            net.zero_grad(set_to_none=True)
            delta = delta.detach().requires_grad_()
            loss = method.train_loss(net, batch, target + delta)
            loss.backward()
            assert delta.grad is not None
            gradient = delta.grad
            update()
            delta = ascend(
                delta.detach(), target, gradient, eps=eps, step_size=in_pixels(self.step_size)
            )
            losses.append(loss.detach())
        return losses, delta


@contextlib.contextmanager
def attack_mode(net: nn.Module, batchnorm: str) -> Iterator[None]:
    """Set the batch norm of a network for attacks inside a block, and restore it afterwards.

    Args:
        net: network in train mode.
        batchnorm: `updating`, `frozen` or `eval`, as in `Pgd.attack_batchnorm`.
    """
    if batchnorm == "updating":
        yield
    elif batchnorm == "eval":
        net.eval()
        try:
            yield
        finally:
            net.train()
    else:
        saved = [buffer.clone() for buffer in net.buffers()]
        try:
            yield
        finally:
            for buffer, value in zip(net.buffers(), saved, strict=True):
                buffer.copy_(value)


def passes_over_data(epochs: int, meaning: str, replays: int, views: int) -> int:
    """Return the number of passes over the training set.

    Args:
        epochs: value in the study.
        meaning: `passes`: epochs are passes; `replays`: N epochs are N/m passes; `views`: N/(C m)
            passes.
        replays: updates per minibatch, m.
        views: views per image, C.

    Returns:
        At least 1; fractions are rounded.
    """
    divisor = {"passes": 1, "replays": replays, "views": replays * views}[meaning]
    return max(1, round(epochs / divisor))


REGIMES: dict[str, type[Regime]] = {"standard": Standard, "pgd": Pgd, "free": Free}
