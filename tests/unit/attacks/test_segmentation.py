"""What attacks on segmentation must do, and the defects of public codes that ours must not have.

Losses and trajectories are compared with public codes in `tests/reference`.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from robustviews.attacks import Sea, SegmentationPgd, apgd, bounded, pixel_losses
from robustviews.attacks.pixel_losses import image_loss, wrong_pixels
from robustviews.tasks.protocol import VOID
from tests.unit.tiny_models import inventory

EPS = 24 / 255
LOSSES = tuple(pixel_losses._LOSSES)
EXAMPLES: dict[str, SegmentationPgd | Sea] = {
    "pgd": SegmentationPgd(eps=(24,), steps=4, random_start=False),
    "segpgd": SegmentationPgd(eps=(24,), steps=4, loss="segpgd", random_start=False),
    "cospgd": SegmentationPgd(eps=(24,), steps=4, loss="cospgd"),
    "worst": SegmentationPgd(eps=(24,), steps=4, loss="segpgd", keep="worst", restarts=2),
    "sea": Sea(eps=(24,), steps=7),
    "sea-clean-start": Sea(eps=(24,), steps=7, random_start=False),
}
attacks = pytest.mark.parametrize("attack", EXAMPLES.values(), ids=EXAMPLES)
Attack = SegmentationPgd | Sea


def segmenter(classes: int = 3) -> nn.Sequential:
    """Return a float64 network in eval mode, with non-trivial batch norm statistics."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1),
            nn.BatchNorm2d(8),
            nn.Tanh(),
            nn.Dropout(0.5),
            nn.Conv2d(8, classes, 1),
        )
        nn.init.uniform_(net[1].running_var, 0.5, 1.5)
    return net.double().eval()


def images(count: int = 5) -> Tensor:
    """Return noise (count, 3, 6, 7) in which some pixels are black and some white."""
    generator = torch.Generator().manual_seed(1)
    noise = torch.rand(count, 3, 6, 7, generator=generator, dtype=torch.float64)
    return (1.2 * noise - 0.1).clamp(0, 1)


def labels_of(net: nn.Module, x: Tensor) -> Tensor:
    """Return predictions, of which some are replaced, and some are void."""
    with torch.no_grad():
        labels = net(x).argmax(dim=1)
    draws = torch.rand(labels.shape, generator=torch.Generator().manual_seed(2))
    labels = torch.where(draws < 0.2, (labels + 1) % 3, labels)
    return labels.masked_fill(draws > 0.8, VOID).to(torch.uint8)


def wrong(net: nn.Module, x: Tensor, labels: Tensor) -> Tensor:
    with torch.no_grad():
        return wrong_pixels(net(x), labels)


@attacks
def test_examples_are_in_the_ball_and_in_the_range_of_pixels(attack: Attack) -> None:
    net, x = segmenter(), images()
    actual = attack.perturb(net, x, labels_of(net, x), eps=EPS, seed=0)
    assert (actual.shape, actual.dtype, actual.requires_grad) == (x.shape, x.dtype, False)
    assert (actual - x).abs().max() <= EPS + 1e-12
    assert (actual - x).abs().max() > 0.9 * EPS
    assert (actual.min(), actual.max()) >= (0, 0)
    assert actual.max() <= 1


def test_examples_are_in_the_l2_ball() -> None:
    net, x = segmenter(), images()
    attack = SegmentationPgd(eps=(0.5,), steps=4, loss="cospgd", norm="l2")
    actual = attack.perturb(net, x, labels_of(net, x), eps=0.5, seed=0)
    lengths = (actual - x).flatten(1).norm(dim=1)
    assert lengths.max() <= 0.5 + 1e-12
    assert lengths.max() > 0.4


@attacks
def test_an_attack_makes_more_pixels_wrong(attack: Attack) -> None:
    net, x = segmenter(), images()
    labels = labels_of(net, x)
    actual = attack.perturb(net, x, labels, eps=EPS, seed=0)
    assert (wrong(net, actual, labels) > wrong(net, x, labels)).all()


