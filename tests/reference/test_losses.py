"""The losses against the recorded numbers, the numpy references, and what their signs must mean."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor

from robustviews import losses

from . import references
from .recorded import LOSS_TOLERANCE, assert_near, load
from .references import Array, ValueAndGradient

Loss = Callable[[Tensor], Tensor]
Reference = Callable[[Array], ValueAndGradient]

PAIRS: dict[str, tuple[Loss, Reference]] = {
    "cosine": (losses.invariance, references.invariance_cosine),
    "trace": (partial(losses.invariance, kind="trace"), references.invariance_trace),
    "coding rate": (
        losses.total_coding_rate,
        partial(references.total_coding_rate, eps=0.2),
    ),
    "coding rate of the paper": (
        partial(losses.total_coding_rate, eps=0.04),
        partial(references.total_coding_rate, eps=0.04),
    ),
    "nt_xent": (losses.nt_xent, partial(references.nt_xent, temperature=0.07)),
    "nt_xent scaled": (
        partial(losses.nt_xent, temperature=0.5, base_temperature=0.07),
        partial(references.nt_xent, temperature=0.5, base_temperature=0.07),
    ),
    "nt_xent with self": (
        partial(losses.nt_xent, temperature=0.5, with_self=True),
        partial(references.nt_xent, temperature=0.5, with_self=True),
    ),
}


def value_and_gradient(loss: Loss, z: Array) -> tuple[float, Array]:
    """Return the loss of z and its gradient by torch."""
    leaf = torch.tensor(z, requires_grad=True)
    value = loss(leaf)
    value.backward()
    assert leaf.grad is not None
    return value.item(), leaf.grad.numpy()


def unit(z: Array) -> Array:
    """Return z with vectors of norm 1."""
    return np.asarray(z / np.linalg.norm(z, axis=-1, keepdims=True))


@pytest.mark.parametrize("case", ["a", "b"])
def test_emp_losses_are_those_of_the_published_code(case: str) -> None:
    recorded = load("emp_loss")
    z = recorded[f"{case}_z"]
    invariance, to_invariance = value_and_gradient(losses.invariance, z)
    rate, to_rate = value_and_gradient(losses.total_coding_rate, z)
    assert_near(invariance, recorded[f"{case}_loss_inv"], LOSS_TOLERANCE, floor=0)
    assert_near(rate, recorded[f"{case}_loss_tcr"], LOSS_TOLERANCE, floor=0)
    assert_near(200 * invariance + rate, recorded[f"{case}_loss"], LOSS_TOLERANCE, floor=0)
    gradient = 200 * to_invariance + to_rate
    assert_near(gradient, recorded[f"{case}_grad_z"], LOSS_TOLERANCE, floor=0)


@pytest.mark.parametrize("case", ["t007", "t05"])
def test_nt_xent_is_that_of_the_published_code(case: str) -> None:
    recorded = load("simclr_loss")
    loss = partial(
        losses.nt_xent,
        temperature=float(recorded[f"{case}_temperature"]),
        base_temperature=float(recorded["base_temperature"]),
    )
    value, gradient = value_and_gradient(loss, np.stack([recorded["z1"], recorded["z2"]]))
    expected = np.stack([recorded[f"{case}_grad_z1"], recorded[f"{case}_grad_z2"]])
    assert_near(value, recorded[f"{case}_loss"], LOSS_TOLERANCE, floor=0)
    assert_near(gradient, expected, LOSS_TOLERANCE, floor=0)


def test_nt_xent_without_base_temperature_is_not_scaled() -> None:
    recorded = load("simclr_loss")
    z = torch.tensor(np.stack([recorded["z1"], recorded["z2"]]))
    plain = losses.nt_xent(z, temperature=0.5).item()
    assert_near(plain * 0.5 / 0.07, recorded["t05_loss"], LOSS_TOLERANCE, floor=0)


@pytest.mark.parametrize("name", PAIRS)
@pytest.mark.parametrize("shape", [(2, 5, 9), (2, 9, 5), (2, 6, 6)])
def test_losses_equal_the_references(name: str, shape: tuple[int, int, int]) -> None:
    loss, reference = PAIRS[name]
    z = np.random.default_rng(1).normal(size=shape)
    z = unit(z) if "nt_xent" in name else z
    value, gradient = value_and_gradient(loss, z)
    expected_value, expected_gradient = reference(z)
    assert_near(value, expected_value, LOSS_TOLERANCE, floor=0)
    assert_near(gradient, expected_gradient, LOSS_TOLERANCE, floor=0)


@pytest.mark.parametrize("name", [name for name in PAIRS if "nt_xent" not in name])
@pytest.mark.parametrize("views", [1, 3, 7])
def test_emp_losses_take_any_number_of_views(name: str, views: int) -> None:
    loss, reference = PAIRS[name]
    z = unit(np.random.default_rng(2).normal(size=(views, 4, 8)))
    value, gradient = value_and_gradient(loss, z)
    assert_near(value, reference(z)[0], LOSS_TOLERANCE, floor=0)
    # With one view the cosine is 1 whatever z is: its gradient is 0, up to rounding.
    assert_near(gradient, reference(z)[1], LOSS_TOLERANCE, floor=1e-3)


def test_without_self_a_single_pair_has_no_alternative_and_loss_zero() -> None:
    z = torch.tensor(unit(np.random.default_rng(3).normal(size=(2, 1, 3))))
    assert_near(losses.nt_xent(z).item(), 0.0, 1e-14)
    assert losses.nt_xent(z, with_self=True).item() > 0.1


# What a lower loss must mean: a sign reversed in both product and reference would pass above.

SPREAD = np.stack([np.eye(6), np.eye(6)])  # images orthogonal, views equal
COLLAPSED = np.broadcast_to(np.eye(6)[0], (2, 6, 6))  # one point for everything
CROSSED = np.stack(
    [np.eye(6), np.roll(np.eye(6), 1, axis=0)]
)  # spread, but each partner is another image


@pytest.mark.parametrize(
    ("loss", "worse", "better"),
    [
        ("coding rate", COLLAPSED, SPREAD),
        ("coding rate of the paper", COLLAPSED, SPREAD),
        ("nt_xent", COLLAPSED, SPREAD),
        ("nt_xent with self", COLLAPSED, SPREAD),
        ("cosine", CROSSED, SPREAD),
        ("trace", CROSSED, SPREAD),
        ("nt_xent", CROSSED, SPREAD),
        ("nt_xent", CROSSED, COLLAPSED),
    ],
)
def test_worse_embeddings_have_the_higher_loss(loss: str, worse: Array, better: Array) -> None:
    score, _ = PAIRS[loss]
    assert score(torch.tensor(worse)) > score(torch.tensor(better)) + 0.1


@pytest.mark.parametrize("name", ["cosine", "trace"])
def test_agreement_of_views_does_not_reward_spread(name: str) -> None:
    score, _ = PAIRS[name]
    assert_near(score(torch.tensor(COLLAPSED)).item(), score(torch.tensor(SPREAD)).item(), 1e-14)


def test_descending_the_emp_loss_pulls_views_together_and_images_apart() -> None:
    generator = torch.Generator().manual_seed(0)
    anchor = torch.randn(8, generator=generator, dtype=torch.float64)
    noise = torch.randn(3, 5, 8, generator=generator, dtype=torch.float64)
    z = (anchor + 0.3 * noise).requires_grad_()

    def normal() -> Tensor:
        return z / z.norm(dim=-1, keepdim=True)

    def between_views_and_images() -> tuple[float, float]:
        with torch.no_grad():
            mean = normal().mean(dim=0)
            return (normal() - mean).norm().item(), torch.linalg.slogdet(mean @ mean.T)[1].item()

    views_before, images_before = between_views_and_images()
    for _ in range(200):
        loss = 200 * losses.invariance(normal()) + losses.total_coding_rate(normal())
        (gradient,) = torch.autograd.grad(loss, z)
        z.data -= 0.02 * gradient
    views_after, images_after = between_views_and_images()
    assert views_after < views_before / 2
    assert images_after > images_before


@pytest.mark.parametrize("name", PAIRS)
def test_losses_ignore_the_order_of_images_and_views_and_rotations(name: str) -> None:
    loss, _ = PAIRS[name]
    rng = np.random.default_rng(4)
    z = unit(rng.normal(size=(2, 6, 8)))
    value = loss(torch.tensor(z)).item()
    rotation, _ = np.linalg.qr(rng.normal(size=(8, 8)))
    for same in (z[:, rng.permutation(6)], z[::-1].copy(), z @ rotation):
        assert_near(loss(torch.tensor(same)).item(), value, 1e-12)


@pytest.mark.parametrize("name", PAIRS)
def test_only_the_coding_rate_ignores_which_images_are_partners(name: str) -> None:
    loss, _ = PAIRS[name]
    z = unit(np.random.default_rng(5).normal(size=(2, 6, 8)))
    crossed = np.stack([z[0], np.roll(z[1], 1, axis=0)])
    change = abs(loss(torch.tensor(crossed)).item() - loss(torch.tensor(z)).item())
    assert (change < 1e-12) == ("coding rate" in name)


@pytest.mark.parametrize("name", PAIRS)
@pytest.mark.parametrize("noise", [1.0, 1e-2], ids=["spread", "almost collapsed"])
def test_float32_is_close(name: str, noise: float) -> None:
    loss, reference = PAIRS[name]
    rng = np.random.default_rng(6)
    z = unit(rng.normal(size=(1, 1, 256)) + noise * rng.normal(size=(2, 32, 256)))
    z = z.astype(np.float32).astype(np.float64)
    expected_value, expected_gradient = reference(z)
    value, gradient = value_and_gradient(loss, z.astype(np.float32))
    assert_near(value, expected_value, 1e-4)
    assert_near(gradient, expected_gradient, 1e-3, floor=0)


@pytest.mark.parametrize("name", PAIRS)
def test_half_precision_around_a_loss_does_not_affect_it(name: str) -> None:
    loss, reference = PAIRS[name]
    rng = np.random.default_rng(7)
    narrow = torch.tensor(unit(rng.normal(size=(2, 32, 64)))).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = loss(narrow)
        also = loss(narrow.float())
    expected, _ = reference(narrow.double().numpy())
    assert value.dtype == torch.float32
    assert_near(value.item(), expected, 1e-5)
    assert_near(also.item(), expected, 1e-5)


def test_a_second_derivative_of_the_coding_rate_is_refused_instead_of_being_wrong() -> None:
    z = torch.tensor(unit(np.random.default_rng(8).normal(size=(2, 4, 6)))).requires_grad_()
    with pytest.raises(RuntimeError, match="no second derivative"):
        torch.autograd.grad(losses.total_coding_rate(z), z, create_graph=True)
