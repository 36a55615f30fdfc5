"""Broken heads of segmentation and detection fail the check that is made for them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch

from robustviews import sanity, stages
from robustviews.artifacts import read_tensors, write_tensors
from robustviews.attacks import Sea, bounded, pgd
from robustviews.augment import Views
from robustviews.datasets import DATASETS
from robustviews.encoder import build_encoder
from robustviews.evaluate import Classifier
from robustviews.machine import feed
from robustviews.optim import with_prefix
from robustviews.probe import PROBES
from robustviews.probe.protocol import Training
from robustviews.sanity import Sanity, dense
from robustviews.sanity.metrics import measures_of
from robustviews.tasks import fcos
from tests.unit.sanity.test_controls import Wrapped
from tests.unit.tiny_models import inventory

TASKS = ("segmentation", "detection")
OPTIONS = Sanity(images=8, radii=(0.0, 16.0, 128.0), eps=16.0, steps=20, restarts=1, pixels=6)
NETWORK = {"width": 4, "hidden": None}
CHECKS = dense.DenseChecks()
SEGMENTATION = {
    "n": 500,
    "mIoU": 0.6,
    "pgd_0": 0.6,
    "pgd_8": 0.3,
    "pgd_64": 0.0,
    "fgsm": 0.35,
    "restarts": 0.3,
    "noise": 0.5,
    "sea": 0.3,
    "changed": 0,
    "zero_gradients": 0,
    "infinite_gradients": 0,
    "repeat_difference": 0.0,
    "batch_difference": 0.0,
    "training_mode": 0.0,
    "probabilities": 0.0,
    "wrong_gradients": 0,
    "moved": 0,
    "sea_better": 0,
}
DETECTION = {"AP50" if name == "mIoU" else name: one for name, one in SEGMENTATION.items()}
DETECTION = {name: one for name, one in DETECTION.items() if "sea" not in name} | {"outside": 0}
# For each check, measures just inside and just outside of its threshold.
EDGES = [
    ("AS3", SEGMENTATION, {}, {"changed": 1}),
    ("AS3", SEGMENTATION, {"pgd_64": 0.052}, {"pgd_64": 0.053}),  # 0.05 and an image
    ("AS3", DETECTION, {}, {"pgd_8": 0.61, "fgsm": 0.61, "restarts": 0.61, "noise": 0.61}),
    ("AS3", DETECTION, {"n": 1000}, {"n": 1}),
    ("AS4", SEGMENTATION, {"fgsm": 0.296}, {"fgsm": 0.294}),
    ("AS5", SEGMENTATION, {"restarts": 0.249}, {"restarts": 0.247}),
    ("AS5", SEGMENTATION, {"restarts": 0.304}, {"restarts": 0.306}),
    ("AS8", DETECTION, {"noise": 0.296}, {"noise": 0.294}),
    ("AS9", DETECTION, {}, {"zero_gradients": 1}),
    ("AS10", DETECTION, {"repeat_difference": 1e-4}, {"repeat_difference": 1.1e-4}),
    ("AS11", SEGMENTATION, {}, {"training_mode": 1.0}),
    ("AS13", SEGMENTATION, {"wrong_gradients": 1}, {"wrong_gradients": 2}),
    ("DS1", DETECTION, {}, {"moved": 1}),
    ("DS2", DETECTION, {}, {"outside": 1}),
    ("DS3", SEGMENTATION, {"sea_better": 1}, {"sea_better": 2}),
]


@dataclass(frozen=True)
class Heads:
    """Weights by task, and the test scenes and labels."""

    weights: dict[str, dict[str, torch.Tensor]]
    images: dict[str, torch.Tensor]
    labels: dict[str, torch.Tensor]
    classes: dict[str, int]

    def network(self, task, *, trained=True):
        """Return a new network in eval mode."""
        probe, encoder = PROBES[task](), build_encoder(**NETWORK)
        with torch.random.fork_rng():
            torch.manual_seed(0)
            head = probe.task.head(encoder.backbone.channels, self.classes[task])
        found = Classifier(encoder, head, probe)
        if trained:
            found.load_state_dict(self.weights[task])
        return found.eval().requires_grad_(False)

    def subject(self, network, **options):
        """Return a network with the chosen scenes."""
        task = network.probe.task.name
        settings: dict[str, Any] = {"views": Views(), "size": 32, "seed": 0, "batch": 100}
        rows = feed.of(self.images[task], torch.device("cpu"))
        wanted = replace(OPTIONS, **options)
        return CHECKS.choose(network, rows, self.labels[task], options=wanted, **settings)


def scenes(task):
    made = {}

    def create(name, shape, dtype):
        made[name] = np.empty(shape, dtype)
        return made[name]

    summary = DATASETS[f"scenes_{task}"]().prepare(create)
    return {name: torch.from_numpy(one) for name, one in made.items()}, summary["classes"]


@pytest.fixture(scope="session")
def heads(once):
    data = {task: scenes(task) for task in TASKS}

    def fill(folder):
        for task, (arrays, classes) in data.items():
            encoder = build_encoder(**NETWORK)
            train = arrays["train_images"], arrays["train_labels"]
            probe = PROBES[task](tuned=True, updates=60, images=300)
            tuned, _ = probe.train(encoder, Training(*train, classes, Views(), 32, 0))
            write_tensors(folder / task, tuned.state_dict())

    folder = once("dense-heads", fill)
    return Heads(
        {task: read_tensors(folder / task) for task in TASKS},
        {task: arrays["test_images"] for task, (arrays, _) in data.items()},
        {task: arrays["test_labels"] for task, (arrays, _) in data.items()},
        {task: classes for task, (_, classes) in data.items()},
    )


def fault(subject, name):
    """Return what one check finds wrong."""
    task, check = subject.classifier.probe.task, dense.CHECKS[name]
    found = check.measure(subject)
    numbers = {key: one for key, one in found.items() if isinstance(one, int | float)}
    rows = {key: one for key, one in found.items() if key not in numbers}
    rows = {"pgd_0": subject.rows["clean"]} | subject.rows | rows
    measures = measures_of({key: one.numpy() for key, one in rows.items()}, task)
    return check.fault(measures | numbers, subject.options)


def cut(network, inputs):
    return network(inputs.detach())


def partly_cut(network, inputs):
    return network(inputs.detach() * 0.9 + inputs * 0.1 * (inputs > 0.5))


def sampling(network, inputs):
    return network((inputs + 0.1 * torch.rand_like(inputs)).clamp(0, 1))


def moving(network, inputs):
    network.train(torch.is_grad_enabled())
    outputs = network(inputs)
    network.eval()
    return outputs


BROKEN = {
    "gradient cut at the transform": (cut, "AS9", "the gradient of 8 of 8 images is zero"),
    "gradient cut in part": (partly_cut, "AS13", "images are not derivatives"),
    "sampling without a seed": (sampling, "AS10", "two passes give"),
    "other answers each time": (sampling, "AS3", "a radius of 0 changes the answers"),
    "training mode": (lambda f, x: f.train()(x), "AS11", "a module is in training mode"),
    "moving statistics": (moving, "DS1", "an attack changes"),
    "dependence on the batch": (lambda f, x: f(x) * (1 + x.mean()), "AS11", "in a batch of two"),
}


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_network_fails_its_check(name, task, heads):
    function, check, words = BROKEN[name]
    network = heads.network(task, trained=False)
    assert fault(heads.subject(network), check) == "" or check == "AS3"
    assert words in fault(heads.subject(Wrapped(network, function)), check)


def test_probabilities_of_pixels_are_no_logits(heads):
    network = Wrapped(heads.network("segmentation"), lambda f, x: f(x).softmax(dim=1))
    assert "are probabilities" in fault(heads.subject(network), "AS11")


def test_boxes_that_are_not_clipped_leave_the_image(heads, monkeypatch):
    network = heads.network("detection")
    assert fault(heads.subject(network), "DS2") == ""
    monkeypatch.setattr(fcos, "clip_boxes_to_image", lambda boxes, _: boxes)
    assert "boxes leave" in fault(heads.subject(network), "DS2")


def reversed_pgd(loss, images, **options):
    def turned(adversarial):
        judged = loss(adversarial)
        return judged._replace(loss=-judged.loss)

    return pgd(turned, images, **options)


def stuck_pgd(loss, images, *, steps, step_size, **options):
    step_size = 0.0 if steps == OPTIONS.steps and not options["random_start"] else step_size
    return pgd(loss, images, steps=steps, step_size=step_size, **options)


def wide_pgd(loss, images, *, eps, **options):
    return pgd(loss, images, eps=2 * eps, **options)


@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS)
def test_broken_attacks_fail_their_checks(task, heads, monkeypatch):
    subject = heads.subject(heads.network(task), images=24)

    def attack_with(function):
        monkeypatch.setattr(bounded, "pgd", function)

    attack_with(reversed_pgd)
    assert fault(subject, "AS3").endswith(("withstands 128/255", "at less"))
    attack_with(stuck_pgd)
    subject.rows["pgd_16"] = subject.rows["clean"]  # what 20 steps that do not move leave
    assert "one step lowers" in fault(subject, "AS4")
    assert "20 steps lower" in fault(subject, "AS5")
    assert "withstands 128/255" in fault(subject, "AS3")
    attack_with(wide_pgd)
    with pytest.raises(ValueError, match="left its ball"):
        fault(subject, "AS3")


@pytest.mark.slow
def test_an_ensemble_that_takes_its_first_attack_is_weaker_than_its_parts(heads, monkeypatch):
    subject = heads.subject(heads.network("segmentation"))
    assert fault(subject, "DS3") == ""

    def best(self, model, images, labels, *, eps, seed):
        parts = self.parts(model, images, labels, eps=eps, seed=seed).values()
        return min(parts, key=lambda part: part.wrong.sum()).images

    monkeypatch.setattr(Sea, "perturb", best)
    assert "SEA leaves" in fault(subject, "DS3")


@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS)
def test_an_honest_head_passes_and_its_rows_give_its_measures(task, heads):
    network, weights = heads.network(task), heads.weights[task]
    examined = stages.sanity(
        with_prefix("encoder.", weights),
        {"tuned": with_prefix("head.", weights)},
        heads.images[task],
        heads.labels[task],
        classes=heads.classes[task],
        size=32,
        encoder=NETWORK,
        supervised=False,
        probes={"tuned": network.probe},
        sanity=OPTIONS,
        dense=CHECKS,
        views=Views(),
        device=torch.device("cpu"),
    )
    result = examined.heads["tuned"]
    assert result["failed"] == {}
    rows = sanity.of_head({name: row.numpy() for name, row in examined.flags.items()}, "tuned")
    assert {len(row) for row in rows.values()} == {OPTIONS.images}
    answers = [row for name, row in rows.items() if name not in ("index", "labels")]
    assert not [fault for row in answers for fault in network.probe.task.wrong(row, rows["labels"])]
    measures = sanity.measures_of(rows)
    assert measures.items() <= result["measures"].items()
    assert sanity.failed(result["measures"], OPTIONS) == {}
    metric = network.probe.task.metrics[0]
    assert sanity.described(measures, OPTIONS)["clean"] == f"{metric} {measures[metric]:.3f}"
    before, again = inventory(network), heads.subject(network)
    tries = dense.CHECKS["AS5"].measure(again)
    assert np.array_equal(tries["restarts/0"].numpy(), rows["restarts/0"])
    assert inventory(network) == before


def test_a_head_that_knows_nothing_establishes_no_attack(heads):
    subject = heads.subject(heads.network("detection", trained=False))
    assert "too little to judge" in fault(subject, "AS3")


def test_at_most_all_images_are_attacked(heads):
    subject = heads.subject(heads.network("segmentation", trained=False), images=1000)
    assert subject.rows["index"].tolist() == list(range(200))


@pytest.mark.parametrize(("check", "passes", "inside", "outside"), EDGES)
def test_a_measure_beyond_a_threshold_fails_its_check(check, passes, inside, outside):
    options = Sanity(radii=(0.0, 8.0, 64.0))
    assert sanity.failed(passes | inside, options) == {}
    assert set(sanity.failed(passes | outside, options)) == {check}


def test_every_check_has_an_edge():
    assert {edge[0] for edge in EDGES} == set(dense.CHECKS)


def test_measures_do_not_depend_on_the_order_in_which_a_file_has_the_tries():
    truth = np.array([[8, 2]], dtype=np.int32)
    clean = np.array([[[8, 8], [2, 2]]], dtype=np.int32)
    first = np.array([[[8, 10], [0, 0]]], dtype=np.int32)  # as many right pixels, another mIoU
    second = np.array([[[6, 6], [2, 4]]], dtype=np.int32)
    rows = {"index": np.zeros(1), "labels": truth, "clean": clean, "pgd_0": clean}
    tries = {"restarts/1": second, "restarts/0": first}
    assert sanity.measures_of(rows | tries) == sanity.measures_of(
        rows | dict(sorted(tries.items()))
    )
