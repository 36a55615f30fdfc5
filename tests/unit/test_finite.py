"""A network that has diverged is refused by every stage: NaN is never saved as a result."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import pytest
import torch
from torch import nn

from robustviews import attack, stages
from robustviews.attacks import AutoAttack, PgdAttack
from robustviews.augment import Views
from robustviews.evaluate import attack_once
from robustviews.finite import NonFiniteError
from robustviews.methods import SimClr, Supervised
from robustviews.pretrain import TrainingError
from robustviews.probe import LinearProbe, NcropProbe, OwnHead, RobustLinearProbe
from robustviews.probe.heads import check_finite
from robustviews.regimes import Standard
from tests.unit.test_pretrain import Memory
from tests.unit.tiny_models import (
    CLASSES,
    HIDDEN,
    OPTIMIZER,
    PROJECTION,
    SIZE,
    WIDTH,
    labels_of,
    noise_images,
    probe_task,
    tiny_encoder,
)

ENCODER = {"width": WIDTH, "hidden": HIDDEN, "projection": PROJECTION}
SHAPE = {"classes": CLASSES, "size": SIZE, "views": Views(), "device": torch.device("cpu")}
DIVERGED = r"lower optimizer\.lr, or use precision: fp32"


def pretrained(*, optimizer="adam", lr=0.001, **options):
    """Pretrain on one minibatch: the loss is finite before the only update."""
    settings = {"method": Supervised(), "regime": Standard(), "epochs": 1, "batch_size": 12}
    return stages.pretrain(
        noise_images(),
        labels_of(),
        encoder=ENCODER,
        optimizer=OPTIMIZER | {"name": optimizer, "lr": lr},
        title="my-run",
        **SHAPE | settings | options,
    )


def probed(probe, weights=None, **options):
    weights = tiny_encoder().state_dict() if weights is None else weights
    settings = {"encoder": ENCODER, "supervised": False, "title": "my-run/my-probe"}
    return stages.probe(
        weights, noise_images(), labels_of(), probe=probe, **SHAPE, **settings | options
    )


def attacked(attack, weights, labels=None, **options):
    return stages.attack(
        weights,
        None,
        noise_images(),
        labels_of() if labels is None else labels,
        encoder=ENCODER,
        supervised=True,
        probe=OwnHead(),
        attack=attack,
        title="my-run/own/pgd",
        **SHAPE,
        **options,
    )


def supervised_weights(**changes):
    """Return the weights of a supervised network, some of which are filled with a value."""
    weights = tiny_encoder(supervised=True).state_dict()
    for name, value in changes.items():
        weights[name.replace("__", ".")].fill_(value)
    return weights


# Pretraining


def test_a_training_whose_last_update_breaks_the_network_is_refused():
    pretrained()  # with a usual learning rate nothing is wrong
    with pytest.raises(
        TrainingError, match=rf"^my-run: not finite after training: [\w.]+; {DIVERGED}"
    ):
        pretrained(lr=1e30)


def test_finite_weights_with_outputs_that_are_not_are_refused():
    with pytest.raises(TrainingError, match=f"not finite after training: outputs; {DIVERGED}"):
        pretrained(lr=1e15)


def test_a_weight_that_is_not_finite_is_refused_even_if_no_output_depends_on_it(monkeypatch):
    def broken(encoder, *_args, **_options):
        encoder.eval()
        with torch.no_grad():
            encoder.backbone.bn1.running_mean[0] = math.nan
            encoder.backbone.bn1.weight.zero_()
        encoder.backbone.bn1.forward = torch.zeros_like

    monkeypatch.setattr(stages.pretraining, "pretrain", broken)
    with pytest.raises(TrainingError, match=r"not finite .*: backbone\.bn1\.running_mean; lower"):
        pretrained()


def test_the_check_does_not_change_the_weights():
    weights = pretrained(method=SimClr(), views=Views(count=2)).weights
    again = pretrained(method=SimClr(), views=Views(count=2)).weights
    assert all(torch.equal(weights[name], again[name]) for name in weights)
    assert weights["backbone.bn1.num_batches_tracked"] == 2  # both views of the one minibatch


# Probes

ONE_UPDATE = {"epochs": 1, "batch_size": 12}


def bright_weights():
    """Return an encoder with large features, which large weights of a head make overflow."""
    weights = tiny_encoder().state_dict()
    weights["prefeature.1.bias"].fill_(1e3)
    return weights


@pytest.mark.parametrize(
    "probe",
    [LinearProbe(**ONE_UPDATE), RobustLinearProbe(**ONE_UPDATE), NcropProbe(n=2, **ONE_UPDATE)],
    ids=["linear", "robust", "ncrop"],
)
@pytest.mark.parametrize(("lr", "part"), [(1e37, "weight"), (1e35, "logits")])
def test_a_head_that_its_last_update_breaks_is_refused(probe, lr, part):
    probed(probe, bright_weights())
    with pytest.raises(
        NonFiniteError, match=rf"^my-run/my-probe: not finite .*: {part}; lower lr of"
    ):
        probed(replace(probe, lr=lr), bright_weights())


def test_a_weight_of_a_head_that_is_not_finite_is_refused_even_if_no_logit_depends_on_it():
    head = nn.Linear(HIDDEN, CLASSES)
    head.register_buffer("unused", torch.tensor([1.0, math.inf]))
    task = probe_task(noise_images(), labels_of(), title="my-run/my-probe")
    message = "^my-run/my-probe: not finite after training: unused; lower lr"
    with pytest.raises(NonFiniteError, match=message):
        check_finite(LinearProbe(), tiny_encoder().eval(), task, head=head)


def test_a_probe_of_an_encoder_that_has_diverged_names_the_encoder():
    weights = tiny_encoder().state_dict()
    weights["prefeature.1.bias"][0] = math.nan
    message = "the features of training images are not finite; train the encoder again"
    with pytest.raises(NonFiniteError, match=message):
        probed(LinearProbe(**ONE_UPDATE), weights)


def test_a_loss_of_a_probe_that_is_not_finite_names_the_probe():
    probe = LinearProbe(epochs=2, batch_size=4, lr=1e37)
    with pytest.raises(NonFiniteError, match=r"my-probe: the loss is \w+ after epoch 1; lower lr"):
        probed(probe, bright_weights())


# Attacks

ATTACKS = {
    "pgd": PgdAttack(eps=(8, 16), steps=2),
    "restarts": PgdAttack(eps=(8,), steps=1, restarts=2, random_start=True),
    "autoattack": AutoAttack(eps=(8,), version="custom", attacks=("apgd-ce",), apgd_steps=2),
}

PGD = {"step_size": 2.55, "steps": 3}  # 0.41, 0.42, 0.42
UNDER_ATTACK = {
    "last": PGD,
    "worst": PGD | {"keep": "worst"},
    "restarts": PGD | {"restarts": 2, "random_start": True},
    "autoattack": {
        "kind": "autoattack", "version": "custom", "attacks": ("apgd-ce",), "apgd_steps": 5,
    },
}  # fmt: skip


@pytest.mark.parametrize("name", ATTACKS)
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_logits_of_clean_images_that_are_not_finite_write_no_flag(name, value):
    memory = Memory()
    weights = supervised_weights(classifier__bias=value, classifier__weight=value)
    message = "^my-run/own/pgd, clean: the logits of 5 of 5 images are not finite"
    with pytest.raises(NonFiniteError, match=message):
        attacked(ATTACKS[name], weights, batch=5, checkpoint=memory)
    assert not memory.saved


class Fragile(nn.Module):
    """Two classes, of which class 1 is right; logits overflow above a brightness."""

    def __init__(self, limit):
        super().__init__()
        self.limit = limit

    def forward(self, images):
        bright = images.flatten(1).mean(dim=1, keepdim=True)  # (B, 1)
        logits = torch.cat([bright, 1 - bright], dim=1)  # a brighter image has a larger loss
        return torch.where(bright > self.limit, torch.nan, logits)


@pytest.mark.parametrize("limit", [0.406, 0.415], ids=["on the way", "at the end"])
@pytest.mark.parametrize("name", ["last", "worst", "restarts", "autoattack"])
def test_logits_that_are_not_finite_under_attack_are_refused_even_if_discarded(name, limit):
    images = torch.full((6, 3, 4, 4), 0.3)
    images[2] = 0.4
    labels = torch.ones(6, dtype=torch.int64)
    options = UNDER_ATTACK[name]
    message = "^attack, eps_5.1: logits are not finite during the attack"
    with pytest.raises(NonFiniteError, match=message):
        attack(Fragile(limit), images, labels, eps=5.1, **options)
    attack(Fragile(0.43), images, labels, eps=5.1, **options)


def test_logits_of_the_result_are_checked_too():
    @dataclass(frozen=True)
    class Silent:
        """An attack that never looks at the network."""

        craft_precision: str = "fp32"
        norm: str = "linf"

        def perturb(self, model, images, labels, *, eps, seed):
            return images + eps

    images = torch.full((6, 3, 4, 4), 0.3)
    images[2] = 0.4
    message = "^my-job, eps_5.1: the logits of 1 of 6 images are not finite"
    with pytest.raises(NonFiniteError, match=message):
        attack_once(
            Fragile(0.41), Silent(), images, torch.ones(6), radius=5.1, seed=0, title="my-job"
        )


@pytest.mark.parametrize("label", [-1, CLASSES])
def test_a_label_that_is_none_of_the_classes_is_refused(label):
    labels = labels_of()
    labels[3] = label
    message = f"^my-run/own/pgd, clean: expected labels from 0 to 3, .* {label}"
    with pytest.raises(ValueError, match=message):
        attacked(ATTACKS["pgd"], supervised_weights(), labels)
