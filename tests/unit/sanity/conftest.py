"""Heads on small networks that were trained on digits for a few seconds, once per session."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch

from robustviews import stages
from robustviews.artifacts import read_tensors, write_tensors
from robustviews.augment import Views
from robustviews.datasets import Digits
from robustviews.encoder import restore_encoder
from robustviews.evaluate import Classifier
from robustviews.machine import feed
from robustviews.methods import SimClr, Supervised
from robustviews.probe import OWN_HEAD, LinearProbe, NcropProbe, RobustLinearProbe
from robustviews.regimes import Free
from robustviews.sanity import Sanity
from robustviews.sanity.subject import Subject, choose
from tests.unit.tiny_models import OPTIMIZER

SIZE, CLASSES = 8, 10
OPTIONS = Sanity(
    images=24, radii=(0.0, 8.0, 16.0, 64.0), eps=8.0, restarts=1, queries=40, pixels=16
)
NETWORK = {"width": 4, "hidden": 32, "projection": 8}
VIEWS = Views(count=2, scale=(0.5, 1.0), augmentation="geometry")
PROBES = {
    "linear": LinearProbe(epochs=20, lr=0.01, batch_size=100),
    "rle": RobustLinearProbe(epochs=3, lr=0.01, batch_size=50, eps=16, step_size=8, steps=3),
    "ncrop": NcropProbe(n=2, epochs=20),
}
PADDED = Views(count=1, crop="padded", padding=1, augmentation="geometry")
ADAM = OPTIMIZER | {"name": "adam", "lr": 0.01, "weight_decay": 0.0}
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Trained:
    """Weights of encoders by run, of heads by probe, and a test set."""

    weights: dict[str, dict[str, torch.Tensor]]
    images: torch.Tensor
    labels: torch.Tensor

    def classifier(self, probe: str) -> Classifier:
        """Return a new classifier in eval mode: of a probe, or `own` of the supervised network."""
        own = probe == "own"
        run = "supervised" if own else "simclr"
        encoder = restore_encoder(
            self.weights[run], NETWORK, classes=CLASSES if own else None, device=CPU
        )
        options = OWN_HEAD if own else PROBES[probe]
        head = options.restore(self.weights.get(probe, {}), encoder, classes=CLASSES)
        return Classifier(encoder, head, options).eval().requires_grad_(False)

    def subject(self, classifier, **changes) -> Subject:
        """Return a classifier with images that it classifies right."""
        settings = {"options": OPTIONS, "views": VIEWS, "size": SIZE, "seed": 0, "batch": 100}
        rows = feed.of(self.images, CPU)
        return choose(classifier, rows, self.labels, **(settings | changes))


def arrays():
    """Return the arrays of digits, by name."""
    made: dict[str, np.ndarray] = {}

    def create(name, shape, dtype):
        made[name] = np.zeros(shape, dtype)
        return made[name]

    Digits(size=SIZE, test=997).prepare(create)
    return made


@pytest.fixture(scope="session")
def trained(once):
    made = {name: torch.from_numpy(array) for name, array in arrays().items()}

    def fill(folder):
        train = made["train_images"], made["train_labels"]
        common = {"classes": CLASSES, "size": SIZE, "encoder": NETWORK, "device": CPU}
        for run, method, views, epochs in (
            ("simclr", SimClr(), VIEWS, 3),
            ("supervised", Supervised(), PADDED, 4),
        ):
            done = stages.pretrain(
                *train,
                method=method,
                regime=Free(eps=16, step_size=8, replays=2),
                views=views,
                optimizer=ADAM,
                epochs=epochs,
                batch_size=50,
                **common,
            )
            write_tensors(folder / run, done.weights)
        for name, probe in PROBES.items():
            encoder = read_tensors(folder / "simclr")
            options = {"supervised": False, "probe": probe, "views": VIEWS} | common
            head, _ = stages.probe(encoder, *train, **options)
            write_tensors(folder / name, head)

    folder = once("heads", fill)
    weights = {name: read_tensors(folder / name) for name in ("simclr", "supervised", *PROBES)}
    return Trained(weights, made["test_images"], made["test_labels"])
