"""A training that is killed goes on where it was, and ends with the bytes of one that was not."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
from safetensors import safe_open

from robustviews import artifacts, plan
from robustviews.cli import main
from robustviews.config import load_study

RUN = "emp-free-digits-s0"
# Its state is more than the weights: momentum, a carried perturbation, and a loss summed so far.
STUDY = """\
study: killed
title: A training that is killed
seeds: [0]
runtime: {threads: 1, checkpoint_minutes: 0}
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
  central: {kind: linear}
attacks: {}
tables:
  cost:
    title: Cost
    columns: [digits/minutes]
    rows:
      only: {run: emp-free, probe: central}
"""
MINIBATCHES = 6 * 7
PATIENCE = 120  # seconds that a process may take
CHANCE = random.Random(0)
KILLS = [CHANCE.randint(2, 10), CHANCE.randint(15, 22)]  # minibatches done by then


@contextmanager
def training(folder):
    """Run the training in a process of its own."""
    strange = ("ROBUSTVIEWS", "PYTHON")
    env = {name: value for name, value in os.environ.items() if not name.startswith(strange)}
    env |= {"PYTHONPATH": str(Path(plan.__file__).parents[1]), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "robustviews", "pretrain", "--run", RUN, "--device", "cpu"]
    process = subprocess.Popen(command, cwd=folder, env=env, stderr=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def finish(folder):
    """Train to the end; return what the process wrote."""
    with training(folder) as process:
        _, said = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, said
    return said


def kill(folder, minibatches):
    """Kill a training once it has saved so many minibatches, and a little later at that."""
    deadline = time.monotonic() + PATIENCE
    with training(folder) as process:
        while minibatches_saved(folder) < minibatches:
            assert process.poll() is None, process.stderr.read()
            assert time.monotonic() < deadline, f"less than {minibatches} after {PATIENCE} s"
            time.sleep(0.005)
        time.sleep(CHANCE.uniform(0, 0.03))
        process.send_signal(signal.SIGKILL)
        assert process.wait(PATIENCE) == -signal.SIGKILL


def minibatches_saved(folder):
    """Return how far the saved state is."""
    for path in folder.glob(f"results/.state/killed/{RUN}-*/state.safetensors"):
        with safe_open(path, framework="numpy") as file:
            position = json.loads(file.metadata()["position"])
        return position["update"] // 2
    return 0


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A folder with study and data."""
    folder = tmp_path_factory.mktemp("killed")
    (folder / "params.yaml").write_text(STUDY, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main(["data", "--study", "params.yaml", "--dataset", "digits"]) == 0
    return folder


def test_a_training_that_was_killed_twice_ends_with_the_bytes_of_one_that_was_not(project):
    encoder = project / "results" / "killed" / "pretrain" / RUN / "encoder.safetensors"
    history = encoder.with_name("training.jsonl")
    finish(project)
    expected, curve = encoder.read_bytes(), artifacts.read_jsonl(history)
    for path in encoder.parent.iterdir():
        path.unlink()
    encoder.parent.rmdir()

    for minibatches in KILLS:
        kill(project, minibatches)
        assert not encoder.parent.exists()
    assert minibatches_saved(project) < MINIBATCHES
    said = finish(project)

    assert "resumed after pass" in said
    assert encoder.read_bytes() == expected
    kept = ("epoch", "loss", "lr")
    assert [[row[name] for name in kept] for row in artifacts.read_jsonl(history)] == [
        [row[name] for name in kept] for row in curve
    ]
    record = artifacts.read_json(encoder.with_name("record.json"))
    assert record["resumed"] == len(KILLS)
    assert record["result"]["updates"] == 2 * MINIBATCHES
    assert record["spec"] == plan.pretrain_spec(load_study(project / "params.yaml"), RUN)
    assert not list(project.glob("results/.state/killed/*"))
    assert sorted(path.name for path in encoder.parent.iterdir()) == [
        "encoder.safetensors",
        "record.json",
        "training.jsonl",
    ]
