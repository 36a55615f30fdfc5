"""Broken classifiers and attacks fail the check that is made for them; honest heads pass all."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import nn

from robustviews import attacks, sanity, stages
from robustviews.sanity import subject as subjects
from robustviews.sanity.checks import CHECKS
from robustviews.sanity.information import INFORMATION
from robustviews.sanity.stage import examine
from tests.unit.sanity.conftest import CLASSES, CPU, NETWORK, OPTIONS, PROBES, SIZE, VIEWS
from tests.unit.test_pretrain import Memory
from tests.unit.tiny_models import inventory

pytestmark = pytest.mark.slow
SIDES = torch.Generator().manual_seed(0)  # the first two differ
pgd, losses = attacks.pgd, subjects.Subject.losses


class Wrapped(nn.Module):
    """A classifier behind a function of itself and its inputs."""

    def __init__(self, classifier, function):
        super().__init__()
        self.classifier, self.function, self.probe = classifier, function, classifier.probe
        self.eval()

    def forward(self, inputs):
        return self.function(self.classifier, inputs)


def fault(subject, name):
    """Return what one check finds wrong."""
    check = CHECKS[name]
    found = check.measure(subject)
    numbers = {key: value for key, value in found.items() if isinstance(value, int | float)}
    rows = {key: value for key, value in found.items() if key not in numbers}
    rows |= {key: subject.rows[key] for key in ("index", "labels")}
    counts = sanity.measures_of({key: row.numpy() for key, row in rows.items()})
    return check.fault(counts | numbers, subject.options)


def random_resize(classifier, inputs):
    side = int(torch.randint(4, 9, (), generator=SIDES))
    small = nn.functional.interpolate(inputs, size=side, mode="bilinear")
    return classifier(nn.functional.interpolate(small, size=inputs.shape[-1], mode="bilinear"))


def in_training_mode(classifier, inputs):
    with torch.no_grad():
        return classifier.train()(inputs)


def normalised_when_clean(classifier, inputs):
    return classifier(inputs if torch.is_grad_enabled() else (inputs - 0.3) / 0.6)


BROKEN_CLASSIFIERS = {
    "logits x 1e4": (lambda f, x: 1e4 * f(x), "AS9"),
    "a quantiser without gradient": (lambda f, x: f((x * 15).round() / 15), "AS9"),
    "detached features": (lambda f, x: f(x.detach()), "AS9"),
    "random resize": (random_resize, "AS10"),
    "batch norm in training mode": (in_training_mode, "AS11"),
    "a harmless module in training mode": (lambda f, x: (f.head.train(), f(x))[1], "AS11"),
    "probabilities as logits": (lambda f, x: f(x).softmax(dim=1), "AS11"),
    "normalisation on the clean path only": (normalised_when_clean, "AS13"),
}


@pytest.mark.parametrize("name", BROKEN_CLASSIFIERS)
def test_a_broken_classifier_fails_the_check_made_for_it(name, trained):
    function, check = BROKEN_CLASSIFIERS[name]
    subject = trained.subject(Wrapped(trained.classifier("own"), function))
    assert fault(subject, check)
    honest = trained.subject(trained.classifier("own"))
    assert not fault(honest, check)


def two_short_steps(loss, images, **options):
    return pgd(loss, images, **options | {"steps": 2, "step_size": 0.01 / 255})


def descending(loss, images, **options):
    return pgd(lambda x: -loss(x), images, **options)


BROKEN_ATTACKS = {
    "two steps of 0.01/255": (two_short_steps, losses),
    "descending": (descending, losses),
    "rolled labels": (pgd, lambda self, logits, y: losses(self, logits, (y + 1) % CLASSES)),
}


@pytest.mark.parametrize("name", BROKEN_ATTACKS)
def test_a_broken_attack_leaves_accuracy_at_the_largest_radius(name, trained, monkeypatch):
    attack, loss = BROKEN_ATTACKS[name]
    monkeypatch.setattr(attacks, "pgd", attack)
    monkeypatch.setattr(subjects.Subject, "losses", loss)
    assert "withstand 64/255" in fault(trained.subject(trained.classifier("own")), "AS3")


def test_an_attack_in_a_ball_of_twice_the_radius_is_refused(trained, monkeypatch):
    def doubled(loss, images, *, eps, **options):
        return pgd(loss, images, eps=2 * eps, **options)

    monkeypatch.setattr(attacks, "pgd", doubled)
    with pytest.raises(ValueError, match="left its ball"):
        fault(trained.subject(trained.classifier("own")), "AS3")


HONEST = {
    "linear": ("linear", lambda f, x: f(x)),
    "rle": ("rle", lambda f, x: f(x)),
    "ncrop": ("ncrop", lambda f, x: f(x)),
    "own": ("own", lambda f, x: f(x)),
    "logits x 3": ("rle", lambda f, x: 3 * f(x)),
}


@pytest.mark.parametrize("name", HONEST)
def test_an_honest_head_passes_every_check(name, trained):
    probe, function = HONEST[name]
    # At 8/255 PGD-20 has not converged on heads that were trained so little.
    options = dataclasses.replace(OPTIONS, radii=(0.0, 2.0, 16.0, 64.0), eps=2.0)
    classifier = Wrapped(trained.classifier(probe), function)
    result = examine(trained.subject(classifier, options=options))
    assert result["failed"] == {}
    assert result["measures"]["n"] == 24


def test_an_undefended_encoder_withstands_nothing(trained):
    subject = trained.subject(trained.classifier("linear"))
    assert subject.pgd(16).sum() == 0


def test_a_head_that_is_never_right_is_not_established(trained):
    # Class 10 does not exist.
    classifier = Wrapped(
        trained.classifier("own"), lambda f, x: nn.functional.pad(f(x), (0, 1), value=1e3)
    )
    assert examine(trained.subject(classifier)) == {
        "measures": {"n": 0},
        "failed": {
            "AS3": "0 images are classified correctly: too few to judge an attack, which takes 2"
        },
    }


def test_checks_change_nothing_of_a_classifier(trained):
    classifier = trained.classifier("ncrop")
    before = inventory(classifier)
    examine(trained.subject(classifier))
    assert inventory(classifier) == before


def test_images_are_those_that_the_classifier_gets_right_and_their_flags_are_kept(trained):
    subject = trained.subject(trained.classifier("rle"))
    index = subject.rows["index"]
    assert (index.diff() > 0).all()
    assert torch.equal(subject.rows["labels"], trained.labels[index])
    assert torch.equal(subject.inputs, trained.images[index].float() / 255)
    with torch.no_grad():
        assert torch.equal(subject.classifier(subject.inputs).argmax(dim=1), subject.labels)
    result = examine(subject)
    flags = {name: row.numpy() for name, row in subject.rows.items()}
    counted = sanity.measures_of(flags)
    assert counted.items() <= result["measures"].items()
    tries = {"pgd_0", "pgd_8", "pgd_16", "pgd_64", "fgsm", "restarts/0", "square", "margin"}
    assert set(flags) == {"index", "labels", *tries, *(f"noise/{draw}" for draw in range(10))}


def test_the_same_seed_gives_the_same_flags_whatever_ran_before(trained):
    first, second = (trained.subject(trained.classifier("own")) for _ in range(2))
    one = examine(first)
    torch.rand(3)
    assert one == examine(second)
    assert all(torch.equal(first.rows[name], second.rows[name]) for name in first.rows)


def test_square_goes_on_with_survivors_and_moves_stacks_jointly(trained, monkeypatch):
    from pyautoattack.square import SquareAttack

    seen = []
    perturb = SquareAttack.perturb

    def noting(self, x, y):
        seen.append(tuple(x.shape))
        return perturb(self, x, y)

    monkeypatch.setattr(SquareAttack, "perturb", noting)
    subject = trained.subject(trained.classifier("ncrop"))
    subject.rows["pgd_8"] = torch.ones(24, dtype=torch.uint8)
    subject.rows["pgd_8"][:3] = 0
    flags = CHECKS["AS6"].measure(subject)["square"]
    assert seen == [(21, 2 * 3, 8, 8)]
    assert flags[:3].sum() == 0


def left_after(subject, name):
    """Return how many images PGD-20 leaves, and how many are left of them after another attack."""
    rows = subject.rows
    rows["pgd_8"] = subject.pgd(8)
    rows |= INFORMATION[name](subject)
    assert (rows[name] <= rows["pgd_8"]).all()
    return int(rows["pgd_8"].sum()), int(rows[name].sum())


def test_a_margin_loss_and_another_head_fool_what_a_saturated_cross_entropy_does_not(trained):
    honest = trained.classifier("own")
    saturated = Wrapped(honest, lambda f, x: 1e4 * f(x))
    subject = trained.subject(saturated, peer=honest)
    expected = int(trained.subject(honest).pgd(8).sum())
    for name, few in (("margin", expected + 2), ("transfer", expected)):
        before, after = left_after(subject, name)
        assert after <= few < before


def examined(trained, probes, checkpoint=None):
    return stages.sanity(
        trained.weights["simclr"],
        {name: trained.weights[name] for name in probes},
        trained.images,
        trained.labels,
        classes=CLASSES,
        size=SIZE,
        encoder=NETWORK,
        supervised=False,
        probes=probes,
        sanity=OPTIONS,
        views=VIEWS,
        device=CPU,
        checkpoint=checkpoint,
    )


@pytest.fixture(scope="module")
def undisturbed(trained):
    """The checks of all heads of the self-supervised encoder, which nothing interrupts."""
    return examined(trained, PROBES)


def test_only_another_head_that_sees_as_many_views_lends_its_gradients(trained, undisturbed):
    assert INFORMATION["transfer"](trained.subject(trained.classifier("rle"))) == {}
    alone = {"rle": PROBES["rle"], "ncrop": PROBES["ncrop"]}
    for probes, flags, expected in (
        (alone, examined(trained, alone).flags, set()),
        (PROBES, undisturbed.flags, {"linear/transfer", "rle/transfer"}),
    ):
        assert {name for name in flags if name.endswith("/transfer")} == expected
        assert {name for name in flags if name.endswith("/margin")} == {
            f"{probe}/margin" for probe in probes
        }


def test_checks_resume_after_any_head_as_if_never_interrupted(trained, undisturbed):
    memory = Memory()
    examined(trained, PROBES, memory)
    assert len(memory.saved) == len(PROBES)
    for done in range(1, len(PROBES) + 1):
        again = Memory()
        again.saved = memory.saved[:done]
        resumed = examined(trained, PROBES, again)
        assert again.minibatches == len(PROBES) - done
        assert resumed.heads == undisturbed.heads
        assert resumed.flags.keys() == undisturbed.flags.keys()
        assert all(
            torch.equal(resumed.flags[name], undisturbed.flags[name]) for name in resumed.flags
        )
