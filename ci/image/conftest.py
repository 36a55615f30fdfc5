"""One image, built from nothing, and one run of the tiny study in it, beside one on the host."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import NamedTuple

import pytest

from ci.image import machine as machines
from ci.image.machine import IMAGE, WANTED, Machine
from tests.workflow.project import TINY, Project

TIMES = pytest.StashKey[list[str]]()
PLANTED = ".planted", "planted.pem", "data/planted", "results/planted", "src/.planted"


class Image(NamedTuple):
    machine: Machine
    commit: str
    digest: str

    def folder(self, name: str) -> Path:
        """Make an empty folder of the caller, to be mounted."""
        self.machine.run("mkdir", name)
        return self.machine.checkout / name


class Demonstration(NamedTuple):
    image: Image
    folder: Path
    said: str


def pytest_collection_modifyitems(items):
    """Say why none of these tests runs here, if none does."""
    reason = "takes minutes and a Docker daemon of its own; type: make test-image"
    if os.environ.get(WANTED):
        reason = machines.obstacle()
    for item in items if reason else []:
        if item.path.parent.name == "image":
            item.add_marker(pytest.mark.skip(reason=reason))


def pytest_terminal_summary(terminalreporter, config):
    for line in config.stash.get(TIMES, []):
        terminalreporter.write_line(line)


@pytest.fixture(scope="session")
def timed(pytestconfig):
    """Return a function that calls another and puts its seconds into the summary."""
    lines = pytestconfig.stash.setdefault(TIMES, [])

    def call(title, function, *arguments):
        start = time.monotonic()
        result = function(*arguments)
        lines.append(f"{title}: {time.monotonic() - start:.1f} s")
        return result

    return call


@pytest.fixture(scope="session")
def machine():
    with machines.machine() as machine:
        yield machine


@pytest.fixture(scope="session")
def image(machine, timed, pytestconfig):
    """The image of a clean checkout whose params.yaml is the tiny study."""
    commit = machine.check_out(TINY)
    plant(machine)
    timed("image, cold", machine.make, "image")
    digest = machine.docker("image", "inspect", "--format", "{{.Id}}", IMAGE).strip()
    timed("image, again", machine.make, "image")
    size = int(machine.docker("image", "inspect", "--format", "{{.Size}}", IMAGE))
    pytestconfig.stash[TIMES].append(f"image, size: {size / 1e9:.2f} GB")
    return Image(machine, commit, digest)


@pytest.fixture(scope="session")
def demo(image, timed):
    """The tiny study, finished by `make demo-in-image`."""
    done = timed("tiny study in the image", image.machine.make, "demo-in-image")
    return Demonstration(image, image.machine.checkout, done.stdout + done.stderr)


@pytest.fixture(scope="session")
def host(tmp_path_factory, timed):
    """The tiny study, finished on the host."""
    project = Project.create(tmp_path_factory.mktemp("host") / "project")
    timed("tiny study on the host", project.snakemake).said()
    return project


def plant(machine):
    """Leave files about in the checkout, unseen by git, that must not get into an image."""
    exclude = machine.checkout / ".git" / "info" / "exclude"
    exclude.write_text("*planted*\n", encoding="utf-8")
    for name in PLANTED:
        (machine.checkout / name).parent.mkdir(parents=True, exist_ok=True)
        (machine.checkout / name).write_text("planted", encoding="utf-8")
    machine.give()
