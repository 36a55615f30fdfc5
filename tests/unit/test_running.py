"""Locks of jobs and of Snakemake: who holds them, and what they say to those who come later."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest

import robustviews
from robustviews import plan, running
from robustviews.cli import main
from robustviews.config import load_study
from tests.unit.results_tree import small_study
from tests.workflow.project import TINY

FOLDER = Path("results/tiny/pretrain/simclr-pgd5-digits-s0")
PATIENCE = 60  # seconds that another process may take to start

CLAIM = """\
import sys
from pathlib import Path
from robustviews import running
with running.claim(Path(sys.argv[1]), sys.argv[2]):
    print("held", flush=True)
    sys.stdin.read()
"""
ANNOUNCE = """\
import sys
from robustviews import running
running.announce()
print("held", flush=True)
sys.stdin.read()
"""


@contextmanager
def another_process(code, *arguments):
    """Run code in a process of its own, as soon as it holds its lock."""
    env = os.environ | {"PYTHONPATH": str(Path(robustviews.__file__).parents[1])}
    command = [sys.executable, "-c", code, *map(str, arguments)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    process = subprocess.Popen(command, env=env, **pipes)
    try:
        assert process.stdout.readline() == b"held\n"
        yield process
    finally:
        process.kill()
        process.communicate(timeout=PATIENCE)


@pytest.fixture(autouse=True)
def project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def leave_snakemake_lock(*files):
    """Leave the lock that Snakemake has on files while it runs, and after it was killed."""
    lock = Path(".snakemake/locks/0.output.lock")
    lock.parent.mkdir(parents=True)
    lock.write_text("".join(f"{file}\n" for file in files), encoding="utf-8")


def test_a_second_process_is_told_which_one_does_the_job_and_how_to_end_it():
    with (
        another_process(CLAIM, FOLDER, "pretrain x") as first,
        pytest.raises(running.BusyError) as refused,
        running.claim(FOLDER, "pretrain x"),
    ):
        pass
    assert str(refused.value).startswith(f"pretrain x (PID {first.pid}, since 20")
    assert f"kill {first.pid}" in str(refused.value)


def test_a_lock_is_gone_when_its_job_ends_and_free_when_its_process_is_killed():
    with running.claim(FOLDER, "pretrain x"):
        assert running.lock_of(FOLDER).is_file()
    assert not running.lock_of(FOLDER).exists()
    with another_process(CLAIM, FOLDER, "pretrain x"):
        pass
    assert running.lock_of(FOLDER).is_file()  # nobody was left to remove it
    assert running.holder(running.lock_of(FOLDER)) is None
    with running.claim(FOLDER, "pretrain x"):
        pass


def test_jobs_of_other_folders_do_not_wait_for_each_other():
    with another_process(CLAIM, FOLDER, "x"), running.claim(FOLDER.with_name("other"), "y"):
        pass


def test_of_the_ranks_of_one_training_only_the_first_claims(monkeypatch):
    with another_process(CLAIM, FOLDER, "pretrain x"):
        monkeypatch.setenv("RANK", "1")
        with running.claim(FOLDER, "pretrain x"):
            pass
        monkeypatch.setenv("RANK", "0")
        with pytest.raises(running.BusyError), running.claim(FOLDER, "pretrain x"):
            pass


def test_who_only_looks_at_a_lock_does_not_make_a_job_fail():
    lock = running.lock_of(FOLDER)
    lock.parent.mkdir(parents=True)
    for _ in range(50):
        with running.claim(FOLDER, "pretrain x"):
            assert running.holder(lock).pid == os.getpid()
        assert running.holder(lock) is None


def test_nothing_is_said_where_nothing_is_locked_or_files_of_another_study_are():
    assert running.notice(small_study()) == ""
    leave_snakemake_lock("results/other/report.html", "data/other-12345678/record.json")
    assert running.notice(small_study()) == ""


def test_a_lock_says_which_snakemake_runs_and_with_which_jobs():
    leave_snakemake_lock("results/tiny/report.html")
    with (
        another_process(ANNOUNCE) as snakemake,
        another_process(CLAIM, FOLDER, "pretrain x") as job,
    ):
        said = running.notice(small_study())
    assert f"Snakemake (PID {snakemake.pid}, since 20" in said
    assert f"pretrain x (PID {job.pid}, since 20" in said
    assert f"kill {snakemake.pid} " in said
    assert "--unlock" not in said


def test_a_lock_that_a_killed_snakemake_left_can_be_removed():
    leave_snakemake_lock(f"{plan.data_folder(small_study(), 'digits')}/record.json")
    with another_process(ANNOUNCE):
        pass
    said = running.notice(small_study())
    assert "was killed" in said
    assert "snakemake --unlock" in said
    assert "kill " not in said


def test_a_training_that_outlived_its_snakemake_is_to_be_ended_first():
    leave_snakemake_lock("results/tiny/report.html")
    with another_process(CLAIM, FOLDER, "pretrain x") as orphan:
        said = running.notice(small_study())
    kill, unlock = said.index(f"kill {orphan.pid} "), said.index("snakemake --unlock")
    assert kill < unlock
    assert f"still runs: pretrain x (PID {orphan.pid}, since 20" in said


def test_what_a_killed_snakemake_announced_is_cleared_by_the_next():
    with another_process(ANNOUNCE) as killed:
        pass
    left = Path(f".snakemake/running-{killed.pid}.lock")
    assert left.is_file()
    with another_process(ANNOUNCE):
        assert not left.exists()


@pytest.mark.parametrize("verb", ["data", "pretrain", "probe", "attack"])
def test_every_job_refuses_to_run_twice_at_once(verb, project, capsys):
    study, run = load_study(TINY), "simclr-std-digits-s0"
    names = {"run": run, "probe": "crops2", "attack": "pgd2"}
    folders = {
        "data": plan.data_folder(study, "digits"),
        "pretrain": plan.pretrain_folder(study, run),
        "probe": plan.probe_folder(study, run, "crops2"),
        "attack": plan.attack_folder(study, run, "crops2", "pgd2"),
    }
    taken = list(names)[: list(folders).index(verb)]
    options = [f"--{name}={names[name]}" for name in taken] or ["--dataset=digits"]
    with another_process(CLAIM, folders[verb], f"{verb} of another") as first:
        assert main([verb, "--study", str(TINY), *options]) == 2
    assert f"{verb} of another (PID {first.pid}" in capsys.readouterr().err
    assert list(project.rglob("*.json")) == []
