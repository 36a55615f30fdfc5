"""The script for a GPU, rehearsed on a CPU on a bare host: cut in each part, joined, audited."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from typing import NamedTuple

import pytest

from benchmarks.gpu import join, studies
from benchmarks.gpu.__main__ import PARTS
from tests.workflow.project import REPOSITORY, SOURCES, Project

PATIENCE = 500  # seconds that a rehearsal may take on a busy machine
REFUSED = ("snakemake", "dvc", "kornia")
BARE = f"""
import sys

class Bare:  # a rented machine has none of these
    def find_spec(name, path=None, target=None):
        if name in {REFUSED}:
            raise ImportError(f"no {{name}} on a bare host")

sys.meta_path.insert(0, Bare)
"""


@contextlib.contextmanager
def script(folder, *arguments):
    """Start the script in a folder."""
    (folder / "bare").mkdir(exist_ok=True)
    (folder / "bare/sitecustomize.py").write_text(BARE, encoding="utf-8")
    paths = map(str, (folder / "bare", SOURCES, REPOSITORY))
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}
    call = [sys.executable, "-m", "benchmarks.gpu", "--small", "--device", "cpu", "--out", "out"]
    process = subprocess.Popen(
        [*call, *arguments],
        cwd=folder,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


class Rehearsal(NamedTuple):
    """A finished rehearsal.

    Attributes:
        project: project in which its results are joined.
        lines: what it printed, one object a part.
        cuts: names and bytes in the output folder when a part had just begun, by part.
        final: the same at the end.
        joined: exit status of joining.
    """

    project: Project
    lines: list
    cuts: dict
    final: dict
    joined: int


@pytest.fixture(scope="module")
def rehearsal(tmp_path_factory):
    """Run every part once, stopped for a look at its files whenever a part begins."""
    folder, cuts = tmp_path_factory.mktemp("rented"), {}
    project = Project.create(tmp_path_factory.mktemp("home") / "project", studies.SMALL)
    project.robustviews("data", "--dataset", "digits").said()
    deadline, said = time.monotonic() + PATIENCE, ""
    with script(folder) as process:
        for line in process.stderr:
            said += line
            part, begins, _ = line.partition(": begins")
            if begins:
                process.send_signal(signal.SIGSTOP)
                cuts[part] = files(folder / "out")
                process.send_signal(signal.SIGCONT)
            assert time.monotonic() < deadline
        lines = [json.loads(line) for line in process.stdout.read().splitlines()]
        assert process.wait(PATIENCE) == 0, said
    words = ["--into", str(project.folder), "--out", str(folder / "kept")]
    joined = join.main([str(folder / "out"), *words])
    return Rehearsal(project, lines, cuts, files(folder / "out"), joined)


def files(folder):
    if not folder.exists():
        return {}
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_every_part_runs_to_its_end_without_an_error_on_a_bare_host(rehearsal):
    assert [line["part"] for line in rehearsal.lines] == list(PARTS)
    assert {line["part"]: line["state"] for line in rehearsal.lines if not line["ok"]} == {}


@pytest.mark.parametrize("part", list(PARTS))
def test_a_machine_that_goes_while_a_part_runs_leaves_every_file_of_the_parts_before_it(
    rehearsal, part
):
    found = rehearsal.cuts[part]
    before = list(PARTS)[: list(PARTS).index(part)]
    assert {name.partition(".")[0] for name in found} == set(before)
    assert found == {name: rehearsal.final[name] for name in found}


def test_few_small_files_leave_the_machine(rehearsal):
    for call in ("ab", "c"):
        names = [name for name in rehearsal.final if name[0] in call]
        assert len(names) <= 8
        assert all(len(rehearsal.final[name]) <= 16 * 2**20 for name in names)


def test_what_came_back_is_audited_without_a_failure(rehearsal):
    assert rehearsal.joined == 0
    audit = json.loads(rehearsal.project.robustviews("audit", "--json").printed)
    found = {
        job["name"]: {finding["check"]: finding["state"] for finding in job["findings"]}
        for job in audit["jobs"]
    }
    assert len(found) == 7
    for states in found.values():
        assert "failed" not in states.values()
        wanted = ("record", "spec", "code", "seed", "bytes", "inputs")
        assert {states[check] for check in wanted if check in states} == {"verified"}


def test_what_came_back_is_not_computed_again_by_the_workflow(rehearsal):
    planned = rehearsal.project.snakemake("--dry-run").counts()
    assert planned["table"] == 2
    assert not {"data", "pretrain", "probe", "attack"} & set(planned)


def test_a_killed_script_leaves_the_earlier_files_and_runs_again(tmp_path):
    with script(tmp_path, "--only", "a0,c1,c2") as process:
        for line in process.stderr:
            if line.startswith("c1: begins"):
                break
        time.sleep(0.5)
        process.kill()
        process.wait(PATIENCE)
    assert json.loads((tmp_path / "out/a0.json").read_text())["state"] == "done"
    assert set(files(tmp_path / "out")) == {"a0.json"}
    with script(tmp_path, "--only", "c1,c2") as process:
        out, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, errors
    assert [json.loads(line)["ok"] for line in out.splitlines()] == [True, True]
    assert set(files(tmp_path / "out")) == {"a0.json", "c1.tar", "c2.tar"}


pytestmark = pytest.mark.slow
