"""One GPU for each process of a machine, with a pretended nvidia-smi."""

from __future__ import annotations

import os
import select
import subprocess
import sys

import pytest

from robustviews.machine import gpus

LISTED = """\
GPU 0: NVIDIA H100 80GB HBM3 (UUID: GPU-aaaa-1)
  MIG 1g.10gb     Device  0: (UUID: MIG-cccc-3)
GPU 1: NVIDIA H100 80GB HBM3 (UUID: GPU-bbbb-2)
"""
BOTH = ["GPU-aaaa-1", "GPU-bbbb-2"]
PATIENCE = 60  # seconds that another process may take
TAKE = """\
import os, sys
from robustviews.machine import gpus
with gpus.taken("cuda"):
    print(os.environ[gpus.VISIBLE], flush=True)
    sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def machine(tmp_path, monkeypatch):
    """A machine with two GPUs, none of them taken."""
    program = tmp_path / "nvidia-smi"
    program.write_text(f"#!/bin/sh\ncat <<END\n{LISTED}END\n", encoding="utf-8")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(gpus, "_SECONDS", 0.01)
    monkeypatch.setattr(gpus, "_computes", lambda: False)
    monkeypatch.delenv(gpus.VISIBLE, raising=False)


@pytest.fixture
def job():
    """Start a process that takes a GPU until its stdin is closed."""
    started = []

    def start():
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
        process = subprocess.Popen([sys.executable, "-c", TAKE], text=True, **pipes)
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait(PATIENCE)
        process.stdin.close()
        process.stdout.close()


@pytest.mark.parametrize(
    ("variable", "names"),
    [
        (None, BOTH),
        ("1", BOTH[1:]),
        ("1,0", BOTH[::-1]),
        ("GPU-bbbb", BOTH[1:]),
        ("MIG-cccc-3", ["MIG-cccc-3"]),
        ("", []),
        ("-1", []),
        ("7", []),
    ],
)
def test_cuda_s_variable_limits_the_gpus(variable, names, monkeypatch):
    if variable is not None:
        monkeypatch.setenv(gpus.VISIBLE, variable)
    assert gpus.visible() == names


def test_a_machine_without_a_driver_has_no_gpus(monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert gpus.visible() == []
    with gpus.taken("cuda") as own:
        assert not own


@pytest.mark.parametrize("device", ["cpu", "cuda:1"])
def test_a_named_device_takes_no_gpu(device):
    with gpus.taken(device) as own:
        assert (own, os.environ.get(gpus.VISIBLE)) == (False, None)


def test_more_processes_than_gpus_take_none():
    with gpus.taken("cuda", processes=3) as own:
        assert not own


@pytest.mark.parametrize("before", [None, "0,1"])
def test_the_variable_is_restored_and_the_gpu_free_again(before, monkeypatch):
    if before:
        monkeypatch.setenv(gpus.VISIBLE, before)
    for _ in range(2):
        with gpus.taken("auto") as own:
            assert (own, os.environ[gpus.VISIBLE]) == (True, BOTH[0])
        assert os.environ.get(gpus.VISIBLE) == before


def test_four_jobs_on_two_gpus_never_share_one(job):
    first, second = job(), job()
    one, two = (process.stdout.readline().strip() for process in (first, second))
    assert sorted((one, two)) == BOTH
    waiting = [job().stdout, job().stdout]
    assert select.select(waiting, [], [], 2)[0] == []
    first.stdin.close()  # it ends
    [third], _, _ = select.select(waiting, [], [], PATIENCE)
    assert third.readline().strip() == one
    waiting.remove(third)
    assert select.select(waiting, [], [], 2)[0] == []
    second.kill()  # its lock ends with it
    assert waiting[0].readline().strip() == two
