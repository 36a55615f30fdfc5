"""Losses of the self-supervised methods: recorded values, wrong variants, and invariants."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from robustviews.methods import METHODS, Method, swav, vicreg
from robustviews.methods import barlow_twins as barlow
from robustviews.methods.protocol import Heads, momentum
from robustviews.network import Network
from robustviews.projectors import Prototypes
from tests.reference.given import Given, leaves
from tests.reference.recorded import VECTORS

FOLDER = VECTORS / "ssl_losses"
SELF_SUPERVISED = [name for name, cls in METHODS.items() if not cls.supervised]
methods = pytest.mark.parametrize("name", SELF_SUPERVISED)


def recorded(name: str) -> dict[str, Tensor]:
    with np.load(FOLDER / f"{name}.npz") as file:
        return {key: torch.from_numpy(np.asarray(file[key])) for key in file.files}


@dataclass
class Case:
    """A recorded loss.

    Attributes:
        net: network that gives the recorded inputs.
        method: method with the recorded constants.
        loss: recorded loss.
        inputs: tensors (V, B, D) with gradient.
        gradients: recorded gradients; None: no gradient.
    """

    net: Given
    method: Method
    loss: Tensor
    inputs: list[Tensor] = field(default_factory=list)
    gradients: list[Tensor | None] = field(default_factory=list)

    def value(self, method: Method | None = None) -> Tensor:
        batch = self.net.batch()
        return (method or self.method).train_loss(self.net, batch, batch.views[1])


def of_projections(name: str, **options: Any) -> Case:
    """Return the case of a method whose loss needs projections only."""
    given = recorded(name)
    z = leaves(given["z1"], given["z2"])
    gradient = torch.stack([given["grad_z1"], given["grad_z2"]])
    return Case(Given(z), METHODS[name](**options), given["loss"], [z], [gradient])


def of_simclr(temperature: float) -> Case:
    given, key = recorded("simclr"), f"T0_{temperature * 10:.0f}"
    z = leaves(given["z1"], given["z2"])
    method = METHODS["simclr"](simclr_temperature=temperature, simclr_base_temperature=None)
    gradient = torch.stack([given[f"grad_z1_{key}"], given[f"grad_z2_{key}"]])
    return Case(Given(z), method, given[f"loss_{key}"], [z], [gradient])


def of_byol() -> Case:
    given = recorded("byol")
    p, t = leaves(given["p1"], given["p2"]), leaves(given["z1_target"], given["z2_target"])
    gradient = torch.stack([given["grad_p1"], given["grad_p2"]])
    net = Given(p.detach(), p, t.detach())
    return Case(net, METHODS["byol"](), given["loss"], [p], [gradient])


def of_simsiam() -> Case:
    given = recorded("simsiam")
    p, z = leaves(given["p1"], given["p2"]), leaves(given["z1"], given["z2"])
    gradient = torch.stack([given["grad_p1"], given["grad_p2"]])
    return Case(Given(z, p), METHODS["simsiam"](), given["loss"], [p, z], [gradient, None])


def of_moco(temperature: float, key: str) -> Case:
    given = recorded("moco_v3")
    q, k = leaves(given["q1"], given["q2"]), torch.stack([given["k1"], given["k2"]])
    gradient = torch.stack([given[f"grad_q1_{key}"], given[f"grad_q2_{key}"]])
    method = METHODS["moco_v3"](temperature=temperature)
    return Case(Given(q.detach(), q, k), method, given[f"loss_{key}"], [q], [gradient])


def of_swav(key: str) -> Case:
    given = recorded("swav")
    count = 3 if key == "multi" else 2
    scores, queue = given["scores"][:count].clone().requires_grad_(), given["queue"]
    net = Given(given["z"][:count], scores)
    options = {"queue": 0}
    if key == "queue":
        options = {"queue": queue.shape[1], "queue_epochs": 0}
        net.state["queue"] = queue
        looked_up = net.predict

        def predict(z: Tensor) -> Tensor:
            of_queue = any(torch.equal(z, rows) for rows in queue)
            return z @ given["prototypes"].T if of_queue else looked_up(z)

        net.predict = predict  # type: ignore[method-assign]
    method = METHODS["swav"](**options)
    return Case(net, method, given[f"loss_{key}"], [scores], [given[f"grad_scores_{key}"]])


def of_dino(key: str) -> Case:
    given = recorded("dino")
    student = given["student"][: 2 if key == "two" else 4].clone().requires_grad_()
    net = Given(student.detach(), student, given["teacher"], center=given["center"].clone())
    net.epoch = 3
    method = METHODS["dino"](warmup_epochs=5)
    return Case(net, method, given[f"loss_{key}"], [student], [given[f"grad_student_{key}"]])


CASES: dict[str, Callable[[], Case]] = {
    "barlow_twins": lambda: of_projections("barlow_twins", loss_scale=1.0),
    "vicreg": lambda: of_projections("vicreg"),
    "simclr .2": lambda: of_simclr(0.2),
    "simclr .5": lambda: of_simclr(0.5),
    "byol": of_byol,
    "simsiam": of_simsiam,
    "moco_v3 .2": lambda: of_moco(0.2, "T0_2"),
    "moco_v3 1": lambda: of_moco(1.0, "T1_0"),
    "swav two": lambda: of_swav("two"),
    "swav multi": lambda: of_swav("multi"),
    "swav queue": lambda: of_swav("queue"),
    "dino two": lambda: of_dino("two"),
    "dino multi": lambda: of_dino("multi"),
}


@pytest.mark.parametrize("name", CASES)
def test_losses_and_gradients_are_those_of_the_public_code(name: str) -> None:
    case = CASES[name]()
    loss = case.value()
    torch.testing.assert_close(loss, case.loss, rtol=0, atol=1e-12)
    loss.backward()  # type: ignore[no-untyped-call]
    for value, gradient in zip(case.inputs, case.gradients, strict=True):
        if gradient is None:
            assert value.grad is None or not value.grad.any()
        else:
            torch.testing.assert_close(value.grad, gradient, rtol=0, atol=1e-10)


def test_every_method_of_several_views_has_a_recorded_loss() -> None:
    assert {name.partition(" ")[0] for name in CASES} == {*SELF_SUPERVISED} - {"emp_ssl"}


def turned(case: Case) -> float:
    """Return the loss that pairs each view with itself."""
    assert case.net.t is not None
    case.net.t = case.net.t.flip(0)
    return case.value().item()


def patched(module: Any, name: str, other: Callable[..., Tensor]) -> Callable[[Case], float]:
    """Return the loss with another function of a module in place of its own."""

    def value(case: Case) -> float:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(module, name, other)
            return case.value().item()

    return value


def with_center(center: Callable[[Case], Tensor]) -> Callable[[Case], float]:
    def value(case: Case) -> float:
        case.net.state["center"] = center(case)
        return case.value().item()

    return value


def unbiased(z: Tensor) -> Tensor:
    return (z - z.mean(0)) / (z.var(0) + 1e-5).sqrt()


def biased(z: Tensor) -> Tensor:
    return torch.relu(1 - (z.var(0, correction=0) + 1e-4).sqrt()).mean()


def soft(scores: Tensor, *, epsilon: float, iterations: int) -> Tensor:
    assert iterations
    return torch.softmax(scores / epsilon, dim=1)


def present(case: Case) -> Tensor:
    assert case.net.t is not None
    return case.net.t.mean(dim=(0, 1))[None]


WRONG: dict[str, tuple[str, Callable[[Case], float]]] = {
    "unbiased deviation": ("barlow_twins", patched(barlow, "_standardised", unbiased)),
    "biased deviation": ("vicreg", patched(vicreg, "_hinge", biased)),
    "sum of variances": (
        "vicreg",
        lambda case: case.value(METHODS["vicreg"](variance=50.0)).item(),
    ),
    "byol: own view": ("byol", turned),
    "moco: own view": ("moco_v3 .2", turned),
    "dino: own view": ("dino two", turned),
    "one iteration": (
        "swav two",
        lambda case: case.value(METHODS["swav"](queue=0, iterations=1)).item(),
    ),
    "softmax": ("swav two", patched(swav, "sinkhorn", soft)),
    "no center": ("dino two", with_center(lambda case: 0 * case.net.state["center"])),
    "present center": ("dino two", with_center(present)),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_wrong_variants_have_another_loss(wrong: str) -> None:
    name, value = WRONG[wrong]
    case = CASES[name]()
    assert abs(value(case) - case.loss.item()) > 1e-4


def test_the_recorded_loss_of_a_sum_of_variances_is_that_of_twice_the_weight() -> None:
    case = CASES["vicreg"]()
    summed = recorded("vicreg")["loss_solo_variance_summed"]
    torch.testing.assert_close(
        case.value(METHODS["vicreg"](variance=50.0)), summed, rtol=0, atol=1e-12
    )


# Invariants

B, D = 6, 5


def random_net(name: str, *, views: int = 2) -> Given:
    """Return a network with random projections, a linear predictor or prototypes, and targets."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        z = torch.randn(views, B, D, dtype=torch.float64)
        scored = name in ("swav", "dino")
        predict = Prototypes(D, 7) if scored else nn.Linear(D, D, bias=False)
        t = torch.randn(2, B, 7 if scored else D, dtype=torch.float64)
    return Given(z, predict.double(), t, center=torch.zeros(1, 7, dtype=torch.float64))


