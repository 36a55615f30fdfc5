"""Short trainings of every method in every regime, and the stored losses of each.

The losses must be the same on every machine. Adversarial training is no help in that: where a
gradient is close to zero, another rounding turns its sign, and from then on the training is another
one. So networks are in float64, and whatever is in float32 is exact: weights are no normal numbers,
whose last bits depend on the processor, and views are shifted or mirrored images without colour.

To store new losses after a change that is meant to change them:

    python -m tests.golden.trajectories

and say in the commit why they changed.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from robustviews.augment import Views
from robustviews.encoder import Encoder
from robustviews.machine import runtime
from robustviews.methods import METHODS, Batch, Method
from robustviews.pretrain import pretrain
from robustviews.regimes import REGIMES, Regime, Update
from tests.unit.tiny_models import (
    OPTIMIZER,
    encoder_for,
    labels_of,
    noise_images,
    small_method,
)

STORED = Path(__file__).with_name("trajectories.json")
VIEWS = {"emp_ssl": 3, "supervised": 1}  # two of any other method
NAMES = [f"{method}-{regime}" for method in METHODS for regime in REGIMES]
SIZE = 16  # smaller images end as one pixel, on which batch norm makes a training chaotic


class Listening:
    """A regime that also remembers the loss of every update."""

    def __init__(self, regime: Regime) -> None:
        self.regime = regime
        self.losses: list[float] = []

    @property
    def updates_per_batch(self) -> int:
        """Updates of the regime that is listened to."""
        return self.regime.updates_per_batch

    def train_batch(
        self,
        net: nn.Module,
        method: Method,
        batch: Batch,
        delta: Tensor | None,
        update: Update,
        generator: torch.Generator | None,
    ) -> tuple[list[Tensor], Tensor | None]:
        """Train as the regime does."""
        losses, delta = self.regime.train_batch(net, method, batch, delta, update, generator)
        self.losses += [loss.item() for loss in losses]
        return losses, delta


def trajectory(name: str) -> dict[str, Any]:
    """Train two passes of three minibatches; return what came out.

    Args:
        name: one of NAMES.
    """
    method_name, regime_name = name.split("-")
    method, regime = small_method(method_name), Listening(REGIMES[regime_name]())
    encoder = exact_encoder(method_name)
    progress = pretrain(
        encoder,
        noise_images(20, size=SIZE),
        labels_of(20),
        method=method,
        regime=regime,
        views=Views(VIEWS.get(method_name, 2), crop="padded", padding=2, augmentation="geometry"),
        size=SIZE,
        epochs=2,
        batch_size=6,  # two images are left out of each pass
        optimizer=OPTIMIZER,
        seed=0,
    )
    norms = [parameter.norm() for parameter in encoder.parameters()]
    return {
        "losses": regime.losses,
        "rates": [row["lr"] for row in progress.history],
        "norm_of_weights": torch.stack(norms).norm().item(),
    }


def exact_encoder(method: str) -> Encoder:
    """Return an encoder in float64 for images in float32, its weights the same everywhere."""
    encoder = encoder_for(method).double()
    for number, (name, parameter) in enumerate(encoder.named_parameters()):
        if parameter.dim() > 1:
            inputs = parameter[0].numel()
            numbers = runtime.counter_uniform(number, torch.arange(parameter.numel()), 1)
            scaled = (2 * numbers.double() - 1) * (6 / inputs) ** 0.5  # He et al. 2015, fan in
            parameter.data.copy_(scaled.view_as(parameter))
        elif name.endswith("bias"):
            parameter.data.zero_()
    encoder.register_forward_pre_hook(lambda _, inputs: (inputs[0].double(),))
    return encoder


if __name__ == "__main__":
    torch.set_num_threads(1)
    lines = [f'"{name}": {json.dumps(trajectory(name))}' for name in NAMES]
    STORED.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
