"""PGD in both norms on models whose optimal attack is known, and the losses that it increases."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from robustviews import evaluate
from robustviews.attacks import AutoAttack, PgdAttack, length, pgd, to_pixels
from robustviews.attacks.objectives import DISTANCES, LOSSES, dlr

EPS = {"linf": 0.03, "l2": 0.3}
norms = pytest.mark.parametrize("norm", EPS)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


class Linear(nn.Module):
    """Classes 0 and 1 by the sign of <w, x - 1/2>, and a third class that never wins."""

    def __init__(self, scale=1.0):
        super().__init__()
        self.w = scale * torch.randn(3, 5, 5, generator=generator())

    def forward(self, x):
        score = ((x - 0.5) * self.w.to(x.dtype)).flatten(1).sum(dim=1)
        return torch.stack([score, -score, -1e9 * torch.ones_like(score)], dim=1)


def near(count=40):
    """Return gray images with little noise, far from the ends of the range of pixels."""
    return 0.5 + 0.02 * torch.randn(count, 3, 5, 5, generator=generator(1))


def gain(model, norm):
    """Return how far the optimal attack of radius 1 moves the score: the dual norm of w."""
    w = model.w.double()
    return w.abs().sum().item() if norm == "linf" else w.norm().item()


@norms
@pytest.mark.parametrize("loss", ["cross_entropy", "margin"])
@pytest.mark.parametrize("scale", [1, 1e-25], ids=["gradient", "tiny gradient"])
def test_pgd_finds_the_optimal_attack_on_a_linear_model(norm, loss, scale):
    model, x = Linear(scale), near()
    labels = model(x).argmax(dim=1)
    attack = PgdAttack(eps=(1,), steps=3, relative_step=0.5, loss=loss, norm=norm)
    moved = attack.perturb(model, x, labels, eps=EPS[norm], seed=0)
    change = (model(x) - model(moved)).gather(1, labels.unsqueeze(1)).squeeze(1)
    optimal = torch.full_like(change, EPS[norm] * gain(model, norm))
    torch.testing.assert_close(change, optimal, rtol=2e-5, atol=0)


@norms
def test_flags_fall_with_the_radius_exactly_as_the_distance_to_the_plane_says(norm):
    model, x = Linear(), near()
    logits = model(x)
    labels, distance = logits.argmax(dim=1), logits[:, :2].amax(dim=1) / gain(model, norm)
    radii = [distance.quantile(q).item() * (255 if norm == "linf" else 1) for q in (0.2, 0.5, 0.8)]
    attack = PgdAttack(eps=tuple(radii), steps=5, relative_step=0.4, norm=norm)
    left = []
    for radius in radii:
        _, robust = evaluate.attack_once(
            model, attack, x, labels, radius=radius, seed=0, title="linear"
        )
        assert torch.equal(robust, distance > to_pixels(radius, norm))
        left.append(int(robust.sum()))
    assert left == sorted(left, reverse=True)
    assert left[0] > left[-1] > 0


@pytest.mark.parametrize("stack", [(), (2,)], ids=["images", "views"])
def test_l2_examples_stay_in_the_ball_and_in_the_range_of_pixels(stack):
    x = torch.rand(30, *stack, 3, 8, 8, generator=generator(2)).round(decimals=1)
    weights = torch.randn(x.shape[1:], generator=generator(3))
    moved = pgd(
        lambda images: (images * weights).flatten(1).sum(dim=1),
        x,
        eps=1.5,
        step_size=0.4,
        steps=10,
        generator=generator(),
        random_start=True,
        norm="l2",
    )
    lengths = length(moved.double() - x.double())
    assert lengths.shape == (30, *stack, 1, 1, 1)  # a ball for each view
    assert lengths.max() <= 1.5 + 1e-6
    assert lengths.min() > 1.4
    assert 0 <= moved.min() <= moved.max() <= 1
    evaluate.check_ball(moved, x, 1.5, 1.5, norm="l2")
    with pytest.raises(ValueError, match=r"at eps 1 \(L2\) left its ball"):
        evaluate.check_ball(moved, x, 1.0, 1.0, norm="l2")


def test_an_l2_start_is_uniform_in_the_ball():
    x = torch.full((4000, 1, 1, 2), 0.5)
    moved = pgd(
        lambda images: images.sum(),
        x,
        eps=0.2,
        step_size=1,
        steps=0,
        generator=generator(),
        random_start=True,
        norm="l2",
    )
    delta = (moved - x).flatten(1)
    areas = (delta.norm(dim=1) / 0.2) ** 2  # of the circles through the points: uniform
    assert areas.max() <= 1
    for share in (0.1, 0.5, 0.9):
        assert (areas < share).float().mean().item() == pytest.approx(share, abs=0.03)
    assert delta.mean(dim=0).abs().max() < 0.005


def test_autoattack_in_l2_stays_in_its_ball_and_fools_what_the_optimal_attack_fools():
    model, x = Linear(), near(20)
    logits = model(x)
    labels, distance = logits.argmax(dim=1), logits[:, :2].amax(dim=1) / gain(model, "l2")
    radius = distance.median().item() * 1.01
    attack = AutoAttack(
        eps=(radius,), version="custom", attacks=("apgd-ce",), apgd_steps=20, norm="l2"
    )
    _, robust = evaluate.attack_once(model, attack, x, labels, radius=radius, seed=0, title="l2")
    assert torch.equal(robust, distance > radius)


# losses


def test_dlr_is_the_margin_over_the_spread_of_the_largest_three_and_has_no_scale():
    logits = torch.tensor([[4.0, 1.0, 2.0, 0.0], [4.0, 1.0, 2.0, 0.0]], dtype=torch.float64)
    labels = torch.tensor([0, 1])
    torch.testing.assert_close(dlr(logits, labels), torch.tensor([-2 / 3, 3 / 3]).double())
    other = torch.randn(50, 10, generator=generator(), dtype=torch.float64)
    labels = torch.randint(10, (50,), generator=generator())
    torch.testing.assert_close(dlr(7.0 * other + 3.0, labels), dlr(other, labels))
    wrong = other.argmax(dim=1) != labels
    assert torch.equal(dlr(other, labels) > 0, wrong)
    with pytest.raises(ValueError, match=r"dlr needs 3 classes, found 2; write loss: margin"):
        dlr(other[:, :2], labels)


@pytest.mark.parametrize(("name", "same"), [("ce", "cross_entropy"), ("cw", "margin")])
def test_two_names_of_a_loss_are_one_attack(name, same):
    assert PgdAttack(eps=(8,), loss=name) == PgdAttack(eps=(8,), loss=same)
    assert set(LOSSES) == {"cross_entropy", "margin", "dlr"}


def test_one_of_both_step_sizes_is_needed():
    assert PgdAttack(eps=(8,), relative_step=0.1).step_size is None
    with pytest.raises(ValueError, match="relative_step: replaces step_size"):
        PgdAttack(eps=(8,), relative_step=0.1, step_size=2)
    with pytest.raises(ValueError, match=r"step_size: write a size, or relative_step: 0\.1"):
        PgdAttack(eps=(8,), step_size=None)


def test_a_relative_step_is_a_share_of_each_radius():
    model, x = Linear(), near(4)
    labels = model(x).argmax(dim=1)
    attack = PgdAttack(eps=(1, 2), steps=3, relative_step=0.1)
    for eps in (0.01, 0.02):
        moved = attack.perturb(model, x, labels, eps=eps, seed=0)
        largest = (moved - x).abs().max().item()
        assert largest == pytest.approx(0.3 * eps, rel=1e-4)


def test_no_try_begins_once_every_image_is_fooled():
    calls = {}
    for eps in (1e-6, 0.5):
        model, x = Linear(), near(6)
        labels = model(x).argmax(dim=1)
        seen = []

        def counted(images, seen=seen, model=model):
            seen.append(len(images))
            return model(images)

        attack = PgdAttack(eps=(1,), steps=2, relative_step=1, random_start=True, restarts=5)
        attack.perturb(counted, x, labels, eps=eps, seed=0)
        calls[eps] = len(seen)
    assert calls == {1e-6: 5 * 3, 0.5: 3}


# the attack on features


class Features(Linear):
    """A model with two features, of which its logits read only the first."""

    def features(self, x):
        centred = x - 0.5
        return torch.stack([(centred * self.w).flatten(1).sum(dim=1), centred[:, 0, 0, 0]], dim=1)


@norms
@pytest.mark.parametrize("loss", DISTANCES)
def test_the_attack_on_features_sees_no_labels_and_moves_the_features(norm, loss):
    model, x = Features(), near()
    attack = PgdAttack(
        eps=(1,), steps=10, relative_step=0.3, loss=loss, norm=norm, random_start=True
    )
    labels = model(x).argmax(dim=1)
    moved = attack.perturb(model, x, labels, eps=EPS[norm], seed=0)
    assert torch.equal(moved, attack.perturb(model, x, 1 - labels, eps=EPS[norm], seed=0))
    distance = DISTANCES[loss](model.features(moved), model.features(x))
    still = PgdAttack(eps=(1,), relative_step=1e-9, loss=loss, norm=norm, random_start=True)
    random = still.perturb(model, x, labels, eps=EPS[norm], seed=0)
    assert distance.mean() > 0.3 + DISTANCES[loss](model.features(random), model.features(x)).mean()
    if loss == "feature_mse":  # the first feature moves by the optimum, in one of both directions
        score = model.features(moved)[:, 0] - model.features(x)[:, 0]
        optimum = torch.full_like(score, EPS[norm] * gain(model, norm))
        torch.testing.assert_close(score.abs(), optimum, rtol=0.05, atol=0)


def test_the_attack_on_features_needs_a_random_start_and_a_model_with_features():
    with pytest.raises(ValueError, match="loss: feature_mse needs random_start: true"):
        PgdAttack(eps=(8,), loss="feature_mse")
    attack = PgdAttack(eps=(8,), loss="feature_cosine", random_start=True)
    with pytest.raises(ValueError, match="needs a classifier with a method `features`"):
        attack.perturb(Linear(), near(2), torch.zeros(2, dtype=torch.int64), eps=0.1, seed=0)