@attacks
def test_an_attack_does_not_change_network_images_labels_or_generator(attack: Attack) -> None:
    net, x = segmenter(), images()
    for parameter in net.parameters():
        parameter.grad = torch.ones_like(parameter)
    labels = labels_of(net, x)
    kept, before, state = (x.clone(), labels.clone()), inventory(net), torch.get_rng_state()
    attack.perturb(net, x, labels, eps=EPS, seed=0)
    assert inventory(net) == before
    assert torch.equal(x, kept[0])
    assert torch.equal(labels, kept[1])
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.is_grad_enabled()


@attacks
def test_the_seed_decides_random_starts_and_nothing_else(attack: Attack) -> None:
    net, x = segmenter(), images()
    labels = labels_of(net, x)
    first, again, other = (attack.perturb(net, x, labels, eps=EPS, seed=seed) for seed in (3, 3, 4))
    assert torch.equal(first, again)
    assert torch.equal(first, other) == (not attack.random_start)


@pytest.mark.parametrize("name", ["pgd", "segpgd", "sea-clean-start"])
def test_each_image_of_a_batch_is_attacked_on_its_own(name: str) -> None:
    net, x = segmenter(), images()
    labels, attack = labels_of(net, x), EXAMPLES[name]
    together = attack.perturb(net, x, labels, eps=EPS, seed=0)
    alone = [attack.perturb(net, x[[i]], labels[[i]], eps=EPS, seed=0) for i in range(len(x))]
    torch.testing.assert_close(together, torch.cat(alone), rtol=0, atol=1e-10)


# A linear model of each pixel: the logits of its two classes are known, and so is the best attack.


def linear() -> nn.Conv2d:
    net = nn.Conv2d(3, 2, 1).double()
    with torch.no_grad():
        net.weight.copy_(torch.tensor([[1.0, -2.0, 0.5], [-0.5, 0.7, 1.5]]).view(2, 3, 1, 1))
        net.bias.copy_(torch.tensor([0.3, -0.3]))
    return net


def best(net: nn.Conv2d, x: Tensor, labels: Tensor, eps: float) -> Tensor:
    """Return the image in the ball with the smallest margin of every pixel."""
    difference = (net.weight[0] - net.weight[1]).view(1, 3, 1, 1).detach()
    towards = torch.where(labels == 0, -1.0, 1.0).unsqueeze(1) * difference.sign()
    return (x + eps * towards).clamp(0, 1)


@pytest.mark.parametrize("loss", ["cross_entropy", "segpgd", "cospgd"])
def test_pgd_finds_the_best_attack_on_a_linear_model(loss: Any) -> None:
    net, x = linear(), images()
    labels = labels_of(net, x) % 2
    attack = SegmentationPgd(eps=(24,), steps=10, loss=loss, random_start=False)
    expected = best(net, x, labels, EPS)
    actual = attack.perturb(net, x, labels, eps=EPS, seed=0)
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-12)


def test_sea_makes_every_pixel_of_a_linear_model_wrong_that_can_be() -> None:
    net, x = linear(), images()
    with torch.no_grad():
        labels = net(x).argmax(dim=1).to(torch.uint8)
    expected = wrong(net, best(net, x, labels, EPS), labels)
    assert 0 < expected.sum() < labels.numel()
    actual = EXAMPLES["sea"].perturb(net, x, labels, eps=EPS, seed=0)
    assert torch.equal(wrong(net, actual, labels), expected)


@attacks
def test_what_void_pixels_show_has_no_influence(attack: Attack) -> None:
    net, x = linear(), images()
    labels = labels_of(net, x) % 2
    void = torch.arange(7).expand_as(labels) < 4
    labels = labels.masked_fill(void, VOID)
    inverted = torch.where(void.unsqueeze(1), 1 - x, x)
    first, second = (attack.perturb(net, shown, labels, eps=EPS, seed=0) for shown in (x, inverted))
    assert torch.equal(first[..., 4:], second[..., 4:])
    if not attack.random_start:
        assert torch.equal(first[..., :4], x[..., :4])


