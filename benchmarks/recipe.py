"""The one training step that all benchmarks of a step time, and its sizes."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Recipe:
    """CF-AMC-SSL on CIFAR-10: EMP-SSL with free adversarial training.

    Attributes:
        batch: images B of a minibatch.
        crops: views V of each image.
        replays: m; each is an update.
        size: side of an image and of a view, in pixels.
        width: channels of ResNet-18's first stage.
        hidden: width of pre-feature and projector.
        projection: dimension D of the projections.
        eps: radius of the perturbation, in pixel units.
        step_size: of the perturbation, in pixel units.
        tcr_eps: distortion of the coding rate.
        lr: learning rate; constant, since no time depends on it.
        momentum: Nesterov momentum.
        weight_decay: L2 penalty.
        eta: trust coefficient of LARS.

    Source: arXiv 2501.03507 and its reference code.
    """

    batch: int = 100
    crops: int = 16
    replays: int = 3
    size: int = 32
    width: int = 64
    hidden: int = 4096
    projection: int = 1024
    eps: float = 8 / 255
    step_size: float = 0.01
    tcr_eps: float = 0.2
    lr: float = 0.3
    momentum: float = 0.9
    weight_decay: float = 1e-4
    eta: float = 0.005

    @property
    def crop_passes(self) -> int:
        """Crops that go forward and backward through the network for one minibatch."""
        return self.batch * self.crops * self.replays

    def settings(self) -> dict[str, Any]:
        """Return the sizes alone, for a record."""
        sizes = ("batch", "crops", "replays", "size", "width", "hidden", "projection")
        return {key: value for key, value in asdict(self).items() if key in sizes}


def random_images(count: int, size: int) -> Tensor:
    """Return images of noise (count, 3, size, size) uint8: no time depends on what they show."""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(256, (count, 3, size, size), dtype=torch.uint8, generator=generator)
