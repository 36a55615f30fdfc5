"""Segmentation: what is stored of answers, its metrics against torchmetrics, and its loss."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from robustviews.tasks import segmentation
from robustviews.tasks.protocol import VOID
from robustviews.tasks.segmentation import SEGMENTATION

CLASSES, IMAGES, SIDE = 5, 6, 12


def draw(seed):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(IMAGES, CLASSES, SIDE, SIDE, generator=generator)
    labels = torch.randint(CLASSES - 1, (IMAGES, SIDE, SIDE), generator=generator)  # one is absent
    labels[torch.rand(labels.shape, generator=generator) < 0.2] = VOID
    labels[0] = VOID
    return logits, labels.to(torch.uint8)


def stored(logits, labels):
    answers = SEGMENTATION.answers(logits, labels, (SIDE, SIDE)).numpy()
    return answers, SEGMENTATION.truth(labels.numpy(), answers)


@pytest.mark.parametrize("seed", range(3))
def test_scores_are_those_of_torchmetrics(seed):
    pytest.importorskip("torchmetrics", reason="needs torchmetrics")
    from torchmetrics.classification import MulticlassAccuracy, MulticlassJaccardIndex

    logits, labels = draw(seed)
    answers, truth = stored(logits, labels)
    once = np.ones((1, IMAGES))
    found = logits.argmax(dim=1)
    each = MulticlassJaccardIndex(CLASSES, average="none", ignore_index=VOID)(found, labels.long())
    share = MulticlassAccuracy(CLASSES, average="micro", ignore_index=VOID)(found, labels.long())
    present = torch.arange(CLASSES - 1)
    assert SEGMENTATION.score(answers, truth, once) == pytest.approx(each[present].mean().item())
    accuracy = SEGMENTATION.score(answers, truth, once, "pixel-accuracy")
    assert accuracy == pytest.approx(share.item())


@pytest.mark.parametrize("lacks", [False, True])
def test_an_image_that_counts_twice_scores_as_two_images(lacks):
    logits, labels = draw(0)
    if lacks:  # the draw has no image of this class
        labels[4, 0, 0] = CLASSES - 1
    answers, truth = stored(logits, labels)
    counts = np.array([[1, 2, 0, 1, 0, 3]])
    rows = np.repeat(np.arange(IMAGES), counts[0])
    many = SEGMENTATION.score(answers[rows], truth[rows], np.ones((1, len(rows))))
    assert (truth.sum(axis=0) > 0).sum() - (truth[rows].sum(axis=0) > 0).sum() == lacks
    assert SEGMENTATION.score(answers, truth, counts) == pytest.approx(many)


def test_void_pixels_are_neither_scored_nor_trained_on():
    logits, labels = draw(0)
    answers, truth = stored(logits, labels)
    loss = SEGMENTATION.loss(logits, labels, None, (SIDE, SIDE))
    other = torch.where((labels == VOID).unsqueeze(1), logits.flip(1), logits)
    assert (stored(other, labels)[0] == answers).all()
    assert torch.equal(SEGMENTATION.loss(other, labels, None, (SIDE, SIDE)), loss)
    assert (loss[0], SEGMENTATION.quality(answers, truth)[0]) == (0, 1)


def test_the_loss_is_torchs_weighted_mean_of_each_image():
    logits, labels = draw(1)
    weights = SEGMENTATION.class_weights(labels, CLASSES)
    assert weights.mean() == pytest.approx(1)
    expected = [
        torch.nn.functional.cross_entropy(one[None], label[None].long(), weights, ignore_index=VOID)
        for one, label in zip(logits[1:], labels[1:], strict=True)
    ]
    found = SEGMENTATION.loss(logits, labels, weights, (SIDE, SIDE))[1:]
    torch.testing.assert_close(found, torch.stack(expected))


def test_weights_of_classes_count_a_few_images_at_a_time(monkeypatch):
    seen, count = [], segmentation._pixels
    monkeypatch.setattr(segmentation, "_pixels", lambda *of: seen.append(len(of[0])) or count(*of))
    labels = torch.cat([draw(seed)[1] for seed in range(30)])
    numbers = torch.bincount(labels[labels != VOID].long(), minlength=CLASSES).clamp_min(1)
    weights = (numbers.sum() / numbers).sqrt()
    found = SEGMENTATION.class_weights(labels, CLASSES)
    torch.testing.assert_close(found, weights / weights.mean())
    assert max(seen) < sum(seen) == len(labels)


def test_answers_that_cannot_be_are_named():
    answers, truth = stored(*draw(0))
    assert not list(SEGMENTATION.wrong(answers, truth))
    more = answers.copy()
    more[1, 0, 0] = truth[1, 0] + 1
    assert "more pixels are right" in " ".join(SEGMENTATION.wrong(more, truth))
    fewer = answers.copy()
    fewer[1, 0, 1] += 1
    assert "one class" in " ".join(SEGMENTATION.wrong(fewer, truth))
    assert "found (5, 5, 2)" in " ".join(SEGMENTATION.wrong(answers[1:], truth))


@pytest.mark.parametrize(
    ("logits", "labels", "words"),
    [
        (torch.zeros(2, 3), torch.zeros(2), "expected logits"),
        (torch.zeros(2, 3, 4, 4), torch.zeros(2, 5, 4), "expected logits"),
        (torch.zeros(2, 3, 4, 4), torch.full((2, 4, 4), 3), "labels from 0 to 2"),
    ],
)
def test_outputs_of_another_form_are_refused(logits, labels, words):
    with pytest.raises(ValueError, match=words):
        SEGMENTATION.check(logits, labels)
