"""Reading a study is quick: modules that only computations need are not imported."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
HEAVY = {
    "torch",
    "torchvision",
    "sklearn",
    "scipy",
    "matplotlib",
    "PIL",
    "pyautoattack",
    "safetensors",
}
SHOW = "import json, sys; print(json.dumps(sorted({name.split('.')[0] for name in sys.modules})))"
COMMANDS = {
    "help": ["--help"],
    "help of a verb": ["pretrain", "--help"],
    "check": ["check", "params.yaml"],
}
PLANNING = """
from robustviews.study import jobs, load_study

assert all(job.spec for job in jobs.jobs(load_study("params.yaml")).values())
"""


def python(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments], check=True, capture_output=True, text=True, cwd=ROOT
    )


def seconds(*arguments: str) -> float:
    """Return the CPU seconds of a Python process, the lower of two tries."""
    tries = []
    for _ in range(2):
        before = os.times()
        python(*arguments)
        after = os.times()
        tries.append(after.children_user + after.children_system)
        tries[-1] -= before.children_user + before.children_system
    return min(tries)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_quick_command_imports_nothing_that_computes(command):
    finished = python("-X", "importtime", "-m", "robustviews", *COMMANDS[command])
    imported = {line.rpartition("|")[2].strip() for line in finished.stderr.splitlines()}
    assert "robustviews.cli" in imported
    assert not HEAVY & {name.split(".")[0] for name in imported}
    assert finished.stdout


def test_planning_a_whole_study_imports_nothing_that_computes():
    imported = set(json.loads(python("-c", f"{PLANNING}\n{SHOW}").stdout))
    assert "robustviews" in imported
    assert not HEAVY & imported


def test_checking_a_study_takes_little_longer_than_reading_yaml():
    check = seconds("-m", "robustviews", "check", "params.yaml")
    assert check < 5 * seconds("-c", "import argparse, numpy, yaml")
