"""Projected gradient ascent against the recorded attack and the numpy reference."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from robustviews import losses
from robustviews.attacks import Judged, ascend, pgd

from . import references
from .recorded import TRAIN_TOLERANCE, Arrays, assert_all_near, assert_near, load
from .references import Array
from .tiny_network import TinyNetwork, gradients, network, state

EPS, STEP_SIZE = 8 / 255, 0.01
EXACT = 1e-15  # a delta is a sum of at most five steps of one size: only the last bits may differ


def attack(net: TinyNetwork, recorded: Arrays, *, steps: int, parameter_grads: bool) -> Array:
    """Return delta after the product's attack on the EMP-SSL loss of the recorded images."""
    views = torch.tensor(recorded["x"])

    def loss(images: Tensor) -> Tensor:
        z = net(images.flatten(0, 1)).view(*images.shape[:2], -1)
        return 200 * losses.invariance(z) + losses.total_coding_rate(z)

    adversarial = pgd(
        loss,
        views,
        eps=float(recorded["eps"]),
        step_size=float(recorded["alpha"]),
        steps=steps,
        parameter_grads=parameter_grads,
    )
    assert not adversarial.requires_grad
    return (adversarial - views).numpy()


@pytest.mark.parametrize("steps", [1, 2, 3, 4, 5])
def test_each_attack_step_is_that_of_the_published_code(steps: int) -> None:
    recorded = load("emp_pgd_attack")
    delta = attack(network(recorded), recorded, steps=steps, parameter_grads=True)
    assert_near(delta, recorded[f"delta_after_{steps}"], EXACT)


def test_summed_parameter_gradients_and_statistics_are_those_of_the_published_code() -> None:
    recorded = load("emp_pgd_attack")
    net = network(recorded)
    attack(net, recorded, steps=5, parameter_grads=True)
    actual = {f"grad_{name}": value for name, value in gradients(net).items()}
    actual |= {f"after_{name}": value for name, value in state(net).items()}
    expected = {k: v for k, v in recorded.items() if k.startswith(("grad_", "after_"))}
    assert_all_near(actual, expected, TRAIN_TOLERANCE)


@pytest.mark.parametrize("present", [False, True], ids=["no gradients", "earlier gradients"])
def test_without_parameter_grads_the_attack_is_the_same_and_gradients_are_untouched(
    present: bool,
) -> None:
    recorded = load("emp_pgd_attack")
    net = network(recorded)
    for parameter in net.parameters():
        parameter.grad = torch.full_like(parameter, 7.0) if present else None
    delta = attack(net, recorded, steps=5, parameter_grads=False)
    assert_near(delta, recorded["delta_after_5"], EXACT)
    assert net.training
    for parameter in net.parameters():
        assert parameter.requires_grad
        if present:
            assert parameter.grad is not None
            assert torch.equal(parameter.grad, torch.full_like(parameter, 7.0))
        else:
            assert parameter.grad is None


class Quadratic(nn.Module):
    """The loss 1/2 |A x|^2 + b x of each image, whose gradient A^T A x + b needs no library."""

    def __init__(self, features: int) -> None:
        super().__init__()
        rng = np.random.default_rng(0)
        self.a = nn.Parameter(torch.tensor(rng.normal(size=(features, features))))
        self.b = nn.Parameter(torch.tensor(rng.normal(size=features)))

    def forward(self, images: Tensor) -> Tensor:
        """Return one loss per image: (B,)."""
        x = images.flatten(1)
        return 0.5 * (x @ self.a.T).square().sum(dim=1) + x @ self.b

    def gradient(self, images: Array) -> Array:
        """Return the gradient of the summed losses."""
        a, b = self.a.detach().numpy(), self.b.detach().numpy()
        x = images.reshape(len(images), -1)
        return (x @ a.T @ a + b).reshape(images.shape)


def images(count: int = 4) -> Array:
    """Return images (count, 3, 2, 2) with pixels at both ends of the range among them."""
    x = np.random.default_rng(1).uniform(-0.2, 1.2, size=(count, 3, 2, 2))
    return np.clip(x, 0.0, 1.0)


@pytest.mark.parametrize("reduction", ["scalar", "an image"])
@pytest.mark.parametrize(
    ("eps", "step_size", "steps"),
    [(8 / 255, 0.01, 5), (0.3, 0.07, 20), (0.01, 0.5, 3), (0.1, 0.01, 1), (0.1, 0.01, 0)],
)
def test_pgd_equals_the_loop_of_the_reference(
    eps: float, step_size: float, steps: int, reduction: str
) -> None:
    loss, x = Quadratic(12), images()
    expected = references.pgd(loss.gradient, x, eps=eps, step_size=step_size, steps=steps)
    actual = pgd(
        loss if reduction == "an image" else lambda a: loss(a).sum(),
        torch.tensor(x),
        eps=eps,
        step_size=step_size,
        steps=steps,
    )
    assert_near(actual - torch.tensor(x), expected, EXACT)
    assert steps == 0 or np.abs(expected).max() > 0


def test_ascend_is_that_of_the_reference() -> None:
    rng, x = np.random.default_rng(2), images()
    # Also deltas far outside the ball, and off [0, 1], as free training carries them over.
    delta, gradient = rng.normal(size=x.shape), rng.normal(size=x.shape)
    gradient[0] = 0.0
    expected = references.ascend(delta, x, gradient, eps=0.05, step_size=0.02)
    actual = ascend(*map(torch.tensor, (delta, x, gradient)), eps=0.05, step_size=0.02)
    assert_near(actual, expected, EXACT)