# SEA


def test_sea_is_the_worst_of_its_parts_on_each_image() -> None:
    net, x = segmenter(), images()
    labels, attack = labels_of(net, x), EXAMPLES["sea"]
    assert isinstance(attack, Sea)
    parts = attack.parts(net, x, labels, eps=EPS, seed=0)
    assert list(parts) == [
        "masked_cross_entropy",
        "segpgd",
        "jensen_shannon",
        "masked_spherical",
    ]
    counts = torch.stack([wrong(net, part.images, labels) for part in parts.values()])
    assert (counts != counts.amax(dim=0)).any(dim=1).all()  # no part is the worst of all images
    actual = attack.perturb(net, x, labels, eps=EPS, seed=0)
    assert torch.equal(wrong(net, actual, labels), counts.amax(dim=0))
    for part, count in zip(parts.values(), counts, strict=True):
        assert torch.equal(part.wrong, count)
        assert (part.images - x).abs().max() <= EPS + 1e-12


def test_a_larger_ball_makes_more_pixels_wrong() -> None:
    net, x = segmenter(), images()
    labels, attack = labels_of(net, x), Sea(eps=(1,), steps=20)
    counts = [
        wrong(net, attack.perturb(net, x, labels, eps=eps / 255, seed=0), labels).sum()
        for eps in (1e-6, 4, 8, 16, 32, 64)
    ]
    assert counts[0] == wrong(net, x, labels).sum()
    assert all(less < more for less, more in itertools.pairwise(counts))


def test_checkpoints_are_those_of_apgd() -> None:
    steps = [step for step, _ in apgd._checkpoints(100)]
    assert steps == [22, 41, 57, 70, 80, 87, 93, 99]  # Croce, Hein 2020


# SegmentationPgd


def test_a_loss_knows_the_step_of_every_try(monkeypatch: pytest.MonkeyPatch) -> None:
    noted = []

    def note(*arguments: Any, progress: float) -> Tensor:
        noted.append(progress)
        return image_loss(*arguments, progress=progress)

    monkeypatch.setattr(pixel_losses, "image_loss", note)
    net, x = segmenter(), images()
    for name, expected in (
        ("segpgd", [0, 0.25, 0.5, 0.75]),
        ("worst", [0, 0.25, 0.5, 0.75, 1] * 2),
    ):
        noted.clear()
        EXAMPLES[name].perturb(net, x, labels_of(net, x), eps=EPS, seed=0)
        assert noted == expected


