"""Whole training steps of the product against those of the published code, and every switch.

With the defaults of methods and regimes the product must give each recorded number. Any other value
of a switch must give those of the reference loops with that variant, and not the recorded ones.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from robustviews import losses
from robustviews.methods import Batch, EmpSsl, Method, SimClr
from robustviews.optim import Lars, cosine_lr
from robustviews.regimes import Free, Pgd, Regime, Standard

from . import published_training
from .published_training import PublishedEmp, PublishedSimClr, Run
from .recorded import (
    CLEARLY_DIFFERENT,
    TRAIN_TOLERANCE,
    Arrays,
    assert_all_near,
    differences,
    load,
    minibatches,
    outcome,
)
from .tiny_network import gradients, network, recorded_name, state

METHODS: dict[str, type[Method]] = {"emp": EmpSsl, "simclr": SimClr}
REGIMES: dict[str, type[Regime]] = {"std": Standard, "pgd": Pgd, "free": Free}
PUBLISHED = {"emp": PublishedEmp, "simclr": PublishedSimClr}
LOOPS: dict[str, Callable[..., None]] = {
    "std": published_training.standard,
    "pgd": published_training.pgd,
    "free": published_training.free,
}
FILES = [f"{method}_{regime}_train" for method in METHODS for regime in REGIMES]


class Trained:
    """A training with the product: results by the names in the recorded files."""

    def __init__(
        self, net: nn.Module, *, horizon: int, weight_decay: float = 1e-4, schedule: str = "update"
    ) -> None:
        self.net, self.horizon, self.schedule = net, horizon, schedule
        self.optimizer = Lars(net.parameters(), 0.3, weight_decay=weight_decay)
        self.updates = 0
        self.per_batch = 1
        self.record: dict[str, list[Any]] = defaultdict(list)
        self.passes: list[tuple[Tensor, Tensor]] = []
        net.register_forward_hook(self._remember)

    def _remember(self, module: nn.Module, inputs: tuple[Tensor], z: Tensor) -> None:
        self.passes.append((inputs[0].detach().clone(), z.detach()))

    def _rate(self) -> float:
        step = self.updates if self.schedule == "update" else self.updates // self.per_batch
        return cosine_lr(step, base=0.3, horizon=self.horizon)

    def update(self) -> None:
        """Step the optimizer and the schedule, and record."""
        self.optimizer.param_groups[0]["lr"] = self._rate()
        self.record["lr_used"].append(self._rate())
        for name, gradient in gradients(self.net).items():
            self.record[f"grad_{name}"].append(gradient)
        self.optimizer.step()
        self.updates += 1
        self.record["lr_after"].append(self._rate())
        for name, parameter in self.net.named_parameters():
            buffer = self.optimizer.state[parameter]["momentum_buffer"].numpy().copy()
            self.record[f"momentum_{recorded_name(name)}"].append(buffer)
        for name, value in state(self.net).items():
            self.record[f"after_{name}"].append(value)

    def train(self, method: Method, regime: Regime, data: Tensor) -> None:
        """Train on minibatches (count, V, B, 3, H, W); the views' mean replaces raw images."""
        self.per_batch = regime.updates_per_batch
        delta = None
        for views in data:
            batch = Batch(views.mean(dim=0), views, torch.zeros(views.shape[1], dtype=torch.int64))
            target = method.target(batch)
            before = len(self.record["loss"])
            self.passes.clear()
            values, delta = regime.train_batch(self.net, method, batch, delta, self.update, None)
            assert self.updates == before + len(values) == before + self.per_batch
            assert self.net.training
            assert all(parameter.requires_grad for parameter in self.net.parameters())
            assert not any(value.requires_grad for value in values)
            self.record["loss"] += [value.item() for value in values]
            self._record_passes(target, len(values), delta)

    def _record_passes(self, target: Tensor, updates: int, delta: Tensor | None) -> None:
        # One update is one or several passes; the perturbed target is the input of its last pass.
        step = len(self.passes) // updates
        last = self.passes[step - 1 :: step]
        adversarial = [images.view(target.shape) for images, _ in last]
        if delta is None:
            self.record["delta"].append((adversarial[-1] - target).numpy())
        else:  # the perturbation after a replay is the one that the next replay trains on
            after = [(images - target).numpy() for images in adversarial[1:]]
            self.record["delta_after"] += [*after, delta.detach().numpy().copy()]
        for images, (_, z) in zip(adversarial, last, strict=True):
            self.record["x_adv_min"].append(images.min())
            self.record["x_adv_max"].append(images.max())
            if target.dim() == 5:  # all views in one pass
                by_view = z.view(*target.shape[:2], -1)
                self.record["loss_inv"].append(losses.invariance(by_view))
                self.record["loss_tcr"].append(losses.total_coding_rate(by_view))


