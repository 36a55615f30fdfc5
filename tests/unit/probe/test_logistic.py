"""The logistic probe: the minimum that scikit-learn finds, and a penalty that no test chooses."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from robustviews.probe import LogisticProbe
from robustviews.probe.holdout import hold_out
from tests.unit.tiny_models import CLASSES, Pixels, labels_of, noise_images, probe_task, weights_of


def features(images):
    return Pixels().represent(images / 255).detach().double().numpy()


def theirs(images, labels, c):
    model = LogisticRegression(C=c, tol=1e-10, max_iter=10_000)
    return model.fit(features(images), labels.numpy())


@pytest.mark.parametrize("c", [0.01, 1.0, 100.0])
def test_the_head_is_the_one_of_scikit_learn(c):
    images, labels = noise_images(80, size=4), labels_of(80)
    head, history = LogisticProbe(regularisation=(c,)).train(Pixels(4), probe_task(images, labels))
    expected = theirs(images, labels, c)
    # The penalty does not see a constant that is added to all biases.
    bias = head.bias.detach().numpy()
    np.testing.assert_allclose(head.weight.detach().numpy(), expected.coef_, rtol=2e-4, atol=2e-4)
    np.testing.assert_allclose(
        bias - bias.mean(), expected.intercept_ - expected.intercept_.mean(), atol=2e-4
    )
    assert history[-1]["accuracy"] == expected.score(features(images), labels.numpy())


def test_the_penalty_with_the_best_held_out_accuracy_fits_all_images():
    images, labels = noise_images(120, size=4), labels_of(120)
    images[:, 0, 0] = (labels.unsqueeze(1) * 30 + images[:, 0, 0] // 2).to(torch.uint8)
    kept, held = hold_out(labels)
    penalties = (1e-3, 0.1, 10.0)
    scores = [
        theirs(images[kept], labels[kept], c).score(features(images[held]), labels[held].numpy())
        for c in penalties
    ]
    assert len(set(scores)) > 1
    probe = LogisticProbe(regularisation=penalties)
    head, history = probe.train(Pixels(4), probe_task(images, labels))
    assert [row["held_out"] for row in history[:-1]] == pytest.approx(scores)
    best = penalties[int(np.argmax(scores))]
    assert history[-1]["regularisation"] == best
    alone, _ = LogisticProbe(regularisation=(best,)).train(Pixels(4), probe_task(images, labels))
    assert weights_of(head) == weights_of(alone)


def test_a_tenth_is_held_out_in_the_proportions_of_the_classes():
    labels = torch.tensor([0] * 60 + [1] * 30 + [2] * 10)
    kept, held = hold_out(labels)
    assert sorted([*kept.tolist(), *held.tolist()]) == list(range(100))
    assert labels[held].bincount().tolist() == [6, 3, 1]
    assert len(hold_out(labels_of(CLASSES))[1]) == 1
