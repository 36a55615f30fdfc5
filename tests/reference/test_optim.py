"""LARS and the schedule against the recorded numbers and the numpy references."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from robustviews.optim import Lars, cosine_lr

from . import references
from .recorded import LOSS_TOLERANCE, assert_near, load
from .references import Array

Shape = tuple[int, ...]


def test_lars_steps_are_those_of_the_published_code() -> None:
    recorded = load("lars")
    names, horizon = ("w2", "w4", "b1"), int(recorded["T_max"])
    params = {n: torch.tensor(recorded[f"init_{n}"], requires_grad=True) for n in names}
    optimizer = Lars(params.values(), float(recorded["base_lr"]))
    for step in range(6):
        lr = cosine_lr(step, base=float(recorded["base_lr"]), horizon=horizon)
        optimizer.param_groups[0]["lr"] = lr
        assert_near(lr, recorded["lr_used"][step], 1e-15)
        for name, parameter in params.items():
            parameter.grad = torch.tensor(recorded[f"grads_{name}"][step])
        optimizer.step()
        for name, parameter in params.items():
            assert_near(parameter.detach(), recorded[f"after_{name}"][step], LOSS_TOLERANCE)
            buffer = optimizer.state[parameter]["momentum_buffer"]
            assert_near(buffer, recorded[f"momentum_{name}"][step], LOSS_TOLERANCE)


def test_the_optimizer_defaults_are_those_of_the_published_code() -> None:
    recorded = load("lars")
    defaults = Lars([torch.zeros(1, requires_grad=True)], 0.1).defaults
    for name in ("momentum", "weight_decay"):
        assert defaults[name] == float(recorded[name])
    assert defaults["eta"] == float(recorded["lars_eta"])
    assert defaults["eps"] == float(recorded["lars_eps"])


@pytest.mark.parametrize("lr", [0.3, 1e-3, 0.0], ids=["capped or not", "capped", "lr 0"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"momentum": 0.0},
        {"momentum": 0.5, "weight_decay": 0.01},
        {"weight_decay": 0.0, "eta": 0.1, "eps": 0.5},
    ],
    ids=str,
)
def test_lars_steps_are_those_of_the_reference(lr: float, options: dict[str, float]) -> None:
    rng = np.random.default_rng(0)
    shapes: list[Shape] = [(3, 4), (2, 3, 3, 3), (5,), (1, 1), (4, 2), (4, 2)]
    values = [rng.normal(size=shape) for shape in shapes]
    values[4][:] = 0.0  # a parameter that starts at zero keeps its gradient
    params = [torch.tensor(value, requires_grad=True) for value in values]
    buffers: list[Array | None] = [None] * len(values)
    optimizer = Lars(params, lr, **options)
    for step in range(3):
        for i, parameter in enumerate(params):
            size = 10.0 ** rng.integers(-3, 2)  # some capped, some not
            gradient = size * rng.normal(size=shapes[i])
            if i == 5 and step == 1:
                gradient[:] = 0.0
            parameter.grad = torch.tensor(gradient)
            values[i], buffers[i] = references.lars_step(
                values[i], gradient, buffers[i], lr=lr, **options
            )
        optimizer.step()
        for parameter, value, buffer in zip(params, values, buffers, strict=True):
            assert_near(parameter.detach(), value, LOSS_TOLERANCE)
            assert_near(optimizer.state[parameter]["momentum_buffer"], buffer, LOSS_TOLERANCE)


def test_each_parameter_group_has_its_own_options() -> None:
    value, gradient = np.full((2, 2), 2.0), np.full((2, 2), 0.5)
    params = [torch.tensor(value, requires_grad=True) for _ in range(2)]
    optimizer = Lars(params[:1], 0.3)
    optimizer.add_param_group({"params": params[1:], "lr": 0.01})
    for parameter in params:
        parameter.grad = torch.tensor(gradient)
    optimizer.step()
    for parameter, lr in zip(params, (0.3, 0.01), strict=True):
        expected, _ = references.lars_step(value, gradient, None, lr=lr)
        assert_near(parameter.detach(), expected, LOSS_TOLERANCE)


def test_a_parameter_without_gradient_is_not_changed() -> None:
    unused, used = (torch.ones(2, 2, requires_grad=True) for _ in range(2))
    used.grad = torch.ones(2, 2)
    Lars([unused, used], 0.3).step()
    assert torch.equal(unused, torch.ones(2, 2))
    assert not torch.equal(used, torch.ones(2, 2))


@pytest.mark.parametrize("shape", [(2, 2), (4,)], ids=["rescaled", "not rescaled"])
def test_a_step_does_not_change_the_gradients(shape: Shape) -> None:
    parameter = torch.ones(shape, requires_grad=True)
    parameter.grad = torch.full(shape, 3.0)
    Lars([parameter], 0.3).step()
    assert torch.equal(parameter.grad, torch.full(shape, 3.0))


def test_a_restored_optimizer_continues_as_if_never_interrupted() -> None:
    rng = np.random.default_rng(1)
    start, gradients = rng.normal(size=(3, 3)), rng.normal(size=(4, 3, 3))

    def steps(parameter: torch.Tensor, optimizer: Lars, part: Array) -> None:
        for gradient in part:
            parameter.grad = torch.tensor(gradient)
            optimizer.step()

    whole = torch.tensor(start, requires_grad=True)
    steps(whole, Lars([whole], 0.3), gradients)
    first = torch.tensor(start, requires_grad=True)
    stopped = Lars([first], 0.3)
    steps(first, stopped, gradients[:2])
    second = first.detach().clone().requires_grad_()
    resumed = Lars([second], 0.3)
    resumed.load_state_dict(stopped.state_dict())
    steps(second, resumed, gradients[2:])
    assert torch.equal(second, whole)


@pytest.mark.parametrize("step", [0, 1, 5, 10, 13, 20])
def test_the_schedule_is_that_of_the_reference(step: int) -> None:
    expected = references.cosine_lr(step, base=0.3, horizon=10)
    assert_near(cosine_lr(step, base=0.3, horizon=10), expected, 1e-15)


def test_the_schedule_falls_to_zero_at_the_horizon_and_rises_after() -> None:
    rates = [cosine_lr(step, base=0.3, horizon=8) for step in range(17)]
    assert rates[0] == 0.3
    assert rates[8] == 0.0
    assert_near(rates[16], 0.3, 1e-15)
    assert all(later < earlier for earlier, later in itertools.pairwise(rates[:9]))
    assert all(later > earlier for earlier, later in itertools.pairwise(rates[8:]))
