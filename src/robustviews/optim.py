"""Optimizers: SGD with layer-wise rates (LARS), and the learning rate of each update."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterable
from typing import Any, Literal

import torch
from torch import Tensor, nn


class _Eager:
    """Methods of torch's optimizers without the guards for `torch.compile`.

    A guard imports the compiler at its first call, which costs every process seconds.
    """

    add_param_group = inspect.unwrap(torch.optim.Optimizer.add_param_group)
    load_state_dict = inspect.unwrap(torch.optim.Optimizer.load_state_dict)
    state_dict = inspect.unwrap(torch.optim.Optimizer.state_dict)
    zero_grad = inspect.unwrap(torch.optim.Optimizer.zero_grad)


class Adam(_Eager, torch.optim.Adam):
    """torch's Adam, with a fast first step."""

    step = torch.no_grad()(inspect.unwrap(torch.optim.Adam.step))


class AdamW(_Eager, torch.optim.AdamW):
    """torch's AdamW, with a fast first step."""

    step = torch.no_grad()(inspect.unwrap(torch.optim.AdamW.step))


class Sgd(_Eager, torch.optim.SGD):
    """torch's SGD, with a fast first step."""

    step = torch.no_grad()(inspect.unwrap(torch.optim.SGD.step))


class Lbfgs(_Eager, torch.optim.LBFGS):
    """torch's L-BFGS with a line search, run to convergence by one call of `step`."""

    def __init__(self, params: Iterable[Tensor], *, iterations: int) -> None:
        super().__init__(
            params,
            max_iter=iterations,
            tolerance_grad=1e-7,
            tolerance_change=1e-12,
            line_search_fn="strong_wolfe",
        )

    step = torch.no_grad()(inspect.unwrap(torch.optim.LBFGS.step))


class Lars(_Eager, torch.optim.Optimizer):
    """SGD with Nesterov momentum; each gradient is rescaled to the norm of its parameter.

    The gradient is neither rescaled nor decayed for 1-d parameters (biases, batch norm), and for
    parameters that are zero or have a zero gradient. All parameters are updated together, without
    waiting for the device.

    Source: You et al. 2017; clipping and order of operations as in the reference code of arXiv
    2501.03507.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float,
        *,
        momentum: float = 0.9,
        weight_decay: float = 1e-4,
        eta: float = 0.005,
        eps: float = 1e-8,
        nesterov: bool = True,
    ) -> None:
        """Create the optimizer.

        Args:
            params: tensors to update, or groups of them.
            lr: learning rate; may change between steps in `param_groups`.
            momentum: factor of the previous step.
            weight_decay: L2 penalty inside the rescaled gradient.
            eta: trust coefficient: rescaled gradients have about `eta` times the norm of the
                parameter.
            eps: keeps the ratio finite.
            nesterov: whether the momentum is Nesterov's, which looks one step ahead.
        """
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "weight_decay": weight_decay,
            "eta": eta,
            "eps": eps,
            "nesterov": nesterov,
        }
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Update every parameter that has a gradient."""
        loss = closure() if closure is not None else None
        for group in self.param_groups:
            params = [p for p in group["params"] if p.grad is not None]
            if params:
                self._update(params, group)
        return loss

    def _update(self, params: list[Tensor], group: dict[str, Any]) -> None:
        matrices = [i for i, p in enumerate(params) if p.ndim != 1]
        grads = [p.grad.detach().clone() for p in params if p.grad is not None]
        if matrices:
            scaled = _rescale([params[i] for i in matrices], [grads[i] for i in matrices], group)
            for i, grad in zip(matrices, scaled, strict=True):
                grads[i] = grad
        momentum = group["momentum"]
        fresh = [p for p in params if "momentum_buffer" not in self.state[p]]
        for p in fresh:
            self.state[p]["momentum_buffer"] = torch.zeros_like(p)
        buffers = [self.state[p]["momentum_buffer"] for p in params]
        torch._foreach_mul_(buffers, momentum)
        torch._foreach_add_(buffers, grads)
        steps = buffers
        if group["nesterov"]:
            torch._foreach_add_(grads, buffers, alpha=momentum)
            steps = grads
        torch._foreach_add_(params, steps, alpha=-group["lr"])


