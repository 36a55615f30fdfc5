"""Probes: what a head is trained on, what it reads of an image, and an unchanged encoder."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from robustviews import augment
from robustviews.attacks import PgdAttack
from robustviews.augment import Views
from robustviews.evaluate import Classifier, evaluate
from robustviews.probe import (
    PROBES,
    FinetuneProbe,
    KnnProbe,
    LinearProbe,
    LogisticProbe,
    NcropProbe,
    OwnHead,
    RobustLinearProbe,
)
from robustviews.probe.dense import DetectionProbe, SegmentationProbe
from robustviews.probe.heads import new_head, represent
from tests.unit.tiny_models import (
    CLASSES,
    HIDDEN,
    SIZE,
    WIDTH,
    Pixels,
    inventory,
    labels_of,
    noise_images,
    probe_task,
    tiny_encoder,
    weights_of,
)

TRAINED = {
    "linear": LinearProbe(epochs=2, batch_size=5),
    "robust_linear": RobustLinearProbe(epochs=2, batch_size=5, steps=2),
    "ncrop": NcropProbe(n=2, epochs=2, batch_size=5),
}
trained = pytest.mark.parametrize("probe", TRAINED.values(), ids=TRAINED)


def separable(count=40, seed=0):
    """Return images whose class is the brightest of four columns, and their labels."""
    labels = labels_of(count)
    images = noise_images(count, size=4, seed=seed) // 8
    images[torch.arange(count), :, :, labels] += 180
    return images, labels


def accuracy(encoder, head, probe, images, labels):
    task = probe_task(images, labels)
    inputs = probe.inputs(images, torch.arange(len(images)), task.views, size=task.size, seed=9)
    with torch.no_grad():
        logits = Classifier(encoder, head, probe)(inputs)
    return (logits.argmax(dim=1) == labels).float().mean().item()


def flat(head):
    return torch.cat([parameter.detach().flatten() for parameter in head.parameters()])


def test_every_probe_of_the_table_is_tested_here():
    # Each of these has tests of its own.
    others = {OwnHead, KnnProbe, LogisticProbe, FinetuneProbe, SegmentationProbe, DetectionProbe}
    assert {type(probe) for probe in TRAINED.values()} | others == set(PROBES.values())


# What all of them do


@trained
def test_a_probe_learns_classes_that_are_linear_in_the_features(probe):
    images, labels = separable()
    probe = replace(probe, epochs=30, lr=0.05)
    views = Views(crop="none", augmentation="geometry")
    encoder = Pixels(4)
    # A mirror image has other columns: for the n-crop probe both columns are one class.
    labels = labels if not isinstance(probe, NcropProbe) else torch.minimum(labels, 3 - labels)
    head, history = probe.train(encoder, probe_task(images, labels, views=views))
    assert history[-1]["accuracy"] == 1
    assert history[-1]["loss"] < history[0]["loss"]
    if not isinstance(probe, NcropProbe):
        assert accuracy(encoder, head, probe, *separable(seed=1)) == 1


@trained
def test_history_has_a_line_for_each_epoch(probe):
    _, history = probe.train(tiny_encoder().eval(), probe_task(noise_images(), labels_of()))
    assert [row["epoch"] for row in history] == [1, 2]
    assert all(set(row) == {"epoch", "loss", "accuracy", "lr"} for row in history)
    assert all(0 <= row["accuracy"] <= 1 for row in history)


@trained
def test_a_probe_changes_nothing_of_the_encoder(probe):
    encoder = tiny_encoder().eval()
    for parameter in encoder.parameters():
        parameter.grad = torch.ones_like(parameter)
    before = inventory(encoder)
    probe.train(encoder, probe_task(noise_images(), labels_of()))
    assert inventory(encoder) == before


@trained
def test_a_probe_changes_neither_images_nor_the_global_generator(probe):
    images = noise_images()
    torch.manual_seed(5)
    state = torch.get_rng_state()
    probe.train(tiny_encoder().eval(), probe_task(images, labels_of()))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(images, noise_images())


@trained
def test_the_same_seed_gives_the_same_head_and_another_one_another(probe):
    def trained_head(seed):
        task = probe_task(noise_images(), labels_of(), seed=seed)
        return weights_of(probe.train(tiny_encoder().eval(), task)[0])

    assert trained_head(3) == trained_head(3)
    assert trained_head(3) != trained_head(4)


@trained
@pytest.mark.parametrize("feature", ["prefeature", "backbone"])
def test_a_head_reads_the_feature_that_its_probe_names(probe, feature):
    encoder = tiny_encoder(hidden=12).eval()
    probe = replace(probe, feature=feature, epochs=1)
    head, _ = probe.train(encoder, probe_task(noise_images(), labels_of()))
    assert head.weight.shape == (CLASSES, {"prefeature": 12, "backbone": 8 * WIDTH}[feature])
    images = torch.rand(2, 3, SIZE, SIZE)
    expected = head(encoder.represent(images, feature))
    assert torch.equal(Classifier(encoder, head, probe)(images), expected)


@trained
def test_a_head_that_a_probe_starts_from_is_the_one_that_is_trained(probe):
    start = nn.Linear(HIDDEN, CLASSES)
    before = flat(start)
    task = probe_task(noise_images(), labels_of())
    head, _ = replace(probe, lr=1e-7).train(tiny_encoder().eval(), task, start=start)
    assert head is start
    assert not torch.equal(flat(head), before)
    torch.testing.assert_close(flat(head), before, rtol=0, atol=1e-5)


def test_a_fresh_head_follows_the_seed_alone():
    def head(seed):
        task = probe_task(noise_images(), labels_of(), seed=seed)
        return weights_of(new_head(tiny_encoder(seed=7), "prefeature", task))

    assert head(0) == head(0)
    assert head(0)["weight"] != head(1)["weight"]
    assert head(0)["bias"] != head(1)["bias"]


# The linear probe


def test_features_are_computed_once_however_many_epochs_follow():
    calls = {}
    for epochs in (1, 5):
        encoder = Pixels()
        task = probe_task(noise_images(), labels_of(), batch=5)
        LinearProbe(epochs=epochs).train(encoder, task)
        calls[epochs] = [len(images) for images in encoder.seen]
    assert calls == {1: [5, 5, 2], 5: [5, 5, 2]}


def test_the_linear_probe_sees_whole_images_in_their_order():
    encoder = Pixels()
    LinearProbe(epochs=1).train(encoder, probe_task(noise_images(), labels_of()))
    assert torch.equal(torch.cat(encoder.seen), noise_images() / 255)


def test_the_batch_size_of_features_decides_nothing():
    heads = [
        weights_of(LinearProbe(epochs=2).train(Pixels(), task)[0])
        for task in (probe_task(noise_images(), labels_of(), batch=batch) for batch in (5, 500))
    ]
    assert heads[0] == heads[1]


def test_the_last_smaller_minibatch_of_an_epoch_is_trained_on():
    # One step of Adam moves every weight by about lr, so the count of updates shows in the head.
    task = probe_task(noise_images(), labels_of())
    moved = {}
    for batch_size in (4, 5, 6, 12):
        start = nn.Linear(Pixels().features, CLASSES)
        before = flat(start)
        probe = LinearProbe(epochs=1, batch_size=batch_size, lr=1e-3)
        moved[batch_size] = (flat(probe.train(Pixels(), task, start=start)[0]) - before).abs().max()
    assert moved[12] == pytest.approx(1e-3, rel=0.01)  # one update
    assert moved[6] <= 2.01e-3 < moved[5] <= 3.01e-3  # two, and three with the last of two images


def test_every_epoch_sees_all_images_in_an_order_of_its_own():
    encoder = Pixels()
    task = probe_task(noise_images(), labels_of())
    RobustLinearProbe(epochs=2, batch_size=4, steps=1, eps=0.0).train(encoder, task)
    observed = torch.cat(encoder.seen[1::2])  # each minibatch is attacked, then trained on
    differences = (observed.unsqueeze(1) - noise_images() / 255).abs().flatten(2).sum(dim=2)
    places = differences.argmin(dim=1).tolist()
    orders = places[:12], places[12:]
    assert sorted(orders[0]) == sorted(orders[1]) == list(range(12))
    assert len({*map(tuple, orders), tuple(range(12))}) == 3


# The robust linear probe


def test_without_a_radius_the_robust_probe_is_the_linear_probe():
    task = probe_task(noise_images(), labels_of())
    options = {"epochs": 2, "batch_size": 5, "lr": 0.01}
    robust, robust_history = RobustLinearProbe(eps=0.0, **options).train(Pixels(), task)
    linear, linear_history = LinearProbe(**options).train(Pixels(), task)
    assert weights_of(robust) == weights_of(linear)
    assert robust_history == linear_history


def test_the_robust_probe_trains_on_features_of_images_that_its_own_head_loses_on():
    encoder = Pixels()
    start = nn.Linear(encoder.features, CLASSES)
    task = probe_task(noise_images(4), labels_of(4))
    probe = RobustLinearProbe(epochs=1, batch_size=4, eps=4, step_size=1, steps=6, lr=1e-9)
    _, history = probe.train(encoder, task, start=start)
    clean, adversarial = encoder.seen[0], encoder.seen[-1]
    assert len(encoder.seen) == 7  # six steps, and the images that the head is trained on
    assert torch.equal(
        clean.sum((1, 2, 3)).sort().values, (task.images / 255).sum((1, 2, 3)).sort().values
    )
    moved = (adversarial - clean).abs()
    assert moved.max() <= 4 / 255 + 1e-6
    assert (moved > 3.9 / 255).float().mean() > 0.9
    _, clean_history = replace(probe, eps=0.0).train(Pixels(), task, start=start)
    assert history[0]["loss"] > clean_history[0]["loss"] + 0.01


def test_the_robust_probe_attacks_through_the_head_as_it_is_at_that_update():
    encoder = Pixels()
    task = probe_task(noise_images(4), labels_of(4))
    RobustLinearProbe(epochs=2, batch_size=4, lr=1.0, steps=1).train(encoder, task)
    first, second = (encoder.seen[i + 1] - encoder.seen[i] for i in (0, 2))
    assert not torch.equal(first.sort(dim=0).values, second.sort(dim=0).values)


@pytest.mark.parametrize("precision", ["fp32", "tf32", "bf16"])
def test_examples_may_have_lower_precision_but_a_head_reads_float32_features(
    precision, monkeypatch
):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    encoder, task = Pixels(), probe_task(noise_images(4), labels_of(4))
    probe = RobustLinearProbe(epochs=1, batch_size=4, steps=2, craft_precision=precision)
    probe.train(encoder, task)
    assert encoder.precisions == [(precision, precision == "tf32")] * 2 + [("fp32", False)]


def test_the_robust_head_is_more_robust_than_the_linear_one():
    images, labels = shortcut()
    task, options = probe_task(images, labels, classes=2), {"epochs": 40, "lr": 0.1}
    linear, _ = LinearProbe(**options).train(Pixels(4), task, start=zero_head())
    probe = RobustLinearProbe(**options, eps=16, step_size=8, steps=3)
    robust, _ = probe.train(Pixels(4), task, start=zero_head())
    # A feature that is right for every image fails under attack; a robust one is wrong for some.
    assert [under_attack(linear, images, labels, name) for name in ("clean", "eps_16")] == [1, 0]
    actual = [under_attack(robust, images, labels, name) for name in ("clean", "eps_16")]
    assert actual == pytest.approx([0.9, 0.9])


def test_standard_epochs_at_the_end_undo_the_robustness():
    images, labels = shortcut()
    task = probe_task(images, labels, classes=2)
    probe = RobustLinearProbe(epochs=40, lr=0.1, eps=16, step_size=8, steps=3)
    robust, history = probe.train(Pixels(4), task, start=zero_head())
    probe = replace(probe, rle_trailing_standard=40)
    undone, longer = probe.train(Pixels(4), task, start=zero_head())
    assert longer[:40] == history
    assert [row["epoch"] for row in longer] == list(range(1, 81))
    assert longer[40]["loss"] < history[-1]["loss"]  # clean images are easier
    assert under_attack(robust, images, labels, "eps_16") == pytest.approx(0.9)
    assert under_attack(undone, images, labels, "eps_16") == 0


def zero_head():
    head = nn.Linear(48, 2)
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    return head


def shortcut(count=120):
    """Return images of two classes: a strong pixel, wrong in 10 %, and weak right pixels.

    Together the weak pixels predict better, but each differs by only 12/255, an attack by 16/255.
    """
    labels = torch.arange(count) % 2
    signs = (2 * labels - 1).view(-1, 1, 1, 1)
    images = 128 + 12 * signs.expand(-1, 3, 4, 4).clone()
    wrong = torch.arange(count) % 20 < 2
    images[:, :, 0, 0] = (
        128 + 64 * (signs[..., 0] * torch.where(wrong, -1, 1).view(-1, 1, 1))[..., 0]
    )
    return images.to(torch.uint8), labels


def under_attack(head, images, labels, name):
    attack = PgdAttack(eps=(16.0,), steps=4, step_size=8)
    classifier = Classifier(Pixels(4), head, LinearProbe())
    flags = evaluate(classifier, attack, images, labels, views=Views(), size=4, seed=0)
    return flags[name].float().mean().item()


# The n-crop probe


def test_the_feature_of_a_stack_is_the_mean_over_its_views():
    encoder = tiny_encoder().eval()
    stacks = torch.rand(3, 4, 3, SIZE, SIZE)
    for feature in ("prefeature", "backbone"):
        one_by_one = torch.stack([encoder.represent(stacks[:, i], feature) for i in range(4)])
        actual = represent(encoder, feature, stacks)
        torch.testing.assert_close(actual, one_by_one.mean(dim=0), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("n", [1, 3])
def test_the_n_crop_probe_sees_n_views_of_the_pretraining_s_kind(n):
    images, views = noise_images(), Views(count=7, scale=(0.25, 0.25), ratio=(1.0, 1.0))
    inputs = NcropProbe(n=n).inputs(images, torch.arange(12), views, size=SIZE, seed=4)
    assert inputs.shape == (12, n, 3, SIZE, SIZE)
    first = NcropProbe(n=1).inputs(images, torch.arange(12), views, size=SIZE, seed=4)
    assert torch.equal(inputs[:, :1], first)
    # A view of a single image is the same: it depends on that image, not on its batch.
    alone = NcropProbe(n=n).inputs(images[5:6], torch.tensor([5]), views, size=SIZE, seed=4)
    assert torch.equal(inputs[5:6], alone)


def test_more_views_give_another_head():
    task = probe_task(noise_images(), labels_of())
    heads = [weights_of(NcropProbe(n=n, epochs=1).train(Pixels(), task)[0]) for n in (1, 2)]
    assert heads[0] != heads[1]


def test_views_of_an_n_crop_probe_are_drawn_once_and_no_more_than_a_batch_at_a_time():
    encoder = Pixels()
    task = probe_task(noise_images(), labels_of(), batch=9)
    NcropProbe(n=4, epochs=3).train(encoder, task)
    assert [len(images) for images in encoder.seen] == [8] * 6  # two images of four views


def test_training_and_test_views_of_the_same_image_differ():
    encoder, probe, images = Pixels(), NcropProbe(n=2, epochs=1), noise_images()
    head, _ = probe.train(encoder, probe_task(images, labels_of()))
    in_training = torch.cat(encoder.seen)
    encoder.seen.clear()
    attack = PgdAttack(eps=(1e-6,), steps=1, step_size=1e-6)
    classifier = Classifier(encoder, head, probe)
    evaluate(classifier, attack, images, labels_of(), views=Views(), size=SIZE, seed=0)
    in_testing = encoder.seen[0]
    assert in_testing.shape == in_training.shape
    assert not (in_testing == in_training).flatten(1).all(dim=1).any()


def test_an_attack_perturbs_every_view_of_a_stack_only_through_the_mean():
    encoder, probe = Pixels(4), NcropProbe(n=3)
    head = nn.Linear(encoder.features, 2)
    stacks = 0.25 + 0.5 * torch.rand(5, 3, 3, 4, 4)
    labels = torch.zeros(5, dtype=torch.int64)
    attack = PgdAttack(eps=(8.0,), steps=3, step_size=4)
    actual = attack.perturb(Classifier(encoder, head, probe), stacks, labels, eps=8 / 255, seed=0)
    # The gradient of a linear head on a mean is the same for each view: away from class 0.
    direction = (head.weight[1] - head.weight[0]).sign().view(3, 4, 4)
    expected = stacks + 8 / 255 * direction
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-6)


def test_the_n_crop_rate_falls_to_zero_over_all_minibatches():
    probe = NcropProbe(n=1, epochs=4, batch_size=5, npatch_schedule="updates")
    _, history = probe.train(Pixels(), probe_task(noise_images(), labels_of()))
    last = [0.03 * (1 + math.cos(math.pi * update / 12)) / 2 for update in (2, 5, 8, 11)]
    assert [row["lr"] for row in history] == pytest.approx(last)


def test_the_other_probes_read_whole_images():
    images = noise_images()
    for probe in (LinearProbe(), RobustLinearProbe(), OwnHead()):
        inputs = probe.inputs(images, torch.arange(12), Views(count=9), size=SIZE, seed=0)
        assert torch.equal(inputs, augment.to_float(images, SIZE))
        assert probe.stack == 1
    assert NcropProbe(n=5).stack == 5


# The classifier of a supervised network


def test_the_own_head_is_the_classifier_of_the_network_without_training():
    encoder = tiny_encoder(supervised=True).eval()
    before = inventory(encoder)
    head, history = OwnHead().train(encoder, probe_task(noise_images(), labels_of()))
    assert head is encoder.classifier
    assert history == []
    assert inventory(encoder) == before
    images = torch.rand(3, 3, SIZE, SIZE)
    assert torch.equal(Classifier(encoder, head, OwnHead())(images), encoder(images))


def test_a_self_supervised_network_has_no_head_of_its_own():
    with pytest.raises(ValueError, match="probe `own` needs a supervised network"):
        OwnHead().train(tiny_encoder(), probe_task(noise_images(), labels_of()))