@pytest.mark.parametrize("file", FILES)
def test_training_steps_are_those_of_the_published_code(file: str) -> None:
    recorded = load(file)
    trained = Trained(network(recorded), horizon=int(recorded["T_max"]))
    method, regime, _ = file.split("_")
    trained.train(METHODS[method](), REGIMES[regime](), minibatches(recorded))
    assert_all_near(trained.record, outcome(recorded), TRAIN_TOLERANCE)


def test_the_recorded_arrays_are_all_compared() -> None:
    settings = {"T_max", "batch_size", "epochs", "base_lr", "momentum", "weight_decay", "lars_eta"}
    settings |= {"num_views", "w_inv", "w_tcr", "tcr_eps", "eps", "alpha", "steps", "m"}
    for file in FILES:
        recorded = load(file)
        start = {name for name in recorded if name.startswith("init_") or name in ("x", "x1", "x2")}
        assert set(recorded) - set(outcome(recorded)) - start <= settings | {"temperature"}


def test_stale_perturbations_leave_the_range_of_pixels_as_in_the_published_code() -> None:
    for file in ("emp_free_train", "simclr_free_train"):
        recorded = load(file)
        assert max(recorded["x_adv_max"][3], -recorded["x_adv_min"][3]) > 0
        outside = (recorded["x_adv_min"] < 0) | (recorded["x_adv_max"] > 1)
        assert outside[[3, 6]].any()
        assert not outside[[0, 1, 2, 4, 5, 7, 8]].any()


@dataclass(frozen=True)
class Switch:
    """One changed switch: its options for the product, and for the reference loops."""

    file: str
    method: dict[str, Any] = field(default_factory=dict)
    regime: dict[str, Any] = field(default_factory=dict)
    run: dict[str, Any] = field(default_factory=dict)
    published_method: dict[str, Any] = field(default_factory=dict)
    published_loop: dict[str, Any] = field(default_factory=dict)
    published_run: dict[str, Any] = field(default_factory=dict)


def simclr_switch(file: str, **options: Any) -> Switch:
    """Return a switch of SimCLR, which the reference has under the same name without the prefix."""
    return Switch(
        file, method={f"simclr_{k}": v for k, v in options.items()}, published_method=options
    )


SWITCHES = {
    "pgd_weight_grads=final": Switch(
        "emp_pgd_train",
        regime={"pgd_weight_grads": "final"},
        published_loop={"weight_grads": "final"},
    ),
    "pgd_weight_grads=final, simclr": Switch(
        "simclr_pgd_train",
        regime={"pgd_weight_grads": "final"},
        published_loop={"weight_grads": "final"},
    ),
    "attack_batchnorm=frozen": Switch(
        "emp_pgd_train",
        regime={"attack_batchnorm": "frozen"},
        published_loop={"batchnorm": "frozen"},
    ),
    "attack_batchnorm=eval": Switch(
        "simclr_pgd_train",
        regime={"attack_batchnorm": "eval"},
        published_loop={"batchnorm": "eval"},
    ),
    "attack_batchnorm=eval, once": Switch(
        "simclr_pgd_train",
        method={"simclr_clean_branch": "once"},
        regime={"attack_batchnorm": "eval", "pgd_weight_grads": "final"},
        published_method={"clean_branch": "once"},
        published_loop={"batchnorm": "eval", "weight_grads": "final"},
    ),
    "steps and step_size": Switch(
        "emp_pgd_train",
        regime={"steps": 2, "step_size": 5.1},
        published_loop={"steps": 2, "step_size": 0.02},
    ),
    "delta_lifetime=minibatch": Switch(
        "emp_free_train",
        regime={"delta_lifetime": "minibatch"},
        published_loop={"lifetime": "minibatch"},
    ),
    "delta_first_clip": Switch(
        "emp_free_train", regime={"delta_first_clip": True}, published_loop={"first_clip": True}
    ),
    "delta_first_clip, simclr": Switch(
        "simclr_free_train", regime={"delta_first_clip": True}, published_loop={"first_clip": True}
    ),
    "free_step_size=eps": Switch(
        "simclr_free_train", regime={"step_size": 8.0}, published_loop={"step_size": 8 / 255}
    ),
    "replays=2": Switch("emp_free_train", regime={"replays": 2}, published_loop={"replays": 2}),
    "schedule moves once a minibatch": Switch(
        "emp_free_train", run={"schedule": "minibatch"}, published_loop={"schedule": "minibatch"}
    ),
    "no weight decay in LARS": Switch(
        "emp_std_train", run={"weight_decay": 0.0}, published_run={"weight_decay": 0.0}
    ),
    "emp_invariance=trace": Switch(
        "emp_pgd_train", method={"emp_invariance": "trace"}, published_method={"kind": "trace"}
    ),
    "emp_scale=unit_sum": Switch(
        "emp_free_train", method={"emp_scale": "unit_sum"}, published_method={"scale": "unit_sum"}
    ),
    "tcr_eps": Switch(
        "emp_std_train", method={"tcr_eps": 0.04}, published_method={"tcr_eps": 0.04}
    ),
    "simclr_attack_pair": simclr_switch("simclr_pgd_train", attack_pair="train_pair"),
    "simclr_train_pair=same_view": simclr_switch("simclr_pgd_train", train_pair="same_view"),
    "simclr_train_pair=same_view, both": simclr_switch(
        "simclr_pgd_train", train_pair="same_view", attack_pair="train_pair"
    ),
    "simclr_train_pair=same_view, free": simclr_switch("simclr_free_train", train_pair="same_view"),
    "simclr_train_pair=raw": simclr_switch("simclr_pgd_train", train_pair="raw"),
    "simclr_clean_branch=once": simclr_switch("simclr_pgd_train", clean_branch="once"),
    "simclr_temperature": simclr_switch("simclr_free_train", temperature=0.5),
    "simclr_base_temperature": simclr_switch(
        "simclr_std_train", temperature=0.5, base_temperature=None
    ),
    "simclr_denominator": Switch(
        "simclr_pgd_train",
        method={"simclr_denominator": "with_self"},
        published_method={"with_self": True},
    ),
}


