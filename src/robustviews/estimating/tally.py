"""Count the network passes of an attack, with a stub network of negligible cost.

An attack such as AutoAttack takes thousands of passes, too many to measure on a real network. Their
number does not depend on the network, but on how many images survive.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from robustviews.attacks import flag_name
from robustviews.augment import Views
from robustviews.estimating import timing
from robustviews.estimating.question import About, Answer
from robustviews.evaluate import evaluate
from robustviews.probe import OWN_HEAD, Probe


class _Counter(torch.autograd.Function):
    """The identity, which counts its backward passes."""

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
    """A network of negligible cost that always answers class 0 and counts its passes.

    Attributes:
        calls: numbers of forward and backward passes.
        images: numbers of images in these passes.
        probe: the probe, which decides the shape of the inputs.
    """

    def __init__(self, probe: Probe, outputs: tuple[int, ...]) -> None:
        super().__init__()
        self.probe, self.outputs = probe, outputs
        bias = torch.full(outputs, -10.0)
        bias[0] = 0  # of a class, or of all that one location of a detector answers
        self.bias = nn.Parameter(bias)
        self.calls = {"forward": 0, "backward": 0}
        self.images = {"forward": 0, "backward": 0}

    def forward(self, inputs: Tensor) -> Tensor:
        """Map inputs (B, ..., 3, H, W) to outputs (B, ...): pixels, and class 0 wins."""
        self._count("forward", inputs)
        count = math.prod(self.outputs)
        pixels = inputs.flatten(1)[:, :count]
        counted: Tensor = _Counter.apply(pixels, lambda grad: self._count("backward", grad))  # type: ignore[no-untyped-call]
        filled = nn.functional.pad(1e-3 * counted, (0, count - pixels.shape[1]))
        return filled.view(-1, *self.outputs) + self.bias

    def _count(self, direction: str, inputs: Tensor) -> None:
        self.calls[direction] += 1
        self.images[direction] += len(inputs)


def attack(about: About, device: torch.device, seconds: float) -> Iterator[Answer]:
    """Answer `attack`: network passes and other seconds, per minibatch and per image.

    The evaluation runs on a network that only counts its passes: with labels that it always gets
    wrong, then with labels that it always gets right. Arguments as in `training_step`.
    """
    probe = about.get("probe", OWN_HEAD)
    largest = max(1, about["batch"] // probe.stack)
    end = time.monotonic() + seconds

    def run(images: int, label: int) -> tuple[float, Tally, Answer]:
        return evaluation(about, device, images=images, label=label)

    few = min(timing.FEW, largest)
    _, fallen, stored = run(few, 1)
    passes = _passes("fallen", fallen, few)
    alive: timing.Points = []
    for images in timing.grown(few, largest):
        took, tally, _ = run(images, 0)
        alive.append((images, took))
        passes |= _passes("alive", tally, images)
        call, image = (
            timing.line(alive) if len(alive) > 1 else (took, 0.0)
        )  # with one size, a call costs all
        share = passes["fallen_image_forwards"] / passes["alive_image_forwards"]
        own = {"alive_call_seconds": call, "alive_image_seconds": image}
        yield passes | own | stored | {"fallen_image_seconds": share * image}
        if timing.is_enough(alive, end, calls=1, least=1):
            break


def evaluation(
    about: About, device: torch.device, *, images: int, label: int
) -> tuple[float, Tally, Answer]:
    """Evaluate a network that only counts its passes, on one minibatch of noise.

    Args:
        about: options of a question for the stage `attack`.
        device: device to measure.
        images: number of images.
        label: label of all images; the network predicts 0.

    Returns:
        Seconds, the network with its counts, and bytes that results store of an image: once, and
        of each radius.
    """
    probe = about.get("probe", OWN_HEAD)
    tally = Tally(probe, about.get("outputs", (about["classes"],))).to(device)
    kinds = torch.full((images,), min(label, about["classes"] - 1))
    before = timing.now(device)
    results = evaluate(
        tally,  # type: ignore[arg-type]  # has all that an evaluation uses of a classifier
        about["attack"],
        timing.noise(images, about["size"]),
        timing.labels(probe.task, kinds, about["size"]),
        views=about.get("views", Views()),
        size=about["size"],
        seed=0,
        batch=images * probe.stack,
        title="calibration",
    )
    took = timing.now(device) - before
    stored = {name: values.nbytes / images for name, values in results.items()}
    each = stored.pop(flag_name(about["attack"].eps[0]))
    return took, tally, {"stored_once": sum(stored.values()), "stored_per_radius": each}


def _passes(part: str, tally: Tally, images: int) -> Answer:
    answer: Answer = {}
    for direction in ("forward", "backward"):
        answer[f"{part}_call_{direction}s"] = tally.calls[direction]
        answer[f"{part}_image_{direction}s"] = tally.images[direction] / images
    return answer