def small(name: str) -> Method:
    return METHODS[name](**({"queue": 0} if name == "swav" else {}))


def loss_of(name: str, net: Given) -> Tensor:
    method, batch = small(name), net.batch()
    adversarial = method.target(batch)
    return method.train_loss(net, batch, adversarial)


@methods
def test_swapping_views_or_permuting_images_leaves_the_loss(name: str) -> None:
    net = random_net(name)
    expected = loss_of(name, net)
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    assert net.t is not None
    for z, t in ((net.z.flip(0), net.t.flip(0)), (net.z[:, order], net.t[:, order])):
        net.z, net.t, moved = z, t, Given(z, net.p, t, **net.state)
        torch.testing.assert_close(loss_of(name, moved), expected, rtol=0, atol=1e-10)


@methods
def test_pairing_other_images_changes_the_loss(name: str) -> None:
    net = random_net(name)
    expected = loss_of(name, net)
    net.z = torch.stack([net.z[0], net.z[1].roll(1, dims=0)])
    assert (loss_of(name, net) - expected).abs() > 1e-3


@methods
def test_only_vicreg_depends_on_the_scale_of_projections(name: str) -> None:
    net = random_net(name)
    expected = loss_of(name, net)
    net.z = 3 * net.z
    difference = (loss_of(name, net) - expected).abs()
    assert (difference < 1e-4) == (name != "vicreg"), difference  # eps of Barlow Twins


