"""Losses and APGD of attacks on segmentation agree with the public code, see vectors/seg_losses."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
import torch
from torch import Tensor

from robustviews.attacks import apgd
from robustviews.attacks.pixel_losses import Name, image_loss
from robustviews.tasks.protocol import VOID
from tests.reference.recorded import VECTORS

Attack = Callable[..., apgd.Point]
TOLERANCE = 1e-10
LOSSES: dict[str, Name] = {
    "ce": "cross_entropy",
    "mce": "masked_cross_entropy",
    "js": "jensen_shannon",
    "msl": "masked_spherical",
    "segpgd_3_of_10": "segpgd",
    "cospgd_softmax": "cospgd",
}
CASES = [
    name + void for name in LOSSES for void in ("", "_void") if name + void != "cospgd_softmax_void"
]
TRAJECTORIES: dict[str, Name] = {
    "ce": "cross_entropy",
    "mce": "masked_cross_entropy",
    "segpgd": "segpgd",
    "js": "jensen_shannon",
    "msl": "masked_spherical",
}
ball = pytest.mark.parametrize(
    ("attack", "balls"), [(apgd.apgd, ""), (apgd.shrinking, "_large")], ids=["one", "shrinking"]
)
trajectories = pytest.mark.parametrize("key", TRAJECTORIES)


@cache
def recorded(name: str) -> dict[str, Tensor]:
    with np.load(VECTORS / "seg_losses" / f"{name}.npz") as file:
        return {key: torch.from_numpy(np.asarray(file[key])) for key in file.files}


def with_void(labels: Tensor) -> Tensor:
    """Return labels as data sets have them; the public code has -1 for void pixels."""
    return labels.masked_fill(labels < 0, VOID).to(torch.uint8)


def computed(case: str) -> tuple[Tensor, Tensor]:
    """Return the losses of the images, and the gradient of their sum."""
    given, name = recorded("losses"), LOSSES[case.removesuffix("_void")]
    labels = with_void(given["labels_void" if case.endswith("_void") else "labels"])
    logits = given["logits"].clone().requires_grad_()
    losses = image_loss(name, logits, labels, progress=0.3)
    (gradient,) = torch.autograd.grad(losses.sum(), logits)
    return losses, gradient


@pytest.mark.parametrize("case", CASES)
def test_losses_of_pixels_and_their_gradients_are_those_of_the_public_code(case: str) -> None:
    given, (losses, gradient) = recorded("losses"), computed(case)
    torch.testing.assert_close(losses, given[f"{case}_images"], rtol=0, atol=TOLERANCE)
    torch.testing.assert_close(gradient, given[f"{case}_grad"], rtol=0, atol=TOLERANCE)


def test_segpgd_is_that_of_two_public_codes_and_cospgd_that_of_its_authors() -> None:
    given = recorded("losses")
    total = computed("segpgd_3_of_10")[0].sum()
    assert abs(total - given["segpgd_official_3_of_10"]) < TOLERANCE
    other = given["cospgd_sigmoid_images"]
    assert ((computed("cospgd_softmax")[0] - other).abs() > 1e-3).all()


def network(images: Tensor) -> Tensor:
    given = recorded("apgd")
    hidden = torch.nn.functional.conv2d(images, given["w1"], given["b1"], padding=1).tanh()
    return torch.nn.functional.conv2d(hidden, given["w2"], given["b2"])


def attacked(attack: Attack, key: str, *, void_wrong_at_start: bool) -> apgd.Point:
    """Return the result of a loss, on request with the start's accuracy of the public code."""
    given = recorded("apgd")
    labels, iterations = with_void(given["labels"]), int(given["iterations"])
    look = apgd.look_with(network, labels, TRAJECTORIES[key])

    def quirk(images: Tensor, progress: float) -> apgd.Point:
        point, void = look(images, progress), (labels == VOID).sum(dim=(1, 2))
        return point._replace(wrong=point.wrong + void) if progress == 0 else point

    chosen = quirk if void_wrong_at_start else look
    x, eps = given["images"], float(given["eps"])
    return attack(chosen, x, x, eps=eps, steps=iterations)


@ball
@trajectories
def test_apgd_is_that_of_the_public_code(attack: Attack, balls: str, key: str) -> None:
    given = recorded("apgd")
    point = attacked(attack, key, void_wrong_at_start=True)
    expected = given[f"{key}{balls}_adversarial"]
    torch.testing.assert_close(point.images, expected, rtol=0, atol=TOLERANCE)
    accuracy = 1 - point.wrong.double() / expected[0, 0].numel()
    torch.testing.assert_close(accuracy, given[f"{key}{balls}_accuracy"], rtol=0, atol=TOLERANCE)


@ball
@trajectories
def test_images_without_void_pixels_do_not_depend_on_how_void_ones_count_at_the_start(
    attack: Attack, balls: str, key: str
) -> None:
    point = attacked(attack, key, void_wrong_at_start=False)
    expected = recorded("apgd")[f"{key}{balls}_adversarial"]
    torch.testing.assert_close(point.images[1:], expected[1:], rtol=0, atol=TOLERANCE)
