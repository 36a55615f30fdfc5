"""Regimes: how one minibatch becomes parameter updates, with or without an adversary.

A regime drives the method's losses on a network in train mode and calls `update` (optimizer and
schedule) after each backward pass. Perturbations live on the method's target, in pixel units.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal, Protocol

from robustviews.attacks import ascend, in_pixels, pgd
from robustviews.methods import Batch, Method
from robustviews.options import LazyModule, option

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from robustviews.machine import distributed, runtime
else:
    torch, nn = LazyModule("torch"), LazyModule("torch.nn")
    distributed, runtime = (
        LazyModule("robustviews.machine.distributed"),
        LazyModule("robustviews.machine.runtime"),
    )

Update = Callable[[], None]


class Regime(Protocol):
    """What a regime must offer; a row in `REGIMES` makes it a name for study files.

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
        """Updates that one minibatch becomes."""

    def train_batch(
        self,
        net: nn.Module,
        method: Method,
        batch: Batch,
        delta: Tensor | None,
        update: Update,
        generator: torch.Generator | None,
    ) -> tuple[list[Tensor], Tensor | None]:
        """Train on one minibatch.

        Args:
            net: network in train mode; maps images (N, 3, H, W) to what the method's loss takes.
            method: views and loss.
            batch: minibatch.
            delta: what the last minibatch handed on; None before the first.
            update: moves parameters and learning rate; called after each backward pass.
            generator: source of random starts.

        Returns:
            The loss of each update, or this rank's share of it (scalars, still on the device), and
            the perturbation to hand on, if any.
        """


@dataclass(frozen=True)
class Standard:
    """No adversary."""

    adversarial: ClassVar[bool] = False
    eps: ClassVar[float] = 0.0
    steps: ClassVar[int] = 0

    @property
    def updates_per_batch(self) -> int:
        """One."""
        return 1

    def train_batch(
        self,
        net: nn.Module,
        method: Method,
        batch: Batch,
        delta: Tensor | None,
        update: Update,
        generator: torch.Generator | None,
    ) -> tuple[list[Tensor], None]:
        """Descend the loss of the clean target once."""
        net.zero_grad(set_to_none=True)
        loss = method.train_loss(net, batch, method.target(batch))
        loss.backward()
        update()
        return [loss.detach()], None


@dataclass(frozen=True)
class Pgd:
    """Adversarial training: each minibatch is attacked by PGD from zero, then descended once.

    Attributes:
        eps: radius, in 1/255.
        step_size: in 1/255; 2.55 is the paper's 0.01.
        steps: of the attack.
        pgd_weight_grads: gradient that the update takes. `sum`: of all attack steps and the final
            pass, since the code clears gradients before the attack and never after (code); `final`:
            of the final pass alone (paper).
        attack_batchnorm: batch norm during the attack. `updating`: train mode, running statistics
            move with every attack step (code); `frozen`: train mode, they stay; `eval`: running
            statistics are used.
    """

    eps: float = option(8.0, ge=0, le=255)
    step_size: float = option(2.55, gt=0, le=255)
    steps: int = option(5, ge=1)
    pgd_weight_grads: Literal["sum", "final"] = "sum"
    attack_batchnorm: Literal["updating", "frozen", "eval"] = "updating"
    adversarial: ClassVar[bool] = True

    @property
    def updates_per_batch(self) -> int:
        """One."""
        return 1

    def train_batch(
        self,
        net: nn.Module,
        method: Method,
        batch: Batch,
        delta: Tensor | None,
        update: Update,
        generator: torch.Generator | None,
    ) -> tuple[list[Tensor], None]:
        """Attack, then descend the loss of the attacked target once."""
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
    """Free adversarial training: m replays, in each one backward pass for both sides.

    Attributes:
        replays: m; the parameters are updated in each.
        eps: radius, in 1/255.
        step_size: of the perturbation, in 1/255 (switch `free_step_size`). Code: 2.55 (0.01);
            Algorithm 1: eps.
        delta_lifetime: `run`: one perturbation for the batch slots, carried over all minibatches
            (code); `minibatch`: started afresh for each.
        delta_start: what a perturbation starts from, `zero` (code) or `uniform` in the ball.
        delta_first_clip: whether x + delta is clipped to [0, 1] also at the first replay of a
            minibatch, when delta still belongs to another one or is fresh. Code: false.
    """

    replays: int = option(3, ge=1)
    eps: float = option(8.0, ge=0, le=255)
    step_size: float = option(2.55, gt=0, le=255)
    delta_lifetime: Literal["run", "minibatch"] = "run"
    delta_start: Literal["zero", "uniform"] = "zero"
    delta_first_clip: bool = False
    adversarial: ClassVar[bool] = True
    steps: ClassVar[int] = 0  # the update's own backward pass moves the perturbation

    @property
    def updates_per_batch(self) -> int:
        """One a replay."""
        return self.replays

    def train_batch(
        self,
        net: nn.Module,
        method: Method,
        batch: Batch,
        delta: Tensor | None,
        update: Update,
        generator: torch.Generator | None,
    ) -> tuple[list[Tensor], Tensor]:
        """Replay the minibatch m times, descending in parameters and ascending in delta."""
        target, eps = method.target(batch), in_pixels(self.eps)
        fresh = delta is None or self.delta_lifetime == "minibatch"
        if fresh:
            delta = torch.zeros_like(target)
            if self.delta_start == "uniform":  # each rank draws for all, and keeps its own
                whole = distributed.room(target).uniform_(-eps, eps, generator=generator)
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
    """Put a network's batch norm into the state in which it is attacked, and back.

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
    """Return how often the training set is gone through.

    Args:
        epochs: as the study says.
        meaning: `passes`: epochs are passes; `replays`: N epochs are N/m passes; `views`: N/(C m)
            passes.
        replays: updates that a minibatch becomes, m.
        views: C.

    Returns:
        At least 1; fractions are rounded.
    """
    divisor = {"passes": 1, "replays": replays, "views": replays * views}[meaning]
    return max(1, round(epochs / divisor))


REGIMES: dict[str, type[Regime]] = {"standard": Standard, "pgd": Pgd, "free": Free}
