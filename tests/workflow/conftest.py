"""The tiny study, run once per session for all tests that only look or work on a copy."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from tests.workflow.project import Project


def pytest_collection_modifyitems(items):
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.workflow)


@pytest.fixture(scope="session")
def tiny(once):
    """A folder with the finished project, and what Snakemake printed when it ran once more."""

    def fill(folder):
        project = Project.create(folder / "project")
        project.snakemake().said()
        started = time.monotonic()
        again = project.snakemake().said()
        second = {"text": again, "seconds": time.monotonic() - started}
        (folder / "second.json").write_text(json.dumps(second), encoding="utf-8")

    return once("tiny", fill)


@pytest.fixture(scope="session")
def finished(tiny):
    """The finished project itself: to be read and copied, never changed."""
    return Project(tiny / "project")


@pytest.fixture(scope="session")
def versioned(finished, once):
    """A copy whose results DVC keeps, committed and pushed to a folder: to be read and cloned."""

    def fill(folder):
        project = finished.copy(folder / "project")
        project.dvc("remote", "add", "--default", "folder", str(folder / "remote")).said()
        done = project.dvc("repro")
        assert done.status == 0, done.text
        assert done.jobs_of_stages() == set()
        project.commit("Run the study")
        project.dvc("push").said()

    return Project(once("versioned", fill) / "project")
