"""On the real CIFAR-10: what is learned is more than chance, and free training makes it robust."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import numpy as np
import pytest
import torch

from robustviews.artifacts import new_array
from robustviews.attacks import PgdAttack
from robustviews.augment import Views
from robustviews.datasets import Cifar10, open_split
from robustviews.encoder import build_encoder
from robustviews.evaluate import Classifier, evaluate
from robustviews.methods import EmpSsl
from robustviews.pretrain import pretrain
from robustviews.probe import LinearProbe, NcropProbe
from robustviews.probe.protocol import Training
from robustviews.regimes import Free, Standard
from robustviews.study.schema import Optimizer

SIZE, SEED = 32, 0
VIEWS = Views(count=4, scale=(0.25, 1.0), augmentation="emp_ssl")
OPTIMIZER = dataclasses.asdict(Optimizer(schedule_horizon="updates"))
REGIMES = {"standard": Standard(), "free": Free(replays=3, eps=8, step_size=4)}
NCROP = NcropProbe(n=4, epochs=20, lr=0.3)
LINEAR = LinearProbe(epochs=20, lr=0.003)


class Images(NamedTuple):
    train: torch.Tensor  # (2000, 3, 32, 32) uint8
    train_labels: torch.Tensor
    test: torch.Tensor  # (500, 3, 32, 32) uint8
    test_labels: torch.Tensor


@pytest.fixture(scope="module")
def images(raw, tmp_path_factory):
    prepared = tmp_path_factory.mktemp("cifar10")
    Cifar10(root=str(raw), train_images=2000, test_images=500).prepare(
        lambda name, shape, dtype: new_array(prepared / f"{name}.npy", shape, dtype)
    )
    arrays = [
        np.array(array) for split in ("train", "test") for array in open_split(prepared, split)
    ]
    return Images(*map(torch.from_numpy, arrays))


@pytest.fixture(scope="module")
def encoders(images):
    """One pass over the data, 20 minibatches: 20 updates, or 60 with 3 replays."""
    trained = {}
    for name, regime in REGIMES.items():
        encoder = build_encoder(width=8, hidden=256, projection=64, seed=SEED)
        pretrain(
            encoder,
            images.train,
            images.train_labels,
            method=EmpSsl(),
            regime=regime,
            views=VIEWS,
            size=SIZE,
            epochs=1,
            batch_size=100,
            optimizer=OPTIMIZER,
            precision="bf16",
            seed=SEED,
        )
        encoder.precision = "fp32"
        trained[name] = encoder
    return trained


def accuracies(encoder, probe, attack, images):
    """Train a head, then return the fraction of right predictions, clean and under an attack."""
    training = Training(
        images.train, images.train_labels, classes=10, views=VIEWS, size=SIZE, seed=SEED
    )
    head, _ = probe.train(encoder, training)
    flags = evaluate(
        Classifier(encoder, head, probe),
        attack,
        images.test,
        images.test_labels,
        views=VIEWS,
        size=SIZE,
        seed=SEED,
    )
    (eps,) = attack.eps
    return [flags[name].float().mean().item() for name in ("clean", f"eps_{eps:g}")]


@pytest.mark.parametrize("name", REGIMES)
def test_an_encoder_tells_classes_apart_far_above_chance(name, encoders, images):
    hardly = PgdAttack(eps=(1.0,), steps=1, images=None)
    clean, _ = accuracies(encoders[name], NCROP, hardly, images)
    # Chance is 0.10, with a deviation of 0.013. Seen with seeds 0, 1, 2: 0.29 to 0.34.
    assert clean > 0.20


def test_free_training_keeps_accuracy_under_attack_that_standard_training_loses(encoders, images):
    pgd10 = PgdAttack(eps=(4.0,), steps=10, step_size=1.0, images=300)
    _, standard = accuracies(encoders["standard"], LINEAR, pgd10, images)
    _, free = accuracies(encoders["free"], LINEAR, pgd10, images)
    # Seen with seeds 0, 1, 2: 0.00 to 0.02 against 0.25 to 0.26; 0.07 with an adversary of eps = 0.
    assert free > 0.15
    assert free > standard + 0.10
