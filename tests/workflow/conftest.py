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


@pytest.fixture(scope="session")
def versioned(finished, tmp_path_factory):
    """A copy whose results DVC keeps, committed and pushed to a folder: to be read and cloned."""
    folder = tmp_path_factory.mktemp("versioned")
    project = finished.copy(folder / "project")
    project.dvc("remote", "add", "--default", "folder", str(folder / "remote")).said()
    done = project.dvc("repro")
    assert done.status == 0, done.text
    assert done.jobs_of_stages() == set()
    project.commit("Run the study")
    project.dvc("push").said()
    return project