def _rescale(params: list[Tensor], grads: list[Tensor], group: dict[str, Any]) -> list[Tensor]:
    """Return r (g + decay p), where r = min(eta |p| / (|g| + decay |p| + eps) / lr, 1)."""
    decay, lr = group["weight_decay"], group["lr"]
    p_norms = torch.stack(torch._foreach_norm(params))
    g_norms = torch.stack(torch._foreach_norm(grads))
    ratio = group["eta"] * p_norms / (g_norms + decay * p_norms + group["eps"])
    # At lr = 0 the clipped ratio is 1: the momentum buffer then takes the gradient as it is.
    ratio = (ratio / lr).clamp(max=1.0) if lr > 0 else torch.ones_like(ratio)
    active = (p_norms > 0) & (g_norms > 0)
    ratios = torch.where(active, ratio, torch.ones_like(ratio)).unbind()
    decays = (decay * active.to(ratio.dtype)).unbind()
    decayed = torch._foreach_mul(params, decays)
    torch._foreach_add_(decayed, grads)
    torch._foreach_mul_(decayed, ratios)
    return list(decayed)


def slots(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Return the state of an optimizer by parameter number and name, such as `0.exp_avg`."""
    states = optimizer.state_dict()["state"].items()
    return {f"{number}.{name}": state[name] for number, state in states for name in state}


def set_slots_(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Restore the state that `slots` returned in a new optimizer of the same parameters."""
    states: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        number, _, name = key.partition(".")
        states.setdefault(int(number), {})[name] = value
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": states, "param_groups": groups})


def with_prefix(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors whose names start with a prefix, by their names without it."""
    return {name.removeprefix(prefix): tensors[name] for name in tensors if name.startswith(prefix)}


def learning_rate(
    base: float,
    *,
    schedule: Literal["cosine", "triangular", "constant"],
    horizon: Literal["minibatches", "updates"],
    minibatches: int,
    updates_per_batch: int,
    warmup: int = 0,
    warmup_lr: float = 0.0,
) -> Callable[[int], float]:
    """Return the learning rate as a function of the update, counted from 0.

    Args:
        base: initial rate.
        schedule: `cosine`, `triangular` or `constant`.
        horizon: unit of the schedule's length, minibatches or updates.
        minibatches: number in the whole training.
        updates_per_batch: m of free training, else 1.
        warmup: minibatches in which the rate rises linearly to `base`; the schedule follows.
        warmup_lr: rate at the start of the warm-up.
    """
    unit = updates_per_batch if horizon == "updates" else 1
    if warmup:
        rise = warmup * unit
        after = learning_rate(
            base,
            schedule=schedule,
            horizon=horizon,
            minibatches=minibatches - warmup,
            updates_per_batch=updates_per_batch,
        )

        def warmed(step: int) -> float:
            if step < rise:
                return warmup_lr + (base - warmup_lr) * step / rise
            return after(step - rise)

        return warmed
    if schedule == "constant":
        return lambda _: base
    length = minibatches * unit
    if schedule == "triangular":  # Wong et al. 2020: from zero to the rate and back
        return lambda step: base * (1 - abs(2 * step / length % 2 - 1))
    return lambda step: cosine_lr(step, base=base, horizon=length)


def cosine_lr(step: int, *, base: float, horizon: int) -> float:
    """Return the learning rate before update `step`, counted from 0.

    Args:
        step: updates so far.
        base: rate at step 0.
        horizon: updates until the rate is zero; then it rises again, as in the published schedule
            of free training, whose horizon counts minibatches while steps count replays.

    Source: Loshchilov, Hutter 2017, equation 5, without restarts.
    """
    return base * (1 + math.cos(math.pi * step / horizon)) / 2


def build_optimizer(
    network: nn.Module,
    *,
    name: Literal["lars", "sgd", "adam"],
    lr: float,
    momentum: float,
    weight_decay: float,
    eta: float,
    nesterov: bool = True,
    static: tuple[str, ...] = (),
) -> torch.optim.Optimizer:
    """Return the optimizer of a training; see `robustviews.study.Optimizer` for the options.

    Args:
        network: module whose parameters are trained, in the order of its parts.
        name: update rule; it and the following arguments are options of the study.
        lr: learning rate.
        momentum: factor of the previous step.
        weight_decay: L2 penalty.
        eta: trust coefficient of LARS.
        nesterov: whether the momentum is Nesterov's.
        static: parts of the network whose learning rate stays; their group has `static` true.
    """
    kept = [p for part in static for p in network.get_submodule(part).parameters()]
    numbers = {id(parameter) for parameter in kept}
    params: list[Any] = [p for p in network.parameters() if p.requires_grad]
    if kept:
        others = [p for p in params if id(p) not in numbers]
        params = [{"params": others}, {"params": kept, "static": True}]
    if name == "lars":
        return Lars(
            params, lr, momentum=momentum, weight_decay=weight_decay, eta=eta, nesterov=nesterov
        )
    if name == "sgd":
        ahead = nesterov and momentum > 0
        return Sgd(params, lr, momentum=momentum, weight_decay=weight_decay, nesterov=ahead)
    return Adam(params, lr, weight_decay=weight_decay)
