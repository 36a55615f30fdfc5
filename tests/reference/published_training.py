"""The training steps of the published code as plain loops, with every switch that a variant needs.

The network's own derivative is torch's; loss, optimiser, schedule and perturbation are those of
`references.py`. The defaults are the rules of `vectors/README.md`; `test_references.py` compares
them with the numbers there.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from . import references
from .references import Array, ValueAndGradient
from .tiny_network import TinyNetwork, gradients, recorded_name, state

EPS, STEP_SIZE = 8 / 255, 0.01
Outputs = list[Tensor]


class PublishedMethod(Protocol):
    """What the loops need of a method; `views` is (V, B, 3, H, W)."""

    def target(self, views: Tensor) -> Tensor:
        """Return the images that are perturbed."""

    def train_outputs(self, net: TinyNetwork, views: Tensor, adversarial: Tensor) -> Outputs:
        """Return the inputs of the training loss, one (B, D) per view."""

    def attack_outputs(self, net: TinyNetwork, views: Tensor) -> Callable[[Tensor], Outputs]:
        """Return the inputs of the adversary's loss, as a function of the perturbed images."""

    def loss(self, z: Array) -> ValueAndGradient:
        """Return the loss of z (V, B, D) and its gradient."""


@dataclass(frozen=True)
class PublishedEmp:
    """EMP-SSL: all views in one pass, all of them perturbed."""

    kind: str = "cosine"
    scale: str = "weighted_mean"
    tcr_eps: float = 0.2

    def target(self, views: Tensor) -> Tensor:
        """Return all views."""
        return views

    def train_outputs(self, net: TinyNetwork, views: Tensor, adversarial: Tensor) -> Outputs:
        """Return the embeddings of each view, from one pass with one view after the other."""
        return list(net(torch.cat(list(adversarial))).split(views.shape[1]))

    def attack_outputs(self, net: TinyNetwork, views: Tensor) -> Callable[[Tensor], Outputs]:
        """Return the training outputs."""
        return lambda adversarial: self.train_outputs(net, views, adversarial)

    def loss(self, z: Array) -> ValueAndGradient:
        """Return the EMP-SSL loss."""
        return references.emp_ssl(z, kind=self.kind, scale=self.scale, tcr_eps=self.tcr_eps)


@dataclass(frozen=True)
class PublishedSimClr:
    """SimCLR: one pass per view, only the second is perturbed."""

    temperature: float = 0.07
    base_temperature: float | None = 0.07
    with_self: bool = False
    train_pair: str = "views"
    attack_pair: str = "same_view"
    clean_branch: str = "recomputed"

    def target(self, views: Tensor) -> Tensor:
        """Return x2, or the un-augmented images, which the mean of the views replaces."""
        return views.mean(dim=0) if self.train_pair == "raw" else views[1]

    def train_outputs(self, net: TinyNetwork, views: Tensor, adversarial: Tensor) -> Outputs:
        """Return the embeddings of x1 (or clean x2) and of the perturbed target, in this order."""
        return [net(self._partner(views)), net(adversarial)]

    def attack_outputs(self, net: TinyNetwork, views: Tensor) -> Callable[[Tensor], Outputs]:
        """Return the embeddings of the clean target or training partner, and of the perturbed."""
        clean = self.target(views) if self.attack_pair == "same_view" else self._partner(views)
        if self.clean_branch == "recomputed":
            return lambda adversarial: [net(clean), net(adversarial)]
        once = net(clean).detach()
        return lambda adversarial: [once, net(adversarial)]

    def loss(self, z: Array) -> ValueAndGradient:
        """Return NT-Xent."""
        return references.nt_xent(
            z,
            temperature=self.temperature,
            base_temperature=self.base_temperature,
            with_self=self.with_self,
        )

    def _partner(self, views: Tensor) -> Tensor:
        return views[1] if self.train_pair == "same_view" else views[0]


