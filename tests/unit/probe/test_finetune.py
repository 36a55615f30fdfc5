"""Fine-tuning: all weights learn, held-out images alone choose, interruptions change nothing."""

from __future__ import annotations

import functools
from dataclasses import replace

import numpy as np
import pytest
import torch

from robustviews import stages
from robustviews.attacks import PgdAttack
from robustviews.augment import Views
from robustviews.datasets import Digits
from robustviews.finite import NonFiniteError
from robustviews.optim import with_prefix
from robustviews.probe import FinetuneProbe, LinearProbe
from robustviews.probe.holdout import hold_out
from tests.unit.datasets.test_photographs import prepared
from tests.unit.test_pretrain import InterruptedTraining, Memory
from tests.unit.tiny_models import (
    CLASSES,
    HIDDEN,
    labels_of,
    noise_images,
    probe_task,
    tiny_encoder,
    weights_of,
)

PROBE = FinetuneProbe(updates=3, batch_size=5, lr=(0.01, 0.1), weight_decay=(0.01,))
UPDATES = 9  # of two rates and the last training


def tuned(probe=PROBE, checkpoint=None):
    """Return the bytes of encoder and head, and the history."""
    task = probe_task(noise_images(), labels_of(), checkpoint=checkpoint)
    head, history = probe.train(tiny_encoder().eval(), task)
    return weights_of(head), history


@functools.cache
def undisturbed():
    return tuned()


def test_the_backbone_is_trained_and_the_projector_is_not():
    before = {name: x.clone() for name, x in tiny_encoder().state_dict().items()}
    encoder = tiny_encoder().eval()
    head, _ = PROBE.train(encoder, probe_task(noise_images(), labels_of()))
    after = with_prefix("encoder.", head.state_dict())
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved == {name for name in before if name.startswith("backbone.")}
    assert not encoder.training
    assert all(parameter.grad is None for parameter in head.parameters())


def test_the_prefeature_is_trained_if_the_head_reads_it():
    task = probe_task(noise_images(), labels_of())
    head, _ = replace(PROBE, feature="prefeature").train(tiny_encoder().eval(), task)
    assert head.head.weight.shape == (CLASSES, HIDDEN)
    assert not torch.equal(head.encoder.prefeature[0].weight, tiny_encoder().prefeature[0].weight)


def test_a_tuning_resumes_from_any_update_as_if_never_interrupted():
    memory = Memory()
    assert tuned(checkpoint=memory) == undisturbed()
    assert len(memory.saved) == UPDATES
    for done in range(1, UPDATES + 1):
        again = Memory()
        again.saved = memory.saved[:done]
        assert tuned(checkpoint=again) == undisturbed()
        assert again.minibatches == UPDATES - done


def test_a_tuning_that_is_interrupted_repeatedly_has_the_same_result():
    memory = Memory(every=2)
    for dies_after in (1, 3, 4):
        memory.minibatches, memory.dies_after = 0, dies_after
        with pytest.raises(InterruptedTraining):
            tuned(checkpoint=memory)
    memory.minibatches, memory.dies_after = 0, None
    assert tuned(checkpoint=memory) == undisturbed()


def test_the_rate_with_the_best_held_out_accuracy_trains_on_all_images():
    _, history = undisturbed()
    chosen = PROBE.lr[int(np.argmax([row["held_out"] for row in history[:-1]]))]
    assert history[-1]["lr"] == chosen
    assert tuned()[0] == tuned(replace(PROBE, lr=(chosen,)))[0]


def test_no_trial_trains_on_a_held_out_image():
    labels = labels_of(40)
    _, held = hold_out(labels)
    images, poisoned = noise_images(40), noise_images(40)
    poisoned[held] = 255 - poisoned[held]

    def losses(images):
        probe = replace(PROBE, updates=8)  # one pass over all 40 images
        return [
            row["loss"] for row in probe.train(tiny_encoder().eval(), probe_task(images, labels))[1]
        ]

    clean, other = losses(images), losses(poisoned)
    assert clean[:-1] == other[:-1]
    assert clean[-1] != other[-1]


def test_a_rate_that_diverges_is_not_chosen_and_is_an_error_alone():
    _, history = tuned(replace(PROBE, lr=(1e20, 0.01)))
    assert {"loss", "held_out"}.isdisjoint(history[0])
    assert history[-1]["lr"] == 0.01
    for rates in ((1e20,), (1e20, 1e21)):
        with pytest.raises(NonFiniteError, match="is not finite; lower lr of the probe"):
            tuned(replace(PROBE, lr=rates))


def test_the_weight_decay_decides():
    none, some = (tuned(replace(PROBE, lr=(0.1,), weight_decay=(w,)))[0] for w in (0.0, 0.1))
    assert none != some


@pytest.mark.slow
def test_tuning_beats_the_linear_probe_on_a_random_encoder():
    arrays = prepared(Digits(size=16, test=300))[1]
    shape = {"width": 4, "hidden": HIDDEN, "projection": 8}
    encoder = tiny_encoder(**shape).state_dict()
    common = {"classes": 10, "size": 16, "encoder": shape, "supervised": False, "views": Views()}
    common["device"] = torch.device("cpu")
    train, test = (
        (arrays[f"{split}_images"], torch.tensor(arrays[f"{split}_labels"]))
        for split in ("train", "test")
    )

    def accuracy(probe):
        network, head = encoder, stages.probe(encoder, *train, **common, probe=probe)[0]
        if probe.network_updates:
            network, head = with_prefix("encoder.", head), with_prefix("head.", head)
        attack = PgdAttack(eps=(1.0,), steps=1, step_size=1)
        flags = stages.attack(network, head, *test, **common, probe=probe, attack=attack)
        return flags["clean"].float().mean().item()

    linear = accuracy(LinearProbe(epochs=20, lr=0.01, feature="backbone"))
    probe = FinetuneProbe(updates=150, batch_size=50, lr=(0.1,), weight_decay=(0.0,), crop="none")
    assert accuracy(probe) > max(0.9, linear + 0.05)