def test_a_zero_gradient_moves_nothing() -> None:
    x = torch.full((1, 3, 2, 2), 0.5)
    still = ascend(torch.zeros_like(x), x, torch.zeros_like(x), eps=0.1, step_size=0.1)
    assert torch.equal(still, torch.zeros_like(x))


@pytest.mark.parametrize("random_start", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_examples_stay_in_the_ball_and_the_range_of_pixels(
    dtype: torch.dtype, random_start: bool
) -> None:
    loss, x = Quadratic(12).to(dtype), torch.tensor(images(50), dtype=dtype)
    actual = pgd(
        loss,
        x,
        eps=8 / 255,
        step_size=0.02,
        steps=7,
        random_start=random_start,
        generator=torch.Generator().manual_seed(0),
    )
    assert actual.min() >= 0
    assert actual.max() <= 1
    assert (actual - x).abs().max() <= 8 / 255 + torch.finfo(dtype).eps


@pytest.mark.parametrize("random_start", [False, True])
def test_an_empty_ball_does_not_change_images(random_start: bool) -> None:
    x = torch.tensor(images())
    actual = pgd(Quadratic(12), x, eps=0.0, step_size=0.1, steps=3, random_start=random_start)
    assert torch.equal(actual, x)


def test_the_attack_increases_the_loss_of_every_image() -> None:
    loss, x = Quadratic(12), torch.tensor(images())
    actual = pgd(loss, x, eps=8 / 255, step_size=0.01, steps=5)
    assert (loss(actual) > loss(x)).all()


def start(x: Tensor, seed: int) -> Tensor:
    """Return only the random start: an attack without steps."""
    generator = torch.Generator().manual_seed(seed)
    options = {"eps": 0.1, "step_size": 0.01, "steps": 0}
    return pgd(Quadratic(12), x, random_start=True, generator=generator, **options)


def test_a_random_start_fills_the_ball_and_follows_its_generator() -> None:
    x = torch.full((50, 3, 2, 2), 0.5, dtype=torch.float64)
    assert torch.equal(start(x, 0), start(x, 0))
    assert not torch.equal(start(x, 0), start(x, 1))
    delta = start(x, 0) - x
    assert delta.abs().max() <= 0.1
    assert delta.min() < -0.09
    assert delta.max() > 0.09
    assert abs(delta.mean().item()) < 0.02


def test_a_random_start_stays_in_the_range_of_pixels() -> None:
    actual = start(torch.tensor(images(50)), 0)
    assert actual.min() == 0
    assert actual.max() == 1


class Judge:
    """Judges images by a quadratic loss, and by another rule than that loss: a pixel's sign."""

    def __init__(self, x: Tensor) -> None:
        self.loss, self.x = Quadratic(12), x
        self.seen: list[Judged] = []

    def __call__(self, adversarial: Tensor) -> Judged:
        fooled = (adversarial - self.x)[:, 0, 0, 0] > 0
        self.seen.append(Judged(self.loss(adversarial).detach(), fooled))
        return Judged(self.loss(adversarial), fooled)


def chosen_by_hand(seen: list[Judged]) -> list[int]:
    """Return for each image the first of the worst entries: fooled before loss."""
    count = len(seen[0].loss)
    ranks = [[(bool(j.fooled[b]), float(j.loss[b])) for j in seen] for b in range(count)]
    return [rank.index(max(rank)) for rank in ranks]


def restarted(judge: Judge, *, restarts: int, keep: Literal["last", "worst"]) -> Tensor:
    return pgd(
        judge,
        judge.x,
        eps=0.3,
        step_size=0.05,
        steps=2,
        random_start=True,
        restarts=restarts,
        keep=keep,
        generator=torch.Generator().manual_seed(0),
    )


@pytest.mark.parametrize(
    ("restarts", "keep", "candidates"),
    [
        (3, "last", slice(2, None, 3)),  # each try judges its start and two iterates
        (3, "worst", slice(None)),
        (1, "worst", slice(None)),
    ],
)
def test_fooled_candidates_are_preferred_and_the_loss_decides_among_equals(
    restarts: int, keep: Literal["last", "worst"], candidates: slice
) -> None:
    judge = Judge(torch.tensor(images(40)))
    actual = restarted(judge, restarts=restarts, keep=keep)
    seen = judge.seen[candidates]
    chosen = chosen_by_hand(seen)
    expected = torch.stack([seen[k].loss[b] for b, k in enumerate(chosen)])
    assert torch.equal(judge(actual).loss.detach(), expected)
    fooled = torch.stack([judged.fooled for judged in seen])  # (candidates, B)
    assert torch.equal(judge(actual).fooled, fooled.any(dim=0))
    assert len(set(chosen)) >= 3  # no candidate is the worst for all images
    largest = torch.stack([judged.loss for judged in seen]).argmax(dim=0)
    assert not torch.equal(torch.tensor(chosen), largest)  # the loss alone would choose others


def test_a_choice_among_candidates_needs_a_loss_that_reports_which_images_are_fooled() -> None:
    loss, x = Quadratic(12), torch.tensor(images())
    for options in ({"restarts": 2, "random_start": True}, {"keep": "worst"}):
        with pytest.raises(TypeError, match="must return Judged"):
            pgd(loss, x, eps=0.1, step_size=0.1, steps=1, **options)
