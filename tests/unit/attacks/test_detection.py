"""What PGD does to a detector, for each of its goals."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from torch import nn

from robustviews.attacks import ATTACKS, DetectionPgd
from robustviews.resnet import BasicBlock, ResNet
from robustviews.tasks import fcos
from robustviews.tasks.detection import Detection
from robustviews.tasks.protocol import Maps
from tests.unit.tiny_models import inventory

TASK = Detection()
SIDE, SIZE, CLASSES, EPS = 32, (32, 32), 3, 8 / 255
GOALS = {
    goal: DetectionPgd(eps=(8,), steps=4, relative_step=0.5, goal=goal)
    for goal in ("untargeted", "vanishing", "fabrication", "mislabelling")
}
goals = pytest.mark.parametrize("goal", GOALS)


class Detector(nn.Module):
    """A narrow ResNet-18 below a detector's head."""

    def __init__(self):
        super().__init__()
        self.backbone = ResNet(BasicBlock, (2, 2, 2, 2), width=8)
        self.head = TASK.head((8, 16, 32, 64), CLASSES)

    def forward(self, images):
        net = self.backbone
        x, levels = torch.relu(net.bn1(net.conv1(images))), []
        for stage in range(1, 5):
            x = net.get_submodule(f"layer{stage}")(x)
            levels.append(x)
        return self.head(Maps(tuple(levels), SIZE))


