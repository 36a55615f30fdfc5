"""What every attack in the table must do to a classifier, and what each attack runs.

The gradient steps of PGD are compared with a reference in `tests/reference`.
"""

from __future__ import annotations

import random

import numpy as np
import pyautoattack
import pytest
import torch
from torch import nn

from robustviews.attacks import ATTACKS, AutoAttack, Judged, PgdAttack, WorstOf, pgd
from robustviews.attacks.objectives import margin
from robustviews.attacks.worst_case import combine
from robustviews.tasks.classification import CLASSIFICATION
from robustviews.tasks.segmentation import SEGMENTATION
from tests.unit.tiny_models import inventory

CUSTOM = {"version": "custom", "apgd_steps": 5, "square_queries": 20}
EPS = 24 / 255
# Every entry of the table, and every attack inside AutoAttack.
EXAMPLES = {
    "pgd": PgdAttack(eps=(24,), steps=5, step_size=8),
    "pgd-random": PgdAttack(eps=(24,), steps=2, step_size=8, random_start=True, restarts=2),
    "pgd-worst": PgdAttack(eps=(24,), steps=5, step_size=8, keep="worst"),
    "pgd-margin": PgdAttack(eps=(24,), steps=5, step_size=8, loss="margin"),
    "apgd-ce": AutoAttack(eps=(24,), attacks=("apgd-ce",), **CUSTOM),
    "apgd-t": AutoAttack(eps=(24,), attacks=("apgd-t",), **CUSTOM),
    "square": AutoAttack(eps=(24,), attacks=("square",), **CUSTOM),
    "ensemble": AutoAttack(eps=(24,), attacks=("apgd-ce", "apgd-t"), **CUSTOM),
}
attacks = pytest.mark.parametrize("attack", EXAMPLES.values(), ids=EXAMPLES)


