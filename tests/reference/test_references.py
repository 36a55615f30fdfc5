"""The references reproduce the published code's numbers; their gradients are their slopes."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import torch

from . import published_training, references
from .published_training import PublishedEmp, PublishedSimClr, Run
from .recorded import (
    LOSS_TOLERANCE,
    TRAIN_TOLERANCE,
    Arrays,
    assert_all_near,
    assert_near,
    load,
    minibatches,
    outcome,
)
from .references import Array, ValueAndGradient
from .tiny_network import gradients, network, state

NETWORK_FILES = [
    f"{method}_{regime}_train" for method in ("emp", "simclr") for regime in ("std", "pgd", "free")
]


@pytest.mark.parametrize("case", ["a", "b"])
def test_the_emp_loss_and_its_gradient_are_those_of_the_published_code(case: str) -> None:
    recorded = load("emp_loss")
    z = recorded[f"{case}_z"]
    value, gradient = references.emp_ssl(z)
    assert_near(value, recorded[f"{case}_loss"], LOSS_TOLERANCE, floor=0)
    assert_near(gradient, recorded[f"{case}_grad_z"], LOSS_TOLERANCE, floor=0)
    invariance, _ = references.invariance_cosine(z)
    rate, _ = references.total_coding_rate(z, eps=0.2)
    assert_near(invariance, recorded[f"{case}_loss_inv"], LOSS_TOLERANCE, floor=0)
    assert_near(rate, recorded[f"{case}_loss_tcr"], LOSS_TOLERANCE, floor=0)


@pytest.mark.parametrize("case", ["t007", "t05"])
def test_nt_xent_and_its_gradient_are_those_of_the_published_code(case: str) -> None:
    recorded = load("simclr_loss")
    value, gradient = references.nt_xent(
        np.stack([recorded["z1"], recorded["z2"]]),
        temperature=float(recorded[f"{case}_temperature"]),
        base_temperature=float(recorded["base_temperature"]),
    )
    assert_near(value, recorded[f"{case}_loss"], LOSS_TOLERANCE, floor=0)
    expected = np.stack([recorded[f"{case}_grad_z1"], recorded[f"{case}_grad_z2"]])
    assert_near(gradient, expected, LOSS_TOLERANCE, floor=0)


@pytest.mark.parametrize(
    "loss",
    [
        references.invariance_cosine,
        references.invariance_trace,
        partial(references.total_coding_rate, eps=0.2),
        partial(references.nt_xent, temperature=0.5),
        partial(references.nt_xent, temperature=0.3, base_temperature=0.07, with_self=True),
    ],
    ids=["cosine", "trace", "coding rate", "nt_xent", "nt_xent with self"],
)
def test_gradients_are_the_slopes_of_the_values(
    loss: Callable[[Array], ValueAndGradient],
) -> None:
    rng = np.random.default_rng(0)
    z, direction = rng.normal(size=(2, 4, 5)), rng.normal(size=(2, 4, 5))
    step = 1e-5
    slope = (loss(z + step * direction)[0] - loss(z - step * direction)[0]) / (2 * step)
    assert_near((loss(z)[1] * direction).sum(), slope, 1e-8)


@pytest.mark.parametrize("name", ["w2", "w4", "b1"])
def test_lars_steps_are_those_of_the_published_code(name: str) -> None:
    recorded = load("lars")
    parameter, buffer = recorded[f"init_{name}"], None
    for step, gradient in enumerate(recorded[f"grads_{name}"]):
        lr = references.cosine_lr(step, base=0.3, horizon=int(recorded["T_max"]))
        assert_near(lr, recorded["lr_used"][step], 1e-15)
        scaled = references.lars_gradient(
            parameter, gradient, lr=lr, weight_decay=1e-4, eta=0.005, eps=1e-8
        )
        assert_near(scaled, recorded[f"grad_scaled_{name}"][step], LOSS_TOLERANCE)
        parameter, buffer = references.lars_step(parameter, gradient, buffer, lr=lr)
        assert_near(parameter, recorded[f"after_{name}"][step], LOSS_TOLERANCE)
        assert_near(buffer, recorded[f"momentum_{name}"][step], LOSS_TOLERANCE)


def test_the_attack_is_that_of_the_published_code() -> None:
    recorded = load("emp_pgd_attack")
    net, views = network(recorded), torch.tensor(recorded["x"])
    run, method = Run(net, horizon=3), PublishedEmp()

    def gradient(images: Array) -> Array:
        leaf = torch.tensor(images, requires_grad=True)
        run.backward(method.train_outputs(net, views, leaf), method.loss)
        assert leaf.grad is not None
        return leaf.grad.numpy()

    delta = references.pgd(gradient, recorded["x"], eps=8 / 255, step_size=0.01, steps=5)
    assert_near(delta, recorded["delta_after_5"], 1e-15)
    expected = {k: v for k, v in recorded.items() if k.startswith(("after_", "grad_"))}
    actual = {f"after_{k}": v for k, v in state(net).items()}
    actual |= {f"grad_{k}": v for k, v in gradients(net).items()}
    assert_all_near(actual, expected, TRAIN_TOLERANCE)


@pytest.mark.parametrize("file", NETWORK_FILES)
def test_the_training_steps_are_those_of_the_published_code(file: str) -> None:
    recorded = load(file)
    run = train(file, recorded)
    assert_all_near(run.record, outcome(recorded), TRAIN_TOLERANCE)


def train(file: str, recorded: Arrays) -> Run:
    """Return the run of the reference loops on the minibatches of a recorded file."""
    method = PublishedEmp() if file.startswith("emp") else PublishedSimClr()
    loop = {
        "std": published_training.standard,
        "pgd": published_training.pgd,
        "free": published_training.free,
    }[file.split("_")[1]]
    run = Run(network(recorded), horizon=int(recorded["T_max"]))
    loop(run, method, minibatches(recorded))
    return run
