"""torchrun: several processes make one encoder, go on where one was cut, and end when one fails."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time

import pytest

from robustviews import artifacts
from robustviews.cli import main
from tests.workflow.project import SOURCES, Project

RUN = "emp-free-digits-s0"
STUDY = """\
study: together
title: Several processes
runtime: {threads: 1, checkpoint_minutes: 0, ranks: 2}
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
    epochs: 2
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
MINIBATCHES = 2 * 7
PATIENCE = 240  # seconds that all processes may take
# What a process runs that fails in its third minibatch if it is of a rank. Taking leave of others
# and ending Python take longer than PATIENCE, as with NCCL while these wait for this one.
FAILING = """\
import atexit, os, sys, time
from torch import distributed
from robustviews import cli, pretrain
distributed.destroy_process_group = lambda: time.sleep(300)
atexit.register(time.sleep, 300)
original, count = pretrain.make_batch, 0
def make_batch(*arguments, **options):
    global count
    count += 1
    if count == 3 and os.environ.get("RANK", "") in sys.argv[1].split(","):
        raise pretrain.TrainingError("a fault that was planted")
    return original(*arguments, **options)
pretrain.make_batch = make_batch
raise SystemExit(cli.main(sys.argv[2:]))
"""


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A folder with study and data."""
    (tmp_path / "params.yaml").write_text(STUDY, encoding="utf-8")
    (tmp_path / "failing.py").write_text(FAILING, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    assert main(["data", "--study", "params.yaml", "--dataset", "digits"]) == 0
    return tmp_path


def launch(folder, *, failing="", ranks=2):
    """Train with torchrun, or with one process alone; ranks named in `failing` break down."""
    strange = ("ROBUSTVIEWS", "PYTHON", "TORCHELASTIC")
    env = {name: value for name, value in os.environ.items() if not name.startswith(strange)}
    env |= {"PYTHONPATH": str(SOURCES), "OMP_NUM_THREADS": "1"}
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--local-addr", "localhost"]
    torchrun += ["--nproc-per-node", str(ranks)]
    # Behind `--`, or torchrun takes `--run` for an option of its own.
    script = ["failing.py", failing] if failing else ["-m", "robustviews"]
    command = [*(torchrun if ranks > 1 else []), *(["--"] if ranks > 1 else []), *script]
    return subprocess.run(
        [sys.executable, *command, "pretrain", "--run", RUN, "--device", "cpu"],
        cwd=folder,
        env=env,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


def test_the_workflow_starts_several_processes_on_a_machine_whose_name_nobody_knows(tmp_path):
    (tmp_path / "study.yaml").write_text(STUDY, encoding="utf-8")
    project = Project.create(tmp_path / "project", tmp_path / "study.yaml")
    (tmp_path / "path").mkdir()
    unknown = 'import socket\nsocket.getfqdn = lambda name="": "nowhere.invalid"\n'
    (tmp_path / "path" / "sitecustomize.py").write_text(unknown, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "snakemake", "--cores=2", "all_pretrain", "--config", "device=cpu"],
        cwd=project.folder,
        env=project.environment([tmp_path / "path"]),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    record = artifacts.read_json(results(project.folder) / "record.json")
    assert record["environment"]["ranks"] == 2


def results(folder):
    return folder / "results" / "together" / "pretrain" / RUN


def test_processes_make_one_encoder_and_resume_it_unless_their_number_changes(project):
    begin = time.monotonic()
    cut = launch(project, failing="0,1")
    assert cut.returncode != 0
    assert cut.stderr.count("a fault that was planted") == 2
    assert time.monotonic() - begin < PATIENCE
    assert not results(project).exists()
    [state] = project.glob("results/.state/together/*")
    shutil.copytree(state, project / "kept")

    done = launch(project, ranks=1)
    assert done.returncode == 0, done.stderr
    assert "resumed after" not in done.stderr
    assert "computed with ranks 2, and here is ranks 1" in done.stderr
    record = artifacts.read_json(results(project) / "record.json")
    assert (record["resumed"], record["environment"]["ranks"]) == (0, 1)
    assert not state.exists()

    alone = artifacts.read_jsonl(results(project) / "training.jsonl")
    for path in results(project).iterdir():
        path.unlink()
    shutil.copytree(project / "kept", state)
    done = launch(project)
    assert done.returncode == 0, done.stderr
    assert "resumed after pass 0, minibatch 2" in done.stderr
    assert done.stderr.count("images=resident") == 1  # one rank speaks for all
    assert done.stderr.count("epoch=2") == 1
    record = artifacts.read_json(results(project) / "record.json")
    assert (record["resumed"], record["environment"]["ranks"]) == (1, 2)
    assert record["result"]["updates"] == 2 * MINIBATCHES
    together = artifacts.read_jsonl(results(project) / "training.jsonl")
    for before, after in zip(alone, together, strict=True):
        assert after["loss"] == pytest.approx(before["loss"], rel=0.01)
    assert not list(project.glob("results/.state/together/*"))


@pytest.mark.parametrize("rank", ["0", "1"])
def test_when_one_process_fails_all_end_and_its_message_is_said(rank, project):
    done = launch(project, failing=rank)
    assert done.returncode != 0
    assert f"rank {rank} of 2 fails" in done.stderr
    assert done.stderr.count("a fault that was planted") == 1
    assert not results(project).exists()
