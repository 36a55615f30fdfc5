"""What an attack asks of a network: its passes, counted on one that costs next to nothing.

An attack such as AutoAttack takes thousands of passes, too many to try it on a real network; how
many there are does not depend on the network, but on how many images survive.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from robustviews.augment import Views
from robustviews.estimating import timing
from robustviews.estimating.amounts import About, Answer
from robustviews.evaluate import evaluate
from robustviews.probe import OWN_HEAD


class _Counter(torch.autograd.Function):
    """Passes values on, and counts the backward passes through it."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, count: Callable[[Tensor], None]) -> Tensor:  # noqa: ANN401
        """Return the inputs."""
        ctx.count = count
        return inputs.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:  # noqa: ANN401
        """Count, and return the gradient."""
        ctx.count(gradients[0])
        return gradients[0], None


class Tally(nn.Module):
    """A classifier that costs next to nothing, always sees class 0, and counts its passes.

    Attributes:
        calls: forward and backward passes.
        seen: images in them.
        probe: what of an image is seen.
    """

    def __init__(self, probe: Any, classes: int) -> None:  # noqa: ANN401  # of any table
        super().__init__()
        self.probe, self.classes = probe, classes
        self.bias = nn.Parameter(10 * torch.eye(classes)[0])
        self.calls = {"forward": 0, "backward": 0}
        self.seen = {"forward": 0, "backward": 0}

    def forward(self, inputs: Tensor) -> Tensor:
        """Map inputs (B, ..., 3, H, W) to logits (B, classes): a few pixels, and class 0 wins."""
        self._count("forward", inputs)
        pixels = inputs.flatten(1)[:, : self.classes]
        counted: Tensor = _Counter.apply(pixels, lambda grad: self._count("backward", grad))  # type: ignore[no-untyped-call]
        return nn.functional.pad(1e-3 * counted, (0, self.classes - pixels.shape[1])) + self.bias

    def _count(self, way: str, inputs: Tensor) -> None:
        self.calls[way] += 1
        self.seen[way] += len(inputs)


def attack(about: About, device: torch.device, seconds: float) -> Iterator[Answer]:
    """Answer `attack`: passes through the network and other seconds, by minibatch and by image.

    The evaluation runs on a network that only counts its passes: one that no image falls of, then
    one that gets every image wrong. Arguments as in `training_step`.
    """
    probe = about.get("probe", OWN_HEAD)
    most = max(1, about["batch"] // probe.stack)
    end = time.monotonic() + seconds

    def run(images: int, label: int) -> tuple[float, Tally]:
        return evaluation(about, device, images=images, label=label)

    few = min(timing.FEW, most)
    _, lost = run(few, 1)
    passes = _passes("fallen", lost, few)
    alive: timing.Points = []
    for images in timing.grown(few, most):
        took, tally = run(images, 0)
        alive.append((images, took))
        passes |= _passes("alive", tally, images)
        call, image = (
            timing.line(alive) if len(alive) > 1 else (took, 0.0)
        )  # few images cost nothing
        share = passes["fallen_image_forwards"] / passes["alive_image_forwards"]
        own = {"alive_call_seconds": call, "alive_image_seconds": image}
        yield passes | own | {"fallen_image_seconds": share * image}
        if timing.is_enough(alive, end, calls=1, least=1):
            break


def evaluation(
    about: About, device: torch.device, *, images: int, label: int
) -> tuple[float, Tally]:
    """Evaluate a network that only counts, on noise in one minibatch.

    Args:
        about: of a question for the stage `attack`.
        device: where to measure.
        images: how many.
        label: of all of them; the network says 0.

    Returns:
        Seconds, and the network with its counts.
    """
    probe = about.get("probe", OWN_HEAD)
    tally = Tally(probe, about["classes"]).to(device)
    before = timing.now(device)
    evaluate(
        tally,  # type: ignore[arg-type]  # all that an evaluation asks of a classifier
        about["attack"],
        timing.noise(images, about["size"]),
        torch.full((images,), label),
        views=about.get("views", Views()),
        size=about["size"],
        seed=0,
        batch=images * probe.stack,
        title="calibration",
    )
    return timing.now(device) - before, tally


def _passes(part: str, tally: Tally, images: int) -> Answer:
    answer: Answer = {}
    for way in ("forward", "backward"):
        answer[f"{part}_call_{way}s"] = tally.calls[way]
        answer[f"{part}_image_{way}s"] = tally.seen[way] / images
    return answer