@pytest.mark.parametrize("switch", SWITCHES.values(), ids=SWITCHES)
def test_a_changed_switch_gives_the_reference_of_that_variant_and_not_the_recorded(
    switch: Switch,
) -> None:
    recorded = load(switch.file)
    method, regime, _ = switch.file.split("_")
    data, horizon = minibatches(recorded), int(recorded["T_max"])
    reference = Run(network(recorded), horizon=horizon, **switch.published_run)
    LOOPS[regime](
        reference, PUBLISHED[method](**switch.published_method), data, **switch.published_loop
    )
    trained = Trained(network(recorded), horizon=horizon, **switch.run)
    trained.train(METHODS[method](**switch.method), REGIMES[regime](**switch.regime), data)
    expected = {name: reference.record[name] for name in outcome(recorded)}
    assert_all_near(trained.record, expected, TRAIN_TOLERANCE)
    assert farthest(trained.record, recorded) > CLEARLY_DIFFERENT


def farthest(record: dict[str, list[Any]], recorded: Arrays) -> float:
    """Return the worst difference of any parameter or buffer that both have after their updates."""
    after = {name: array for name, array in outcome(recorded).items() if name.startswith("after_")}
    updates = min(len(record["loss"]), len(recorded["loss"]))
    actual = {name: record[name][:updates] for name in after}
    return max(differences(actual, {k: array[:updates] for k, array in after.items()}).values())


def first_targets(regime: Free, seed: int, data: Tensor) -> list[Tensor]:
    """Return delta at the first replay of each minibatch."""
    net = network(load("emp_free_train"))
    given: list[Tensor] = []
    net.register_forward_pre_hook(lambda _, inputs: given.append(inputs[0].detach()))
    generator, delta = torch.Generator().manual_seed(seed), None
    for views in data:
        batch = Batch(views[0], views, torch.zeros(views.shape[1], dtype=torch.int64))
        _, delta = regime.train_batch(net, EmpSsl(), batch, delta, lambda: None, generator)
    starts = given[:: regime.replays]
    return [x.view(views.shape) - views for x, views in zip(starts, data, strict=True)]


def test_a_uniform_start_fills_the_ball_only_at_the_first_minibatch_with_lifetime_run() -> None:
    data = minibatches(load("emp_free_train"))
    deltas = first_targets(Free(delta_start="uniform"), 0, data)
    again = first_targets(Free(delta_start="uniform"), 0, data)
    other = first_targets(Free(delta_start="uniform"), 1, data)
    eps = 8 / 255
    assert deltas[0].abs().max() <= eps + 1e-15
    assert deltas[0].min() < -0.95 * eps
    assert deltas[0].max() > 0.95 * eps
    assert torch.equal(deltas[0], again[0])
    assert not torch.equal(deltas[0], other[0])
    afresh = first_targets(Free(delta_start="uniform", delta_lifetime="minibatch"), 0, data)
    assert torch.equal(deltas[0], afresh[0])
    assert not torch.equal(afresh[0], afresh[1])
    # Most entries of a carried perturbation are on the surface of the ball.
    assert (deltas[1].abs() > 0.999 * eps).sum() > 5 * (afresh[1].abs() > 0.999 * eps).sum()
