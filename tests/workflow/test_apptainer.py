"""With Apptainer jobs run in the image that was named, and with the programs that it brings."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path

import pytest

from robustviews import artifacts
from tests.workflow.project import Project

IMAGE = "images/robustviews.sif"
WITH_PASSWORD = "docker://me:secret@host.example/lab/robustviews:1"
# Notes what it is told, and runs on this machine what should run in an image.
STAND_IN = """\
#!/bin/bash
printf '%s\\n' "$@" >>"{calls}"
if [ "$1" = --version ]; then echo apptainer version 1.3.0; exit; fi
while [ "$1" != bash ]; do shift; done
PATH={programs}:$PATH exec "$@"
"""


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project beside a stand-in for Apptainer."""
    tools = tmp_path / "tools"
    tools.mkdir()
    text = STAND_IN.format(calls=tmp_path / "calls", programs=Path(sys.executable).parent)
    (tools / "apptainer").write_text(text, encoding="utf-8")
    (tools / "apptainer").chmod(0o755)
    monkeypatch.setenv("PATH", str(tools), prepend=os.pathsep)
    return Project.create(tmp_path / "project")


def test_jobs_run_in_the_image_with_its_own_programs_and_records_name_it(project):
    (project.folder / "images").mkdir()
    (project.folder / IMAGE).touch()
    project.snakemake("all_data", "--sdm=apptainer", image=project.folder / IMAGE).said()
    calls = (project.folder.parent / "calls").read_text(encoding="utf-8").splitlines()
    assert IMAGE in calls
    command = calls[-1]  # that bash is told to run
    assert command.endswith(".log")
    assert str(Path(sys.executable).parent) not in command
    assert f"ROBUSTVIEWS_IMAGE={IMAGE}" in shlex.split(command)
    record = artifacts.read_json(next(project.folder.glob("data/*/record.json")))
    assert record["environment"]["image"] == IMAGE
    assert str(project.folder) not in notes(project)


def test_no_job_runs_in_an_image_unless_that_is_asked_for(project):
    project.snakemake("all_data", image=WITH_PASSWORD).said()
    assert not (project.folder.parent / "calls").exists()
    assert "secret" not in notes(project)  # which git keeps


def test_an_image_with_a_password_is_refused(project):
    finished = project.snakemake("all_data", "--sdm=apptainer", image=WITH_PASSWORD)
    assert finished.status != 0
    assert "APPTAINER_DOCKER_PASSWORD" in finished.text
    assert "secret" not in finished.text


def notes(project):
    """Return all that Snakemake noted on what was made."""
    files = (project.folder / ".snakemake/metadata").rglob("*")
    found = [path.read_text(encoding="utf-8") for path in files if path.is_file()]
    assert found
    return "".join(found)