def classifier(classes=10):
    """Return a convolutional classifier in eval mode, with non-trivial batch norm statistics."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Dropout(0.5),
            nn.Flatten(),
            nn.Linear(8 * 36, classes),
        )
    nn.init.uniform_(net[1].running_var, 0.5, 1.5, generator=torch.Generator().manual_seed(0))
    return net.eval()


def images(count=8):
    """Return noise (count, 3, 6, 6) in which some pixels are black and some white."""
    noise = torch.rand(count, 3, 6, 6, generator=torch.Generator().manual_seed(1))
    return (1.2 * noise - 0.1).clamp(0, 1)


def predicted(net, x):
    with torch.no_grad():
        return net(x).argmax(dim=1)


def attacked(attack, net, x, *, seed=0, eps=EPS):
    return attack.perturb(net, x, predicted(net, x), eps=eps, seed=seed)


def test_every_entry_of_the_table_that_attacks_has_an_example_here():
    of_labels = {cls for cls in ATTACKS.values() if not hasattr(cls, "task")}
    assert {type(attack) for attack in EXAMPLES.values()} == of_labels - {WorstOf}


def test_a_worst_case_is_right_where_all_attacks_leave_the_image_right():
    index = torch.arange(6)
    flags = {"index": index, "labels": index + 10, "clean": torch.ones(6, dtype=torch.uint8)}
    first = flags | {"eps_8": torch.tensor([1, 1, 0, 0, 1, 1], dtype=torch.uint8)}
    few = torch.tensor([1, 2, 3, 5])  # the second attack has fewer images
    second = {name: flag[few] for name, flag in flags.items()}
    second["eps_8"] = torch.tensor([1, 1, 0, 0], dtype=torch.uint8)
    worst = combine([first, second], [8.0], CLASSIFICATION)
    assert worst["index"].tolist() == [1, 2, 3, 5]
    assert worst["labels"].tolist() == [11, 12, 13, 15]
    assert worst["eps_8"].tolist() == [1, 0, 0, 0]
    assert worst["clean"].tolist() == [1, 1, 1, 1]
    assert {name: flag.dtype for name, flag in worst.items()} == {
        name: flag.dtype for name, flag in first.items()
    }
    other = second | {"index": torch.tensor([1, 2, 3, 7])}
    with pytest.raises(ValueError, match="other images; run them again"):
        combine([first, other], [8.0], CLASSIFICATION)
    with pytest.raises(ValueError, match="combines flags; attack with each"):
        attacked(WorstOf(of=("a", "b"), eps=(8,)), classifier(), images())


def test_a_worst_case_of_pixels_has_the_answers_with_the_fewest_right_pixels():
    labels = torch.tensor([[3, 1], [2, 2]], dtype=torch.int32)  # pixels of each class, per image
    right = {"clean": ([3, 1], [2, 2]), "eps_8": ([2, 1], [1, 1])}
    other = {"clean": ([3, 1], [2, 2]), "eps_8": ([3, 1], [0, 1])}
    parts = [
        {"index": torch.arange(2), "labels": labels}
        | {
            name: torch.stack([torch.tensor(rows, dtype=torch.int32), labels], dim=2)
            for name, rows in part.items()
        }
        for part in (right, other)
    ]
    worst = combine(parts, [8.0], SEGMENTATION)
    assert worst["eps_8"][..., 0].tolist() == [[2, 1], [0, 1]]
    assert worst["eps_8"].dtype == torch.int32
    assert torch.equal(worst["labels"], labels)


@attacks
def test_examples_are_in_the_ball_and_in_the_range_of_pixels(attack):
    net, x = classifier(), images()
    actual = attacked(attack, net, x)
    assert actual.shape == x.shape
    assert actual.dtype == x.dtype
    assert not actual.requires_grad
    assert (actual - x).abs().max() <= EPS + 1e-6
    assert actual.min() >= 0
    assert actual.max() <= 1


@attacks
def test_examples_change_some_correct_predictions(attack):
    net, x = classifier(), images()
    labels = predicted(net, x)
    assert (predicted(net, attacked(attack, net, x)) != labels).any()


@attacks
def test_the_same_seed_gives_the_same_examples(attack):
    net, x = classifier(), images()
    assert torch.equal(attacked(attack, net, x, seed=3), attacked(attack, net, x, seed=3))


@pytest.mark.parametrize("name", ["pgd-random", "apgd-ce", "square"])
def test_another_seed_gives_other_examples_where_an_attack_is_random(name):
    net, x = classifier(), images()
    first, second = (attacked(EXAMPLES[name], net, x, seed=seed) for seed in (0, 1))
    assert not torch.equal(first, second)


def test_without_a_random_start_the_seed_of_pgd_decides_nothing():
    net, x = classifier(), images()
    first, second = (attacked(EXAMPLES["pgd"], net, x, seed=seed) for seed in (0, 1))
    assert torch.equal(first, second)


@attacks
def test_an_attack_does_not_change_network_images_labels_or_generators(attack):
    net, x = classifier(), images()
    for parameter in net.parameters():
        parameter.grad = torch.ones_like(parameter)
    labels = predicted(net, x)
    kept = x.clone(), labels.clone()
    before = inventory(net)
    states = torch.get_rng_state(), str(np.random.get_state()), random.getstate()  # noqa: NPY002
    attack.perturb(net, x, labels, eps=EPS, seed=7)
    assert inventory(net) == before
    assert torch.equal(x, kept[0])
    assert torch.equal(labels, kept[1])
    assert torch.equal(torch.get_rng_state(), states[0])
    assert (str(np.random.get_state()), random.getstate()) == states[1:]  # noqa: NPY002
    assert torch.is_grad_enabled()


@attacks
def test_an_empty_ball_changes_no_prediction(attack):
    net, x = classifier(), images()
    actual = attacked(attack, net, x, eps=1e-9)
    assert torch.equal(predicted(net, actual), predicted(net, x))


@attacks
def test_an_attack_accepts_a_single_image(attack):
    net, x = classifier(), images(1)
    assert attacked(attack, net, x).shape == x.shape


# PGD


def test_pgd_increases_the_cross_entropy_of_the_given_labels():
    net, x = classifier(), images()
    labels = torch.full((8,), 3)
    actual = EXAMPLES["pgd"].perturb(net, x, labels, eps=EPS, seed=0)
    loss = nn.CrossEntropyLoss(reduction="none")
    assert (loss(net(actual), labels) > loss(net(x), labels)).all()


def test_pgd_passes_its_options_to_the_primitive_in_pixel_units():
    net, x = classifier(), images()
    labels = predicted(net, x)
    attack = PgdAttack(eps=(24,), steps=3, step_size=6, restarts=2, random_start=True)

    def judge(moved):
        logits = net(moved)
        values = nn.functional.cross_entropy(logits, labels, reduction="none")
        return Judged(values, logits.argmax(dim=1) != labels)

    expected = pgd(
        judge,
        x,
        eps=EPS,
        step_size=6 / 255,
        steps=3,
        restarts=2,
        random_start=True,
        generator=torch.Generator().manual_seed(5),
    )
    assert torch.equal(attack.perturb(net, x, labels, eps=EPS, seed=5), expected)


def test_each_image_of_a_batch_is_attacked_on_its_own():
    net, x = classifier(), images()
    labels = predicted(net, x)
    attack = EXAMPLES["pgd"]
    together = attack.perturb(net, x, labels, eps=EPS, seed=0)
    alone = [attack.perturb(net, x[[i]], labels[[i]], eps=EPS, seed=0) for i in range(8)]
    torch.testing.assert_close(together, torch.cat(alone), rtol=0, atol=1e-6)


def test_restarts_without_a_random_start_are_refused():
    with pytest.raises(ValueError, match="restarts: 2 needs random_start: true"):
        PgdAttack(eps=(8,), restarts=2)
    loss = torch.sum
    with pytest.raises(ValueError, match="restarts=2 would repeat one attack; set random_start"):
        pgd(loss, images(), eps=0.1, step_size=0.1, steps=1, restarts=2)


class Confusing(nn.Module):
    """Ten classes, of which class 0 is right; the loss is larger where the prediction is right.

    Where the one pixel is bright all classes are about equally likely, but class 0 most of all:
    cross-entropy 2.2. Where it is dark class 1 is slightly more likely than class 0: 0.8.
    """

    def forward(self, images):
        bright = (images.flatten(1)[:, :1] > 0.5).float()  # (B, 1)
        flat, pair = torch.zeros(10), torch.full((10,), -9.0)
        flat[0], pair[0], pair[1] = 0.1, 0.0, 0.2
        return bright * flat + (1 - bright) * pair + 0 * images.sum()


def confused(restarts, count=2000):
    """Return how many of gray images stay right under random starts that nothing improves."""
    attack = PgdAttack(eps=(255,), steps=1, step_size=1e-6, random_start=True, restarts=restarts)
    x, labels = torch.full((count, 1, 1, 1), 0.5), torch.zeros(count, dtype=torch.int64)
    moved = attack.perturb(Confusing(), x, labels, eps=0.5, seed=0)
    return (predicted(Confusing(), moved) == labels).float().mean().item()


def test_five_tries_leave_the_images_that_no_try_fools():
    assert confused(1) == pytest.approx(1 / 2, abs=0.03)
    # The try with the largest loss would leave 1 - 2^-5 = 97 %.
    assert confused(5) == pytest.approx(1 / 2**5, abs=0.01)
    accuracies = [confused(restarts) for restarts in range(1, 6)]
    assert accuracies == sorted(accuracies, reverse=True)


def test_more_restarts_and_more_iterates_never_raise_robust_accuracy():
    net, x = classifier(), images(200)
    labels = predicted(net, x)
    labels[::7] = (labels[::7] + 1) % 10
    fooled = {}
    for keep in ("last", "worst"):
        for restarts in range(1, 6):
            attack = PgdAttack(
                eps=(4,), steps=2, step_size=0.5, random_start=True, restarts=restarts, keep=keep
            )
            moved = attack.perturb(net, x, labels, eps=4 / 255, seed=1)
            fooled[keep, restarts] = predicted(net, moved) != labels
    for restarts in range(1, 5):
        for keep in ("last", "worst"):
            assert not (fooled[keep, restarts] & ~fooled[keep, restarts + 1]).any()
    for restarts in range(1, 6):
        assert not (fooled["last", restarts] & ~fooled["worst", restarts]).any()
    assert fooled["last", 1].sum() < fooled["last", 5].sum() < len(x)


def test_the_worst_iterate_keeps_an_image_that_is_fooled_on_the_way():
    class Narrow(nn.Module):
        """Wrong only in a narrow band of gray, which a step of the ascent leaves again."""

        def forward(self, x):
            pixel = x.flatten(1)[:, :1]
            wrong = 1 - 20 * (pixel - 0.55).abs()
            return torch.cat([torch.zeros_like(pixel), wrong - 0.5], dim=1)

    x, labels = torch.full((1, 1, 1, 1), 0.49), torch.zeros(1, dtype=torch.int64)
    right = {}
    for keep in ("last", "worst"):
        attack = PgdAttack(eps=(51,), steps=2, step_size=17.85, keep=keep)  # to 0.56, and back
        moved = attack.perturb(Narrow(), x, labels, eps=0.2, seed=0)
        right[keep] = (predicted(Narrow(), moved) == labels).item()
    assert right == {"last": True, "worst": False}


def test_the_margin_loss_is_the_largest_other_logit_less_that_of_the_label():
    logits = torch.tensor([[3.0, 1.0, 2.0], [3.0, 1.0, 2.0], [0.0, 0.0, -1.0]])
    actual = margin(logits, torch.tensor([0, 1, 1]))
    assert actual.tolist() == [-1.0, 2.0, 0.0]


def test_the_margin_loss_fools_a_confident_network_whose_cross_entropy_has_no_gradient():
    net = nn.Sequential(nn.Flatten(), nn.Linear(3 * 36, 10))
    with torch.no_grad():
        net[1].weight.mul_(1e4)  # the softmax is exactly 1
    x = images(30)
    labels = predicted(net, x)
    accuracy = {}
    for loss in ("cross_entropy", "margin"):
        attack = PgdAttack(eps=(24,), steps=10, step_size=4, loss=loss)
        moved = attack.perturb(net, x, labels, eps=EPS, seed=0)
        accuracy[loss] = (predicted(net, moved) == labels).float().mean().item()
    assert accuracy["margin"] < 0.1
    assert accuracy["cross_entropy"] > 0.3


def test_a_description_names_what_is_not_the_paper_s():
    assert PgdAttack(eps=(8,)).describe() == "PGD, 20 steps of 2.55/255, no random start"
    other = PgdAttack(eps=(8,), random_start=True, restarts=5, keep="worst", loss="margin")
    assert other.describe() == (
        "PGD on the margin loss, 20 steps of 2.55/255, random start, 5 restarts, worst iterate"
    )


# AutoAttack


@pytest.mark.parametrize("options", [{"version": "custom"}, {"attacks": ("square",)}])
def test_attacks_are_required_with_the_custom_version_only(options):
    with pytest.raises(ValueError, match="`attacks` is required with version: custom, and not"):
        AutoAttack(eps=(8,), **options)


@pytest.fixture
def official(monkeypatch):
    """The official objects that are created; none of them runs."""
    built = []

    class Recorded(pyautoattack.AutoAttack):
        def __init__(self, model, **options):
            super().__init__(model, **options)
            self.options = options
            built.append(self)

        def run_standard_evaluation(self, x, y, *, batch_size):
            self.batch_size = batch_size
            return x.clone(), y

    monkeypatch.setattr(pyautoattack, "AutoAttack", Recorded)
    return built


def test_the_standard_version_is_the_official_one(official):
    attacked(AutoAttack(eps=(8,)), classifier(), images(), seed=3, eps=8 / 255)
    [attack] = official
    assert attack.attacks_to_run == ["apgd-ce", "apgd-t", "fab-t", "square"]
    assert attack.options["norm"] == "Linf"
    assert attack.options["eps"] == 8 / 255
    assert attack.options["seed"] == 3
    assert attack.options.get("version", "standard") == "standard"
    assert attack.batch_size == 8
    assert (attack.apgd.n_iter, attack.apgd.n_restarts) == (100, 1)
    assert (attack.apgd_targeted.n_iter, attack.apgd_targeted.n_target_classes) == (100, 9)
    assert (attack.fab.n_restarts, attack.fab.n_target_classes) == (1, 9)
    assert attack.fab.n_iter == 100
    assert attack.square.n_queries == 5000


def test_the_custom_version_runs_the_named_attacks_with_the_given_steps(official):
    attack = AutoAttack(
        eps=(8,), version="custom", attacks=("square", "apgd-t"), apgd_steps=10, square_queries=7
    )
    attacked(attack, classifier(), images())
    [built] = official
    assert built.attacks_to_run == ["square", "apgd-t"]
    assert (built.apgd.n_iter, built.apgd_targeted.n_iter) == (10, 10)
    assert (built.apgd_targeted.n_restarts, built.apgd_targeted.n_target_classes) == (1, 9)
    assert built.square.n_queries == 7


@pytest.mark.slow
@pytest.mark.parametrize("steps", [10, 100])
def test_fab_runs_the_given_steps(steps):
    """Ten as torchattacks has it, and the official hundred."""
    net, x = classifier(), images(2)
    passes = 0

    def model(moved):
        nonlocal passes
        passes += moved.requires_grad  # one forward pass with gradient for each step
        return net(moved)

    attack = AutoAttack(eps=(1e-3,), version="custom", attacks=("fab-t",), fab_steps=steps)
    attack.perturb(model, x, predicted(net, x), eps=1e-6, seed=0)  # nothing is fooled
    assert passes == 9 * steps
    assert attack.passes == 9 * 1.5 * steps


def test_a_description_names_fab_steps_that_are_run_and_not_official():
    described = [
        AutoAttack(eps=(8,), **options).describe()
        for options in (
            {},
            {"fab_steps": 10},
            {"fab_steps": 10, "version": "custom", "attacks": ("fab-t",)},
            {"fab_steps": 10, "version": "custom", "attacks": ("apgd-ce",)},
        )
    ]
    assert described == [
        "AutoAttack, standard, 100 APGD steps",
        "AutoAttack, standard, 100 APGD steps, 10 FAB steps",
        "AutoAttack, fab-t, 100 APGD steps, 10 FAB steps",
        "AutoAttack, apgd-ce, 100 APGD steps",
    ]


@pytest.mark.parametrize("name", ["apgd_steps", "fab_steps", "square_queries", "images"])
def test_only_the_official_numbers_are_comparable_with_other_papers(name):
    assert "comparable with other papers" in AutoAttack(eps=(8,)).comparable()
    assert "reduced version" in AutoAttack(eps=(8,), **{name: 10}).comparable()


@pytest.mark.parametrize("classes", [4, 9])
def test_targets_are_no_more_than_the_other_classes(classes, official):
    attacked(AutoAttack(eps=(8,)), classifier(classes), images())
    assert official[0].apgd_targeted.n_target_classes == classes - 1
    assert official[0].fab.n_target_classes == classes - 1


def test_a_targeted_attack_runs_with_fewer_than_ten_classes():
    net, x = classifier(4), images()
    actual = attacked(EXAMPLES["apgd-t"], net, x)
    assert (predicted(net, actual) != predicted(net, x)).any()


def test_a_targeted_loss_that_needs_more_classes_is_refused_with_a_fix():
    with pytest.raises(ValueError, match=r"apgd-t needs 4 classes, found 3.*attacks: \[apgd-ce,"):
        attacked(AutoAttack(eps=(8,)), classifier(3), images())
    attacked(EXAMPLES["apgd-ce"], classifier(3), images())


def test_stacks_of_views_are_refused_with_a_fix():
    stacks = images().unsqueeze(1).expand(-1, 2, -1, -1, -1)
    with pytest.raises(ValueError, match="whole images; attack an n-crop probe with kind: pgd"):
        EXAMPLES["apgd-ce"].perturb(classifier(), stacks, torch.zeros(8), eps=EPS, seed=0)


def test_an_ensemble_is_at_least_as_strong_as_its_first_attack():
    net, x = classifier(), images(30)
    labels = predicted(net, x)
    fooled = [
        predicted(net, attacked(EXAMPLES[name], net, x)) != labels
        for name in ("apgd-ce", "ensemble")
    ]
    assert not (fooled[0] & ~fooled[1]).any()