COLLAPSED = {
    "barlow_twins": ({"loss_scale": 1.0}, D),
    "vicreg": ({"invariance": 0.0, "covariance": 0.0}, 25 * 0.99),
    "simsiam": ({}, -1.0),
    "byol": ({}, 0.0),
}


@pytest.mark.parametrize("name", COLLAPSED)
def test_the_loss_of_equal_projections_is_known(name: str) -> None:
    options, expected = COLLAPSED[name]
    z = torch.ones(2, B, D, dtype=torch.float64)
    net = Given(z, lambda z: z, z)
    batch = net.batch()
    loss = METHODS[name](**options).train_loss(net, batch, batch.views[1])
    assert loss.item() == pytest.approx(expected, abs=1e-9)


# Teachers, codes and centers


def follower() -> Network:
    given = recorded("ema")
    encoder = nn.Linear(3, 2, bias=False).double()
    with torch.no_grad():
        encoder.weight.copy_(given["start"])
    net = Network(encoder, Heads(), teacher=("encoder",), state={})  # type: ignore[arg-type]
    with torch.no_grad():
        encoder.weight.copy_(given["online"])
    return net


def test_a_teacher_follows_as_recorded() -> None:
    given, net = recorded("ema"), follower()
    for step, (tau, state) in enumerate(zip(given["taus"], given["states"], strict=True)):
        assert momentum(0.99, step / 5) == pytest.approx(tau.item(), abs=1e-12)
        net.follow(momentum(0.99, step / 5))
        actual = net.teacher["encoder"].weight
        torch.testing.assert_close(actual, state, rtol=0, atol=1e-12)