class Run:
    """A network in training: momentum buffers, schedule, and a record of each update."""

    def __init__(self, net: TinyNetwork, *, horizon: int, weight_decay: float = 1e-4) -> None:
        self.net, self.horizon, self.weight_decay = net, horizon, weight_decay
        self.steps = 0  # of the schedule
        self.buffers: dict[str, Array] = {}
        self.record: dict[str, list[Any]] = defaultdict(list)

    def backward(
        self, outputs: Outputs, loss: Callable[[Array], ValueAndGradient]
    ) -> tuple[float, Array]:
        """Add the loss's gradient to parameters and images; return the loss and z (V, B, D)."""
        z = np.stack([output.detach().numpy() for output in outputs])
        value, gradient = loss(z)
        for output, g in zip(outputs, gradient, strict=True):
            if output.requires_grad:
                output.backward(torch.tensor(g), retain_graph=True)
        return value, z

    def update(
        self, loss: float, z: Array, adversarial: Tensor, *, step_schedule: bool = True
    ) -> None:
        """Step the optimiser and the schedule, and record."""
        lr = references.cosine_lr(self.steps, base=0.3, horizon=self.horizon)
        grads = gradients(self.net)
        for name, parameter in self.net.named_parameters():
            key = recorded_name(name)
            after, self.buffers[key] = references.lars_step(
                parameter.detach().numpy(),
                grads[key],
                self.buffers.get(key),
                lr=lr,
                weight_decay=self.weight_decay,
            )
            parameter.data.copy_(torch.tensor(after))
            self.record[f"grad_{key}"].append(grads[key])
            self.record[f"momentum_{key}"].append(self.buffers[key])
        for key, value in state(self.net).items():
            self.record[f"after_{key}"].append(value)
        self.steps += step_schedule
        self.record["lr_used"].append(lr)
        lr_after = references.cosine_lr(self.steps, base=0.3, horizon=self.horizon)
        self.record["lr_after"].append(lr_after)
        self.record["loss"].append(loss)
        self.record["x_adv_min"].append(float(adversarial.min()))
        self.record["x_adv_max"].append(float(adversarial.max()))
        self.record["loss_inv"].append(references.invariance_cosine(z)[0])
        self.record["loss_tcr"].append(references.total_coding_rate(z, eps=0.2)[0])


@contextmanager
def attack_mode(net: TinyNetwork, batchnorm: str) -> Iterator[None]:
    """Attack with statistics that are updated, restored afterwards, or only used."""
    before = {name: buffer.clone() for name, buffer in net.named_buffers()}
    net.train(batchnorm != "eval")
    yield
    net.train()
    if batchnorm == "frozen":
        for name, buffer in net.named_buffers():
            buffer.copy_(before[name])


def standard(run: Run, method: PublishedMethod, minibatches: Tensor) -> None:
    """Train on clean views; `minibatches` is (minibatches, V, B, 3, H, W)."""
    for views in minibatches:
        run.net.zero_grad()
        target = method.target(views)
        outputs = method.train_outputs(run.net, views, target)
        run.update(*run.backward(outputs, method.loss), target)


def pgd(
    run: Run,
    method: PublishedMethod,
    minibatches: Tensor,
    *,
    weight_grads: str = "sum",
    batchnorm: str = "updating",
    steps: int = 5,
    step_size: float = STEP_SIZE,
) -> None:
    """Train on each minibatch after five steps of ascent."""
    for views in minibatches:
        run.net.zero_grad()
        target = method.target(views)
        delta = np.zeros(target.shape)
        with attack_mode(run.net, batchnorm):
            outputs_of = method.attack_outputs(run.net, views)
            for k in range(steps):
                adversarial = (target + torch.tensor(delta)).requires_grad_()
                run.backward(outputs_of(adversarial), method.loss)
                delta = _ascend(delta, target, adversarial, step_size=step_size)
                run.record[f"delta_after_{k + 1}"].append(delta)
        if weight_grads == "final":
            run.net.zero_grad()
        adversarial = target + torch.tensor(delta)
        outputs = method.train_outputs(run.net, views, adversarial)
        run.record["delta"].append(delta)
        run.update(*run.backward(outputs, method.loss), adversarial)


def free(
    run: Run,
    method: PublishedMethod,
    minibatches: Tensor,
    *,
    replays: int = 3,
    step_size: float = STEP_SIZE,
    lifetime: str = "run",
    first_clip: bool = False,
    schedule: str = "update",
) -> None:
    """Train on each minibatch several times; the same gradient updates the carried delta."""
    delta = np.zeros(method.target(minibatches[0]).shape)
    for views, replay in itertools.product(minibatches, range(replays)):
        target = method.target(views)
        if replay == 0 and lifetime == "minibatch":
            delta = np.zeros(target.shape)
        if replay == 0 and first_clip:
            delta = np.clip(target.numpy() + delta, 0.0, 1.0) - target.numpy()
        run.net.zero_grad()
        adversarial = (target + torch.tensor(delta)).requires_grad_()
        outputs = method.train_outputs(run.net, views, adversarial)
        loss, z = run.backward(outputs, method.loss)
        step_schedule = schedule == "update" or replay == replays - 1
        run.update(loss, z, adversarial.detach(), step_schedule=step_schedule)
        delta = _ascend(delta, target, adversarial, step_size=step_size)
        run.record["delta_after"].append(delta)


def _ascend(delta: Array, target: Tensor, adversarial: Tensor, *, step_size: float) -> Array:
    assert adversarial.grad is not None
    return references.ascend(
        delta, target.numpy(), adversarial.grad.numpy(), eps=EPS, step_size=step_size
    )
