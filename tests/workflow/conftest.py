"""One finished run of the tiny study, shared by all tests that only look or work on a copy."""

from __future__ import annotations

from typing import NamedTuple

import pytest

from tests.workflow.project import Finished, Project


class Run(NamedTuple):
    project: Project
    first: Finished


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    project = Project.create(tmp_path_factory.mktemp("tiny") / "project")
    first = project.snakemake()
    assert first.status == 0, first.text
    return Run(project, first)


@pytest.fixture(scope="session")
def finished(tiny):
    """The finished project itself: to be read and copied, never changed."""
    return tiny.project
