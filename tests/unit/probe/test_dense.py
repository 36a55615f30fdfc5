"""Dense probes: what is trained, what stays, and the same bytes after an interruption."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from robustviews.attacks import ATTACKS
from robustviews.augment import Views
from robustviews.datasets import DATASETS
from robustviews.encoder import build_encoder
from robustviews.evaluate import Classifier, evaluate
from robustviews.probe import PROBES, dense
from robustviews.probe.dense import DetectionProbe, SegmentationProbe
from robustviews.probe.protocol import Training

SCENES, SIDE = 30, 32


@pytest.fixture(scope="module", params=["segmentation", "detection"])
def scenes(request):
    """Return the name of a task, and its training scenes and labels."""
    arrays = {}

    def create(name, shape, dtype):
        arrays[name] = np.empty(shape, dtype)
        return arrays[name]

    summary = DATASETS[f"scenes_{request.param}"](train=SCENES, test=4).prepare(create)
    images, labels = (torch.from_numpy(arrays[f"train_{name}"]) for name in ("images", "labels"))
    return request.param, images, labels, summary["classes"]


def trained(scenes, checkpoint=None, **options):
    """Return the encoder, the trained weights, and the history, of a few updates."""
    task, images, labels, classes = scenes
    encoder = build_encoder(width=4, hidden=None).eval()
    settings = {"updates": 7, "batch_size": 10, "warmup": 2} | options
    training = Training(images, labels, classes, Views(), SIDE, 0, checkpoint=checkpoint)
    head, history = PROBES[task](**settings).train(encoder, training)
    return encoder, head, history


def same(one, other):
    return all(torch.equal(one[name], other[name]) for name in one) and set(one) == set(other)


def test_the_loss_falls_and_each_pass_has_a_line(scenes):
    _, _, history = trained(scenes, updates=24)
    assert [row["updates"] for row in history] == [3, 6, 9, 12, 15, 18, 21, 24]
    assert history[-1]["loss"] < history[0]["loss"]


@pytest.mark.parametrize("flip", [False, True])
def test_a_frozen_encoder_keeps_every_weight_and_statistic(scenes, flip):
    encoder, head, _ = trained(scenes, flip=flip)
    assert same(encoder.state_dict(), build_encoder(width=4, hidden=None).state_dict())
    assert not any(module.training for module in head.modules())


@pytest.mark.parametrize("batchnorm", ["frozen", "train"])
def test_a_tuned_encoder_moves_its_statistics_only_if_asked(scenes, batchnorm):
    encoder, tuned, _ = trained(scenes, tuned=True, batchnorm=batchnorm)
    before, after = build_encoder(width=4, hidden=None).state_dict(), encoder.state_dict()
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert "backbone.conv1.weight" in moved
    assert any(name.endswith("running_mean") for name in moved) == (batchnorm == "train")
    assert {name.partition(".")[0] for name in tuned.state_dict()} == {"encoder", "head"}


def test_maps_that_are_not_kept_give_the_same_losses_but_for_rounding(scenes, monkeypatch):
    _, _, kept = trained(scenes)
    monkeypatch.setattr(dense, "KEPT", 0)
    _, _, again = trained(scenes)
    assert [row["loss"] for row in again] == pytest.approx([row["loss"] for row in kept], rel=0.01)


class Saved:
    """A checkpoint that keeps the state after a number of updates."""

    def __init__(self, after=None, state=None):
        self.after, self.state, self.count = after, state, 0

    def load(self):
        return self.state

    def due(self):
        self.count += 1
        return self.count == self.after

    def save(self, tensors, position):
        self.state = {name: x.clone() for name, x in tensors.items()}, position


@pytest.mark.parametrize("tuned", [False, True])
@pytest.mark.parametrize("after", [1, 3, 5])
def test_a_training_that_resumes_gives_the_same_bytes(scenes, tuned, after):
    saved = Saved(after)
    _, whole, history = trained(scenes, saved, tuned=tuned, flip=True)
    _, resumed, again = trained(scenes, Saved(state=saved.state), tuned=tuned, flip=True)
    assert same(whole.state_dict(), resumed.state_dict())
    assert again == history


@pytest.mark.parametrize("after", [1, 2])
def test_an_attack_that_resumes_gives_the_same_answers(scenes, after):
    task, images, labels, _ = scenes
    encoder, head, _ = trained(scenes)
    kind = {"segmentation": "segmentation_pgd", "detection": "detection_pgd"}[task]
    attack = ATTACKS[kind](eps=(8.0,), steps=3, images=5)

    def found(checkpoint):
        model = Classifier(encoder, head, PROBES[task]())
        options = {"views": Views(), "size": SIDE, "seed": 0, "batch": 2}
        return evaluate(model, attack, images, labels, checkpoint=checkpoint, **options)

    saved = Saved(after)
    whole = found(saved)
    assert same(whole, found(Saved(state=saved.state)))
    assert {name: len(rows) for name, rows in whole.items()} == dict.fromkeys(whole, 5)


def test_mirrored_labels_are_those_of_mirrored_images(scenes):
    task, images, labels, _ = scenes
    kind = {"segmentation": SegmentationProbe, "detection": DetectionProbe}[task].task
    turned = kind.flipped(labels, SIDE)
    assert torch.equal(kind.flipped(turned, SIDE), labels)
    ink = images.flip(-1)[:, 0] >= 90
    if task == "segmentation":
        assert torch.equal(turned > 0, ink)
    else:
        for image, boxes in zip(ink, turned, strict=True):
            inside = torch.zeros(SIDE, SIDE, dtype=torch.bool)
            for x1, y1, x2, y2 in boxes[boxes[:, 4] >= 0][:, :4].int().tolist():
                inside[y1:y2, x1:x2] = True
            assert not (image & ~inside).any()