def squares(count, *, seed=0):
    """Return images with one or two squares, each of which has the colour of its class."""
    random = np.random.default_rng(seed)
    images = random.uniform(0, 0.2, (count, 3, SIDE, SIDE)).astype(np.float32)
    labels = np.full((count, 2, 5), -1, dtype=np.float32)
    for image in range(count):
        for half in range(random.integers(1, 3)):
            side, label = random.integers(8, 14), random.integers(CLASSES)
            x = random.integers(0, SIDE // 2 - side + 1) + half * SIDE // 2
            y = random.integers(0, SIDE - side + 1)
            images[image, label, y : y + side, x : x + side] = 0.7
            labels[image, half] = x, y, x + side, y + side, label
    return torch.tensor(images), torch.tensor(labels)


@pytest.fixture(scope="module")
def untrained():
    """A detector in eval mode whose batch norms have seen images, and whose logits are lively."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        detector = Detector()
        nn.init.normal_(detector.head.towers.classification_head.cls_logits.weight, std=0.3)
    for _ in range(5):
        detector(squares(8)[0])
    return detector.eval()


@goals
def test_examples_are_in_the_ball_and_repeat_with_the_seed(untrained, goal):
    images, labels = squares(4)
    first, again, other = (
        GOALS[goal].perturb(untrained, images, labels, eps=EPS, seed=seed) for seed in (3, 3, 4)
    )
    assert first.dtype == images.dtype
    assert not first.requires_grad
    assert (first - images).abs().max() <= EPS + 1e-6
    assert first.min() >= 0
    assert first.max() <= 1
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_a_step_is_a_fraction_of_the_radius(untrained):
    images, labels = squares(2)
    attack = DetectionPgd(eps=(8,), steps=1, relative_step=0.25, random_start=False)
    moved = attack.perturb(untrained, images, labels, eps=EPS, seed=0)
    assert (moved - images).abs().max().item() == pytest.approx(EPS / 4, abs=1e-6)


@goals
def test_an_attack_changes_no_mode_no_buffer_and_no_gradient(untrained, goal):
    images, labels = squares(4)
    modes = []
    hooks = [
        module.register_forward_pre_hook(lambda module, _: modes.append(module.training))
        for module in untrained.modules()
    ]
    before, kept = inventory(untrained), (images.clone(), labels.clone())
    generator = torch.get_rng_state()
    GOALS[goal].perturb(untrained, images, labels, eps=EPS, seed=0)
    for hook in hooks:
        hook.remove()
    assert modes
    assert not any(modes)
    assert inventory(untrained) == before
    assert torch.equal(images, kept[0])
    assert torch.equal(labels, kept[1])
    assert torch.equal(torch.get_rng_state(), generator)


@goals
def test_each_image_of_a_batch_is_attacked_on_its_own(untrained, goal):
    images, labels = squares(4, seed=1)
    attack = dataclasses.replace(GOALS[goal], random_start=False, steps=2)
    together = attack.perturb(untrained, images, labels, eps=EPS, seed=0)
    alone = [attack.perturb(untrained, images[[i]], labels[[i]], eps=EPS, seed=0) for i in range(4)]
    same = ((together - torch.cat(alone)).abs() < 1e-6).float().mean()
    assert same > 0.99  # the sign of a gradient near 0 may differ by rounding


@pytest.mark.parametrize("losses", ["all", "classification"])
def test_untargeted_steps_increase_the_named_loss_of_the_labels(untrained, losses):
    images, labels = squares(4)
    attack = dataclasses.replace(GOALS["untargeted"], losses=losses)
    moved = attack.perturb(untrained, images, labels, eps=EPS, seed=0)

    def loss(pixels):
        with torch.no_grad():
            out = untrained(pixels)
        parts = fcos.losses(out, fcos.assign(labels, out, SIZE), SIZE)
        return parts.total() if losses == "all" else parts.classification

    assert (loss(moved) > loss(images)).all()
    both = dataclasses.replace(GOALS["untargeted"], losses="all")
    same = torch.equal(moved, both.perturb(untrained, images, labels, eps=EPS, seed=0))
    assert same == (losses == "all")


def test_objects_become_less_likely_or_more_likely(untrained):
    images, labels = squares(4)
    likely = {}
    for goal in ("vanishing", "fabrication"):
        moved = GOALS[goal].perturb(untrained, images, labels, eps=EPS, seed=0)
        with torch.no_grad():
            likely[goal] = untrained(moved)[..., :CLASSES].sigmoid().mean()
    with torch.no_grad():
        clean = untrained(images)[..., :CLASSES].sigmoid().mean()
    assert likely["vanishing"] < clean < likely["fabrication"]


def test_more_tries_leave_each_image_with_no_smaller_loss(untrained):
    images, labels = squares(4)
    found = []
    for restarts in (1, 3):
        attack = dataclasses.replace(GOALS["untargeted"], restarts=restarts, steps=1)
        moved = attack.perturb(untrained, images, labels, eps=EPS, seed=0)
        with torch.no_grad():
            found.append(TASK.loss(untrained(moved), labels, None, SIZE))
    assert (found[1] >= found[0] - 1e-5).all()
    assert (found[1] > found[0] + 1e-5).any()


def test_one_class_cannot_be_mislabelled():
    def model(images):
        return images.new_zeros(len(images), 64, 6) + 0 * images.sum()

    images, labels = squares(2)
    with pytest.raises(ValueError, match="mislabelling needs 2 classes, found 1"):
        GOALS["mislabelling"].perturb(model, images, labels, eps=EPS, seed=0)


def test_a_description_names_goal_losses_and_steps():
    attack = ATTACKS["detection_pgd"](eps=(8,), losses="classification", restarts=2)
    assert attack.describe() == (
        "untargeted PGD on a detector, classification loss alone, 10 steps of 0.25 eps, "
        "random start, 2 restarts"
    )
    assert attack.passes == 20


# A detector that has learned something


@pytest.fixture(scope="module")
def trained():
    """A detector after some seconds of training."""
    images, labels = squares(200)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        detector = Detector()
    updates = 100
    optimizer = torch.optim.AdamW(detector.parameters(), lr=5e-3)
    generator = torch.Generator().manual_seed(0)
    for update in range(updates):
        chosen = torch.randint(0, 200, (20,), generator=generator)
        rate = min(1, (update + 1) / 10) * (1 + math.cos(math.pi * update / updates)) / 2
        optimizer.param_groups[0]["lr"] = 5e-3 * rate
        loss = TASK.loss(detector(images[chosen]), labels[chosen], None, SIZE).mean()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(detector.parameters(), 10)
        optimizer.step()
    return detector.eval().requires_grad_(False)


def detected(detector, images, labels):
    with torch.no_grad():
        return TASK.answers(detector(images), labels, SIZE).numpy()


def scored(answers, labels, *, classes=True):
    """Return AP50; without classes, that of boxes alone."""
    answers, truth = answers.copy(), labels.numpy().copy()
    if not classes:
        for rows in (answers[..., 5], truth[..., 4]):
            np.minimum(rows, 0, out=rows)
    return TASK.score(answers, truth, np.ones((1, len(truth)), dtype=np.int64))[0]


def found(answers, least):
    return ((answers[..., 5] >= 0) & (answers[..., 4] >= least)).sum()


@pytest.mark.slow
def test_a_trained_detector_finds_squares_and_each_attack_reaches_its_goal(trained):
    images, labels = squares(20, seed=7)
    clean = detected(trained, images, labels)
    after = {}
    for goal, attack in GOALS.items():
        strong = dataclasses.replace(attack, steps=20, relative_step=0.1)
        moved = strong.perturb(trained, images, labels, eps=32 / 255, seed=0)
        after[goal] = detected(trained, moved, labels)
    assert scored(clean, labels) > 0.5
    assert scored(after["untargeted"], labels) < scored(clean, labels) / 2
    assert found(after["vanishing"], 0.5) < found(clean, 0.5) / 3
    assert found(after["fabrication"], 0.2) > 2 * found(clean, 0.2)
    assert scored(after["mislabelling"], labels, classes=False) > 0.8
    assert scored(after["mislabelling"], labels) < 0.7
