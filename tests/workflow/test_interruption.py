"""A job that is killed goes on where it was, and ends with the bytes of one that was not."""

from __future__ import annotations

import json
import logging
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import chdir, contextmanager
from dataclasses import dataclass

import pytest
from safetensors import safe_open

from robustviews import artifacts
from robustviews.cli import main
from robustviews.study import load_study
from robustviews.study.jobs import jobs
from tests.workflow.project import SOURCES, TINY, Project

RUN = "emp-free-digits-s0"
# Its state is more than the weights: momentum, a carried perturbation, and a loss summed so far.
STUDY = """\
study: killed
title: Jobs that are killed
seeds: [0]
runtime: {threads: 1, checkpoint_minutes: 0, evaluation_batch: 20}
datasets:
  digits: {kind: digits, size: 8, test: 1000}
runs:
  emp-free:
    datasets: [digits]
    method: emp_ssl
    views: {count: 2, augmentation: emp_ssl}
    regime: {kind: free, replays: 2}
    encoder: {width: 2, hidden: 16, projection: 8}
    optimizer: {lr: 0.003}
    epochs: 6
    batch_size: 100
probes:
  rle: {kind: robust_linear, epochs: 4, batch_size: 100, steps: 4, rle_trailing_standard: 10}
attacks:
  pgd: {kind: pgd, eps: [4, 8], steps: 3, step_size: 3, random_start: true}
sanity: {images: 12, radii: [0, 8, 64], steps: 20, restarts: 1, queries: 10, pixels: 4}
tables:
  table:
    title: Accuracies
    columns: [digits/pgd/4, digits/pgd/8, digits/minutes]
    rows:
      only: {run: emp-free, probe: rle}
"""
STATES = "results/.state/killed"
OTHER = 16 * "0"  # what the name of another job's state ends with
PATIENCE = 120  # seconds that a process may take
pytestmark = pytest.mark.usefixtures("settings_of_torch")
CHANCE = random.Random(0)


@dataclass(frozen=True)
class Case:
    """A job, and when to kill it.

    Attributes:
        words: what to type after `robustviews`.
        state: what the name of its state begins with.
        done: how far a saved position is, in minibatches.
        kills: minibatches done by then.
        count: minibatches of the whole job.
    """

    words: tuple[str, ...]
    state: str
    done: Callable[[dict], int]
    kills: tuple[int, ...]
    count: int


CASES = {
    "pretrain": Case(
        ("pretrain", "--run", RUN),
        RUN,
        lambda position: position["update"] // 2,
        (CHANCE.randint(2, 10), CHANCE.randint(15, 22)),
        count=6 * 7,
    ),
    "probe": Case(  # the second time among the standard epochs at the end
        ("probe", "--run", RUN, "--probe", "rle"),
        f"{RUN}-rle",
        lambda position: position["epoch"] * 8 + position["position"],
        (CHANCE.randint(2, 10), CHANCE.randint(40, 80)),
        count=14 * 8,
    ),
    "attack": Case(
        ("attack", "--run", RUN, "--probe", "rle", "--attack", "pgd"),
        f"{RUN}-rle-pgd",
        lambda position: position["batches"],
        (CHANCE.randint(2, 10), CHANCE.randint(20, 30)),
        count=50,
    ),
}


@contextmanager
def job(folder, case):
    """Run a job in a process of its own."""
    strange = ("ROBUSTVIEWS", "PYTHON")
    env = {name: value for name, value in os.environ.items() if not name.startswith(strange)}
    env |= {"PYTHONPATH": str(SOURCES), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "robustviews", *case.words, "--device", "cpu"]
    process = subprocess.Popen(command, cwd=folder, env=env, stderr=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def finish(folder, case):
    """Run a job to its end in this process, which has imported what the job needs."""
    with chdir(folder):
        assert main([*case.words, "--device", "cpu"]) == 0


def kill(folder, case, minibatches):
    """Kill a job once it has saved so many minibatches, and a little later at that."""
    deadline = time.monotonic() + PATIENCE
    with job(folder, case) as process:
        while done(folder, case) < minibatches:
            assert process.poll() is None, process.stderr.read()
            assert time.monotonic() < deadline, f"less than {minibatches} after {PATIENCE} s"
            time.sleep(0.002)
        time.sleep(CHANCE.uniform(0, 0.03))
        process.send_signal(signal.SIGKILL)
        assert process.wait(PATIENCE) == -signal.SIGKILL


def done(folder, case):
    """Return how far the saved state is, in minibatches."""
    for path in folder.glob(f"{STATES}/{case.state}-{16 * '[0-9a-f]'}/state-*.safetensors"):
        if not path.parent.name.endswith(OTHER):
            with safe_open(path, framework="numpy") as file:
                return case.done(json.loads(file.metadata()["position"]))
    return 0


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A folder with study, data and all that undisturbed jobs leave."""
    folder = tmp_path_factory.mktemp("killed")
    (folder / "params.yaml").write_text(STUDY, encoding="utf-8")
    with chdir(folder):
        assert main(["data", "--study", "params.yaml", "--dataset", "digits"]) == 0
    for case in CASES.values():
        finish(folder, case)
    return folder


@pytest.mark.parametrize("rule", CASES)
def test_a_job_that_was_killed_twice_ends_with_the_bytes_of_one_that_was_not(rule, project, caplog):
    caplog.set_level(logging.INFO)
    case, study = CASES[rule], load_study(project / "params.yaml")
    ((folder, spec),) = (
        (project / job.folder, job.spec) for job in jobs(study).values() if job.rule == rule
    )
    other = project / STATES / f"{case.state}-{OTHER}" / "state.safetensors"
    artifacts.write_text(other, "of another spec")
    expected, undisturbed = files(folder), artifacts.read_json(folder / "record.json")
    shutil.rmtree(folder)

    for minibatches in case.kills:
        kill(project, case, minibatches)
        assert not folder.exists()
    assert case.kills[-1] <= done(project, case) < case.count
    finish(project, case)

    assert "resumed after" in caplog.text
    assert files(folder) == expected
    record = artifacts.read_json(folder / "record.json")
    assert (undisturbed["resumed"], record["resumed"]) == (0, len(case.kills))
    assert record["spec"] == spec
    assert without_times(record["result"]) == without_times(undisturbed["result"])
    assert list((project / STATES).iterdir()) == [other.parent]
    assert other.read_text(encoding="utf-8") == "of another spec"
    shutil.rmtree(other.parent)


def files(folder):
    """Return the bytes of what a job leaves, of curves without the times."""
    found = {path.name: path.read_bytes() for path in folder.iterdir()}
    del found["record.json"]
    if "training.jsonl" in found:
        rows = artifacts.read_jsonl(folder / "training.jsonl")
        found["training.jsonl"] = [without_times(row) for row in rows]
    return found


def without_times(row):
    """Return what two jobs with the same result have in common."""
    times = ("seconds", "images_per_second", "compile_seconds")
    return {name: value for name, value in row.items() if name not in times}


def test_a_job_that_sigkill_ends_is_explained_by_the_workflow(tmp_path):
    project = Project.create(tmp_path / "project", TINY.with_name("bare.yaml"))
    verb = "def pretrain(options: argparse.Namespace) -> None:\n"
    project.edit("src/robustviews/cli/stages.py", verb, f"{verb}    os.kill(os.getpid(), 9)\n")
    ended = project.snakemake()
    assert ended.status == 1
    assert "A job was ended by SIGKILL" in ended.text
    assert "runtime.evaluation_batch" in ended.text
