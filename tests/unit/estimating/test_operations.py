"""Counted passes and operations: those of the paper's network and of each regime's definition."""

from __future__ import annotations

import pytest

from robustviews.estimating import operations
from robustviews.estimating.operations import Passes
from robustviews.methods import METHODS, EmpSsl, SimClr
from robustviews.regimes import REGIMES, Free, Pgd, Standard
from robustviews.study.schema import Encoder

ONCE = SimClr(simclr_clean_branch="once")


def of_views(method, regime, views):
    """Return the passes of each view in a minibatch."""
    return operations.of_minibatch(method, regime, views=views, batch_size=8).times(1 / (8 * views))


@pytest.mark.parametrize(
    ("method", "regime", "views", "passes"),
    [
        (EmpSsl(), Standard(), 4, (1, 1, 1)),
        (EmpSsl(), Free(replays=3), 4, (3, 3, 3)),
        (EmpSsl(), Pgd(steps=5), 4, (6, 6, 6)),
        (EmpSsl(), Pgd(steps=5, pgd_weight_grads="final"), 4, (6, 6, 1)),
        (SimClr(), Pgd(steps=5), 2, (6, 6, 6)),
        # Passes of single views: 2 to train, 5 to attack, 1 of the clean view without gradient
        (ONCE, Pgd(steps=5, pgd_weight_grads="final"), 2, (4, 3.5, 1)),
    ],
)
def test_passes_are_those_that_the_regime_makes(method, regime, views, passes):
    assert of_views(method, regime, views) == passes


@pytest.mark.parametrize("regime", REGIMES)
@pytest.mark.parametrize("method", METHODS)
def test_every_method_in_every_regime_can_be_counted(method, regime):
    views = {"supervised": 1, "emp_ssl": 4}.get(method, 2)
    assert min(of_views(METHODS[method](), REGIMES[regime](), views)) >= 1


def test_the_headline_takes_83_peta_operations():
    forward = operations.forward_flop(Encoder(), size=32)
    minibatch = operations.of_minibatch(EmpSsl(), Free(), views=16, batch_size=100)
    assert forward == pytest.approx(1.157e9, rel=1e-3)
    assert minibatch.times(10 * 500).flop(forward) == pytest.approx(83.3e15, rel=1e-3)


def test_a_probe_runs_no_projector():
    whole = operations.forward_flop(Encoder(), size=32)
    prefeature = operations.forward_flop(Encoder(), size=32, feature="prefeature")
    backbone = operations.forward_flop(Encoder(), size=32, feature="backbone")
    assert whole - prefeature == 2 * (4096 * 4096 + 4096 * 1024)
    assert prefeature - backbone == 2 * 512 * 4096


def test_a_dense_head_has_its_convolutions_and_answers_at_each_pixel():
    head = operations.dense_head(Encoder(width=8), task="segmentation", size=32, classes=6)
    laterals = 32 * (16 * 16**2 + 32 * 8**2 + 64 * 4**2)
    assert head.flop == 2 * (laterals + 16**2 * (9 * 32 * 32 + 32 * 6))
    assert head.outputs == (6, 32, 32)


def test_operations_are_three_for_a_whole_pass_and_two_without_weights():
    assert Passes(1, 1, 1).flop(10.0) == 30
    assert Passes(1, 1).flop(10.0) == 20
