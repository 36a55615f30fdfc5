"""The k-NN probe: votes as in its definition, and logits that an attack can follow."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from robustviews.attacks import PgdAttack
from robustviews.augment import Views
from robustviews.encoder import WeightsError
from robustviews.evaluate import Classifier, evaluate
from robustviews.probe import KnnProbe
from robustviews.probe.neighbours import Neighbours
from tests.unit.probe.test_probes import separable
from tests.unit.tiny_models import CLASSES, Pixels, inventory, probe_task, tiny_encoder


def votes(bank, labels, h, *, k, temperature, classes):
    """Return the votes (B, classes) in float64, by the definition of Wu et al. 2018, sorted."""
    bank, h = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (bank, h))
    total = np.zeros((len(h), classes))
    for row, one in enumerate(h):
        similar = bank @ one
        for near in np.argsort(-similar)[:k]:
            total[row, labels[near]] += np.exp(similar[near] / temperature)
    return total


@pytest.mark.parametrize(("k", "temperature"), [(1, 0.07), (5, 0.07), (20, 0.5), (500, 0.07)])
def test_votes_are_those_of_a_computation_in_float64(k, temperature):
    rng = np.random.default_rng(k)
    bank, labels, h = rng.normal(size=(90, 6)), rng.integers(0, 7, 90), rng.normal(size=(40, 6))
    head = Neighbours.of(
        torch.tensor(bank, dtype=torch.float32),
        torch.tensor(labels),
        classes=7,
        k=k,
        temperature=temperature,
    )
    logits = head(torch.tensor(h, dtype=torch.float32)).double().numpy()
    expected = votes(bank, labels, h, k=k, temperature=temperature, classes=7)
    assert np.array_equal(logits.argmax(axis=1), expected.argmax(axis=1))
    voted = expected > 0
    np.testing.assert_allclose(logits[voted], np.log(expected[voted]), atol=2e-4)
    # A class without a vote stays below every class with one.
    least = np.where(voted, logits, np.inf).min(axis=1, keepdims=True)
    assert (np.where(voted, -np.inf, logits) <= least).all()


def test_every_class_moves_with_the_features_and_an_absent_class_never_wins():
    generator = torch.Generator().manual_seed(0)
    bank, labels = torch.randn(30, 5, generator=generator), torch.arange(30) % 3
    head = Neighbours.of(bank, labels, classes=4, k=1, temperature=0.07)
    h = torch.randn(8, 5, generator=generator, requires_grad=True)
    logits = head(h)
    for one in range(3):
        (gradient,) = torch.autograd.grad(logits[:, one].sum(), h, retain_graph=True)
        assert (gradient.abs().sum(dim=1) > 0).all()
    assert logits.isfinite().all()
    assert (logits.argmax(dim=1) < 3).all()


def test_an_attack_on_the_probe_succeeds_at_a_large_radius_and_not_at_a_small_one():
    images, labels = separable()
    probe, encoder = KnnProbe(k=5), Pixels(4)
    head, history = probe.train(encoder, probe_task(images, labels))
    attack = PgdAttack(eps=(2.0, 120.0), steps=10, step_size=20)
    flags = evaluate(
        Classifier(encoder, head, probe), attack, *separable(seed=1), views=Views(), size=4, seed=0
    )
    shares = {name: flags[name].float().mean().item() for name in ("clean", "eps_2", "eps_120")}
    assert shares == {"clean": 1, "eps_2": 1, "eps_120": 0}
    assert history == []


def test_a_restored_head_is_the_saved_one_and_another_head_is_refused():
    encoder = tiny_encoder().eval()
    before = inventory(encoder)
    probe = KnnProbe(k=3)
    head, _ = probe.train(encoder, probe_task(*separable()))
    assert inventory(encoder) == before
    again = probe.restore(head.state_dict(), encoder, classes=CLASSES)
    h = torch.randn(4, encoder.width_of("backbone"), generator=torch.Generator().manual_seed(0))
    assert torch.equal(again(h), head(h))
    wide = tiny_encoder(hidden=99)
    with pytest.raises(WeightsError):
        replace(probe, feature="prefeature").restore(head.state_dict(), wide, classes=CLASSES)
    for weights, classes in ((head.state_dict(), 5), ({}, CLASSES)):
        with pytest.raises(WeightsError):
            probe.restore(weights, encoder, classes=classes)
