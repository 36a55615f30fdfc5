"""Short trainings of every method in every regime, and the stored losses of each.

The network is in float64 and fed in float32, so that the losses are the same on every machine up to
the rounding of views. Adversarial trainings take views that are exact (a shifted or mirrored image,
no colour): where a gradient is close to zero another rounding would turn its sign, and from then on
the training is another one. Standard trainings take the views of the paper.

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
from robustviews.methods import METHODS, Batch, Method
from robustviews.pretrain import pretrain
from robustviews.regimes import REGIMES, Regime, Update
from tests.unit.tiny_models import OPTIMIZER, labels_of, noise_images, tiny_encoder

STORED = Path(__file__).with_name("trajectories.json")
NAMES = [f"{method}-{regime}" for method in METHODS for regime in REGIMES]
COUNTS = {"emp_ssl": 3, "simclr": 2, "supervised": 1}
RECIPES = {"emp_ssl": "emp_ssl", "simclr": "simclr", "supervised": "geometry"}


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
    method, regime = METHODS[method_name](), Listening(REGIMES[regime_name]())
    encoder = tiny_encoder(supervised=method.supervised).double()
    encoder.register_forward_pre_hook(lambda _, inputs: (inputs[0].double(),))
    count = COUNTS[method_name]
    exact = Views(count, crop="padded", padding=2, augmentation="geometry")
    random = Views(count, augmentation=RECIPES[method_name])
    progress = pretrain(
        encoder,
        noise_images(20),
        labels_of(20),
        method=method,
        regime=regime,
        views=random if regime_name == "standard" else exact,
        size=8,
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


if __name__ == "__main__":
    torch.set_num_threads(1)
    lines = [f'"{name}": {json.dumps(trajectory(name))}' for name in NAMES]
    STORED.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