def test_a_momentum_of_one_never_moves_and_of_zero_copies() -> None:
    given, net = recorded("ema"), follower()
    net.follow(1.0)
    assert torch.equal(net.teacher["encoder"].weight, given["start"])
    net.follow(0.0)
    assert torch.equal(net.teacher["encoder"].weight, given["online"])


@pytest.mark.parametrize("key", ["two", "queue"])
def test_codes_are_those_of_the_public_code(key: str) -> None:
    given = recorded("swav")
    for view, codes in enumerate(given[f"codes_{key}"]):
        scores = given["scores"][view]
        if key == "queue":
            scores = torch.cat((given["queue"][view] @ given["prototypes"].T, scores))
        actual = swav.sinkhorn(scores, epsilon=0.05, iterations=3)
        torch.testing.assert_close(actual[-8:], codes, rtol=0, atol=1e-12)


def test_sinkhorn_gives_images_one_share_and_prototypes_equal_shares() -> None:
    generator = torch.Generator().manual_seed(0)
    scores = torch.rand(30, 6, dtype=torch.float64, generator=generator)
    codes = swav.sinkhorn(scores, epsilon=0.5, iterations=3)
    torch.testing.assert_close(codes.sum(1), torch.ones(30).double(), rtol=0, atol=1e-12)
    torch.testing.assert_close(codes.sum(0), torch.full((6,), 5.0).double(), rtol=0.01, atol=0)
    rows, columns = torch.randperm(30, generator=generator), torch.randperm(6, generator=generator)
    moved = swav.sinkhorn(scores[rows][:, columns], epsilon=0.5, iterations=3)
    torch.testing.assert_close(moved, codes[rows][:, columns], rtol=0, atol=1e-12)
    equal = swav.sinkhorn(torch.ones(4, 8), epsilon=0.05, iterations=3)
    torch.testing.assert_close(equal, torch.full((4, 8), 1 / 8))


def test_a_queue_holds_the_latest_projections_of_each_view_first() -> None:
    net = random_net("swav")
    net.state["queue"] = torch.zeros(2, 8, D, dtype=torch.float64)
    method, batch = METHODS["swav"](queue=8), net.batch()
    method.train_loss(net, batch, batch.views[1])
    method.after_step(net, batch, 0.0)
    unit = nn.functional.normalize(net.z, dim=-1)
    assert torch.equal(net.state["queue"][:, :B], unit)
    assert not net.state["queue"][:, B:].any()
    net.z = -net.z
    method.train_loss(net, batch, batch.views[1])
    method.after_step(net, batch, 0.0)
    assert torch.equal(net.state["queue"], torch.cat((-unit, unit), dim=1)[:, :8])


def test_a_center_moves_as_recorded_and_converges_to_a_constant_teacher() -> None:
    case = CASES["dino two"]()
    net, method = case.net, case.method
    method.after_step(net, net.batch(), 0.0)
    expected = recorded("dino")["next_center"]
    torch.testing.assert_close(net.state["center"], expected, rtol=0, atol=1e-12)
    net.t = torch.full((2, 8, 6), 3.0, dtype=torch.float64)
    for _ in range(200):
        method.after_step(net, net.batch(), 0.0)
    torch.testing.assert_close(net.state["center"], torch.full((1, 6), 3.0).double())


def test_the_temperature_of_a_teacher_is_that_of_the_public_code() -> None:
    schedule = recorded("dino")["temperature_schedule"]
    method = METHODS["dino"](warmup_epochs=5)
    actual = [method._teacher_temperature(epoch) for epoch in range(len(schedule))]  # type: ignore[attr-defined]
    assert actual == pytest.approx(schedule.tolist(), abs=1e-12)
