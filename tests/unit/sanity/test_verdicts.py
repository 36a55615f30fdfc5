"""Each threshold on both sides, on measures alone; AS1 on options; AS12 on flags."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from robustviews.attacks import PgdAttack
from robustviews.probe import RobustLinearProbe
from robustviews.sanity import CHECKS, Sanity, disagrees, failed, measures_of, of_head, unreached

OPTIONS = Sanity(radii=(0.0, 8.0, 64.0))
# Of 500 images, an attack that is established.
PASSES = {
    "n": 500,
    "pgd_0": 500,
    "pgd_8": 200,
    "pgd_64": 0,
    "fgsm": 250,
    "restarts": 200,
    "square": 200,
    "noise": 400,
    "zero_gradients": 0,
    "infinite_gradients": 0,
    "repeat_difference": 0.0,
    "batch_difference": 0.0,
    "training_mode": 0.0,
    "probabilities": 0.0,
    "wrong_gradients": 0,
}
# For each check, measures just inside and just outside of its threshold.
EDGES = [
    ("AS3", {"pgd_0": 500}, {"pgd_0": 499}),
    ("AS3", {"pgd_8": 3, "pgd_64": 5}, {"pgd_8": 3, "pgd_64": 6}),  # a rise of 0.5 pp = 2.5 images
    ("AS3", {"pgd_64": 6}, {"pgd_64": 7}),  # 1 % and an image
    ("AS4", {"fgsm": 198}, {"fgsm": 197}),
    ("AS5", {"restarts": 194}, {"restarts": 193}),  # 1 pp and an image
    ("AS6", {"square": 199}, {"square": 198}),  # 0.2 pp and more than an image
    ("AS8", {"noise": 200}, {"noise": 199}),
    ("AS9", {"zero_gradients": 0}, {"zero_gradients": 1}),
    ("AS9", {"infinite_gradients": 0}, {"infinite_gradients": 1}),
    ("AS10", {"repeat_difference": 1e-4}, {"repeat_difference": 1.1e-4}),
    ("AS10", {}, {"repeat_difference": float("inf")}),
    ("AS11", {"batch_difference": 1e-3}, {"batch_difference": 1.1e-3}),
    ("AS11", {}, {"training_mode": 1.0}),
    ("AS11", {}, {"probabilities": 1.0}),
    ("AS13", {"wrong_gradients": 1}, {"wrong_gradients": 2}),
]


def consistent(measures):
    """Return measures in which no attack but the one in question is stronger than PGD-20."""
    pgd = measures.get("pgd_8", PASSES["pgd_8"])
    names = ("fgsm", "restarts", "square", "noise")
    return PASSES | {name: max(pgd, PASSES[name]) for name in names} | measures


@pytest.mark.parametrize(("check", "inside", "outside"), EDGES)
def test_a_measure_beyond_a_threshold_fails_its_check_and_no_other(check, inside, outside):
    assert failed(consistent(inside), OPTIONS) == {}
    assert set(failed(consistent(outside), OPTIONS)) == {check}


def test_every_check_has_an_edge():
    assert {check for check, _, _ in EDGES} == set(CHECKS)


def test_a_tenth_of_a_percent_of_flat_images_is_allowed_where_there_are_thousands():
    many = {name: 10 * value for name, value in PASSES.items()}
    assert failed(many | {"zero_gradients": 5}, OPTIONS) == {}
    assert "AS9" in failed(many | {"zero_gradients": 6}, OPTIONS)


def test_of_few_images_one_may_differ():
    few = consistent({"n": 8, "pgd_0": 8, "pgd_8": 4, "pgd_64": 1, "fgsm": 3, "restarts": 3})
    few |= {"square": 3, "noise": 4}
    assert failed(few, OPTIONS) == {}
    assert set(failed(few | {"pgd_64": 2}, OPTIONS)) == {"AS3"}
    assert set(failed(few | {"fgsm": 2}, OPTIONS)) == {"AS4"}
    assert set(failed(few | {"restarts": 2}, OPTIONS)) == {"AS5"}
    assert set(failed(few | {"square": 2}, OPTIONS)) == {"AS6"}


def test_a_rise_counts_from_the_lowest_accuracy_at_any_smaller_radius():
    options = Sanity(radii=(0.0, 4.0, 8.0, 16.0, 64.0))
    measures = PASSES | {"pgd_4": 100, "pgd_8": 102, "pgd_16": 103}
    assert set(failed(measures, options)) == {"AS3"}
    assert failed(measures | {"pgd_16": 102}, options) == {}


def test_an_image_must_withstand_every_try_of_an_attack():
    flags = {
        "index": np.arange(3),
        "labels": np.zeros(3, int),
        "noise/0": np.array([1, 1, 0], np.uint8),
        "noise/1": np.array([0, 1, 1], np.uint8),
        "fgsm": np.array([1, 1, 1], np.uint8),
    }
    assert measures_of(flags) == {"n": 3, "noise": 1, "fgsm": 3}
    both = {f"rle/{name}": flag for name, flag in flags.items()} | {"rle2/fgsm": flags["fgsm"]}
    assert measures_of(of_head(both, "rle")) == measures_of(flags)


def test_autoattack_may_leave_right_few_of_the_common_images_that_pgd_fools():
    strong = {"index": np.arange(0, 2000), "eps_8": np.ones(2000, np.uint8)}
    weak = {"index": np.arange(1000, 3000), "eps_8": np.ones(2000, np.uint8)}
    weak["eps_8"][1000:] = 0  # AutoAttack did not attack these
    weak["eps_8"][:2] = 0  # 0.2 % of 1000
    assert not disagrees(strong, weak, "eps_8")
    weak["eps_8"][2] = 0
    assert disagrees(strong, weak, "eps_8")
    strong["eps_8"][1002] = 0
    assert not disagrees(strong, weak, "eps_8")


@pytest.mark.parametrize(
    ("options", "missed"),
    [
        (PgdAttack(eps=(4, 8, 16), steps=4, step_size=2), [16]),
        (PgdAttack(eps=(8,), steps=4, step_size=2), []),
        (PgdAttack(eps=(8,), steps=1, step_size=7.9), [8]),
        (RobustLinearProbe(eps=8, steps=3, step_size=2.5), [8]),
        (RobustLinearProbe(eps=7.5, steps=3, step_size=2.5), []),
        (PgdAttack(eps=(2.1, 4.2), steps=6, step_size=0.7), []),  # 6 * 0.7 is 4.2 but for rounding
    ],
)
def test_steps_must_reach_the_surface_of_the_ball(options, missed):
    assert unreached(options) == missed


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"radii": (4.0, 8.0)}, "increasing radii from 0"),
        ({"radii": (0.0, 8.0, 4.0)}, "increasing radii from 0"),
        ({"radii": (0.0, 8.0, 8.0)}, "increasing radii from 0"),
        ({"eps": 7.0}, r"one of radii \(0, 1, 2, .*\), found 7"),
    ],
)
def test_radii_increase_from_zero_and_hold_the_radius_of_the_checks(options, words):
    with pytest.raises(ValueError, match=words):
        Sanity(**options)


def test_a_probe_of_many_views_is_checked_on_fewer_images():
    assert [Sanity().images_of(stack) for stack in (1, 4, 64)] == [512, 128, 64]
    assert Sanity(images=12).images_of(64) == 12


def test_recorded_measures_are_judged_without_torch():
    code = "import sys, robustviews.sanity as s; s.failed({'n': 0}, s.Sanity()); "
    subprocess.run([sys.executable, "-c", code + "assert 'torch' not in sys.modules"], check=True)


@pytest.mark.parametrize(("images", "is_judged"), [(1, False), (2, True)])
def test_one_image_establishes_no_attack(images, is_judged):
    counts = {f"pgd_{radius:g}": 0 for radius in Sanity().radii}
    counts |= {"pgd_0": images, "fgsm": 0, "restarts": 0, "square": 0, "noise": images, "n": images}
    assert (failed(PASSES | counts, Sanity()) == {}) == is_judged