@pytest.mark.parametrize(
    ("options", "expected"),
    [({"steps": 20}, 0.125), ({"steps": 1}, 2.0), ({"steps": 20, "relative_step": 0.1}, 0.1)],
)
def test_a_step_is_a_fraction_of_the_radius(
    options: Any, expected: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    noted = {}
    monkeypatch.setattr(bounded, "pgd", lambda *_, **options: noted.update(options))
    labels = torch.zeros(5, 6, 7, dtype=torch.uint8)
    SegmentationPgd(eps=(8,), **options).perturb(segmenter(), images(), labels, eps=0.03, seed=0)
    assert noted["step_size"] == pytest.approx(expected * 0.03)


def test_the_worst_iterate_has_at_least_as_many_wrong_pixels_as_the_last_one() -> None:
    net, x = segmenter(), images(40)
    labels = labels_of(net, x)
    last, worst, tries = (
        wrong(net, attack.perturb(net, x, labels, eps=EPS, seed=0), labels)
        for options in ({}, {"keep": "worst"}, {"keep": "worst", "restarts": 3})
        for attack in [SegmentationPgd(eps=(24,), steps=4, relative_step=2, **options)]
    )
    assert (worst >= last).all()
    assert (tries >= worst).all()
    assert last.sum() < worst.sum() < tries.sum()


@pytest.mark.parametrize("attack", [EXAMPLES["pgd"], EXAMPLES["sea"]])
def test_labels_of_images_are_refused(attack: Attack) -> None:
    with pytest.raises(ValueError, match=r"labels \(B, H, W\), found .* write kind: pgd"):
        attack.perturb(segmenter(), images(), torch.zeros(5).long(), eps=EPS, seed=0)


def test_options_that_cannot_work_are_refused() -> None:
    with pytest.raises(ValueError, match="restarts: 2 needs random_start: true"):
        SegmentationPgd(eps=(8,), restarts=2, random_start=False)
    with pytest.raises(ValueError, match=r"relative_step: 4 steps reach only 0.8 of the radius"):
        SegmentationPgd(eps=(8,), steps=4, relative_step=0.2)


# Defects of public codes


def two_classes(*margins: float) -> Tensor:
    """Return logits (1, 2, 1, n) of pixels; a positive margin predicts class 0."""
    margin = torch.tensor(margins, dtype=torch.float64).view(1, 1, 1, -1)
    return torch.cat((margin, torch.zeros_like(margin)), dim=1).requires_grad_()


@pytest.mark.parametrize("loss", LOSSES)
def test_no_loss_or_gradient_of_an_image_is_nan(loss: Any) -> None:
    """A mean over an empty set, 0 log 0, or the length of a zero vector would be."""
    for margin, label in itertools.product((2.0, -2.0, 0.0, 1e4, -1e4), (0, VOID)):
        logits = two_classes(margin, margin)
        value = image_loss(loss, logits, torch.full((1, 1, 2), label), progress=0.5)
        (gradient,) = torch.autograd.grad(value.sum(), logits)
        assert value.isfinite().all()
        assert gradient.isfinite().all()
        assert label != VOID or not (value.any() or gradient.any())


def test_segpgd_sums_over_right_and_wrong_pixels() -> None:
    """The code of arXiv 2407.12588 takes a mean over each set, which weighs rare pixels more."""
    logits, labels = two_classes(1, -1, -1, -1), torch.zeros(1, 1, 4).long()
    right, not_right = math.log1p(math.exp(-1)), math.log1p(math.exp(1))
    for progress in (0.0, 0.5, 1.0):
        w = progress / 2
        actual = image_loss("segpgd", logits, labels, progress=progress).item()
        assert actual == pytest.approx(((1 - w) * right + w * 3 * not_right) / 4, abs=1e-12)


def test_a_jensen_shannon_divergence_is_between_0_and_log_2() -> None:
    values = [
        image_loss("jensen_shannon", two_classes(margin), torch.zeros(1, 1, 1).long()).item()
        for margin in (1e4, 0.0, -1e4)
    ]
    half = math.log(2) + (0.5 * math.log(0.5) - 1.5 * math.log(1.5)) / 2
    assert values == pytest.approx([0, half, math.log(2)], abs=1e-12)


@pytest.mark.parametrize("trap", [False, True], ids=["ours", "public code"])
def test_apgd_keeps_an_iterate_that_wins_fewer_pixels_than_are_void(trap: bool) -> None:
    """SEA's code counts void pixels as wrong at the start and returns the start here."""
    net, x = linear(), torch.full((1, 3, 1, 5), 0.5, dtype=torch.float64)
    with torch.no_grad():
        label = net(x).argmax(dim=1)
    labels = label.masked_fill(torch.arange(5) > 0, VOID)  # one pixel counts
    look = apgd.look_with(net, labels, "cross_entropy")

    def quirk(images: Tensor, progress: float) -> apgd.Point:
        point = look(images, progress)
        return point._replace(wrong=point.wrong + 4) if progress == 0 else point

    looks: dict[bool, Callable[[Tensor, float], apgd.Point]] = {False: look, True: quirk}
    point = apgd.apgd(looks[trap], x, x, eps=0.4, steps=5)
    assert torch.equal(point.images, x) == trap
    assert wrong(net, point.images, labels).item() == (0 if trap else 1)
