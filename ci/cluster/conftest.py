"""One Slurm for all tests here, where one was asked for and can be brought up."""

from __future__ import annotations

import contextlib
import os

import pytest

from ci.cluster.slurm import WANTED, UnableError, obstacle, one_node


@pytest.fixture(scope="session")
def slurm():
    if WANTED not in os.environ:
        pytest.skip("brings up a Slurm, which only `make test-cluster` asks for")
    reason = obstacle()
    if reason:
        pytest.skip(reason)
    with contextlib.ExitStack() as stack:
        try:
            running = stack.enter_context(one_node())
        except UnableError as error:
            pytest.skip(str(error))
        yield running
