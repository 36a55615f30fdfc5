"""Trainings give the losses that they gave when these were stored; `trajectories.py` says how."""

from __future__ import annotations

import json

import pytest

from tests.golden.trajectories import NAMES, STORED, trajectory

TOLERANCE = 1e-5  # relative


@pytest.fixture(scope="module")
def stored():
    return json.loads(STORED.read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", NAMES)
def test_a_short_training_gives_the_stored_losses(name, stored):
    found = trajectory(name)
    assert set(found) == set(stored[name])
    for key, values in stored[name].items():
        assert found[key] == pytest.approx(values, rel=TOLERANCE, abs=0), key


def test_a_trajectory_is_stored_for_every_method_in_every_regime(stored):
    assert set(stored) == set(NAMES)


def test_stored_trajectories_differ(stored):
    losses = {tuple(each["losses"]) for each in stored.values()}
    assert len(losses) == len(stored)
    for name, each in stored.items():
        assert len(set(each["losses"])) == (18 if name.endswith("free") else 6)
