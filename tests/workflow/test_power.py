"""A job that has ended survives a power cut in the same moment: nothing of it waits in memory."""

from __future__ import annotations

import os
import random
import subprocess

import pytest

from robustviews import artifacts
from tests.workflow import torture
from tests.workflow.power import Disk

RUN = "emp-free-digits-s0"
JOBS = {
    "data": ("--dataset", "digits"),
    "encoder": ("--encoder", "brought"),
    "pretrain": ("--run", RUN),
    "probe": ("--run", RUN, "--probe", "central"),
    "attack": ("--run", RUN, "--probe", "rle", "--attack", "pgd2"),
    "sanity": ("--run", RUN),
}


@pytest.fixture
def disk(tmp_path):
    if os.geteuid():
        pytest.skip("only root can mount a file system and cut its power")
    try:
        disk = Disk(tmp_path, random.Random(0))
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no ext4 on a loop device here: {error}")
    yield disk
    disk.remove()


def test_a_finished_job_of_each_stage_survives_a_power_cut(disk):
    project = torture.create(disk.folder / "new" / "project")
    os.sync()
    for verb, options in JOBS.items():
        if verb == "attack":
            project.robustviews("probe", "--run", RUN, "--probe", "rle").said()
        project.robustviews(verb, *options).said()
        disk.cut()
        disk.restore()
        records = list(project.folder.glob("[dr]*/**/record.json"))
        stages = {artifacts.read_json(path)["stage"]: path for path in records}
        assert verb in stages
        for path in records:
            for name, digest in artifacts.read_json(path)["outputs"].items():
                assert artifacts.sha256(path.parent / name) == digest
