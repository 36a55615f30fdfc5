"""One Slurm for all tests here, where one was asked for and can be brought up."""

from __future__ import annotations

import os

import pytest

from tests.cluster.slurm import WANTED, obstacle, one_node


@pytest.fixture(scope="session")
def slurm():
    if WANTED not in os.environ:
        pytest.skip("brings up a Slurm, which only `make test-cluster` asks for")
    reason = obstacle()
    if reason:
        pytest.skip(reason)
    with one_node() as running:
        yield running
