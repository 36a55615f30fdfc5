"""Locks of jobs and of Snakemake: who holds them, and what they say to those who come later."""

from __future__ import annotations

import errno
import json
import os
import socket
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest

import robustviews
from robustviews.cli import main
from robustviews.study import folders, load_study
from robustviews.workflow import locks
from tests.unit.results_tree import small_study
from tests.workflow.project import TINY

FOLDER = Path("results/tiny/pretrain/simclr-pgd5-digits-s0")
PATIENCE = 60  # seconds that another process may take to start

CLAIM = """\
import sys
from pathlib import Path
from robustviews.workflow import locks
with locks.claim(Path(sys.argv[1]), sys.argv[2]):
    print("held", flush=True)
    sys.stdin.read()
"""
ANNOUNCE = """\
import sys
from robustviews.workflow import locks
locks.announce(sys.argv[1], looks="looks" in sys.argv)
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
        pytest.raises(locks.BusyError) as refused,
        locks.claim(FOLDER, "pretrain x"),
    ):
        pass
    assert str(refused.value).startswith(f"pretrain x (PID {first.pid}, since 20")
    assert f"kill {first.pid}" in str(refused.value)


def test_a_lock_is_gone_when_its_job_ends_and_free_when_its_process_is_killed():
    with locks.claim(FOLDER, "pretrain x"):
        assert locks.lock_of(FOLDER).is_file()
    assert not locks.lock_of(FOLDER).exists()
    with another_process(CLAIM, FOLDER, "pretrain x"):
        pass
    assert locks.lock_of(FOLDER).is_file()  # nobody was left to remove it
    assert locks.holder(locks.lock_of(FOLDER)) is None
    with locks.claim(FOLDER, "pretrain x"):
        pass


def test_jobs_of_other_folders_do_not_wait_for_each_other():
    with another_process(CLAIM, FOLDER, "x"), locks.claim(FOLDER.with_name("other"), "y"):
        pass


def test_of_the_ranks_of_one_training_only_the_first_claims(monkeypatch):
    with another_process(CLAIM, FOLDER, "pretrain x"):
        monkeypatch.setenv("RANK", "1")  # as a launcher may set it that starts trainings alone
        with pytest.raises(locks.BusyError), locks.claim(FOLDER, "pretrain x"):
            pass
        monkeypatch.setenv("TORCHELASTIC_RUN_ID", "x")
        with locks.claim(FOLDER, "pretrain x"):
            pass
        monkeypatch.setenv("RANK", "0")
        with pytest.raises(locks.BusyError), locks.claim(FOLDER, "pretrain x"):
            pass


def test_who_only_looks_at_a_lock_does_not_make_a_job_fail():
    lock = locks.lock_of(FOLDER)
    lock.parent.mkdir(parents=True)
    for _ in range(50):
        with locks.claim(FOLDER, "pretrain x"):
            assert locks.holder(lock).pid == os.getpid()
        assert locks.holder(lock) is None


def test_nothing_is_said_where_nothing_is_locked_or_files_of_another_study_are():
    assert locks.notice(small_study()) == ""
    leave_snakemake_lock("results/other/report.html", "data/other-12345678/record.json")
    assert locks.notice(small_study()) == ""


def test_a_lock_says_which_snakemake_runs_and_with_which_jobs():
    leave_snakemake_lock("results/tiny/report.html")
    with (
        another_process(ANNOUNCE, "tiny") as snakemake,
        another_process(CLAIM, FOLDER, "pretrain x") as job,
    ):
        said = locks.notice(small_study())
    assert f"Snakemake (PID {snakemake.pid}, since 20" in said
    assert f"pretrain x (PID {job.pid}, since 20" in said
    assert f"kill {snakemake.pid} " in said
    assert "--unlock" not in said


def test_a_lock_that_a_killed_snakemake_left_can_be_removed():
    leave_snakemake_lock(f"{folders.data_folder(small_study(), 'digits')}/record.json")
    with another_process(ANNOUNCE, "tiny"):
        pass
    said = locks.notice(small_study())
    assert "was killed" in said
    assert "snakemake --unlock" in said
    assert "kill " not in said


def test_a_training_that_outlived_its_snakemake_is_to_be_ended_first():
    leave_snakemake_lock("results/tiny/report.html")
    with another_process(CLAIM, FOLDER, "pretrain x") as orphan:
        said = locks.notice(small_study())
    kill, unlock = said.index(f"kill {orphan.pid} "), said.index("snakemake --unlock")
    assert kill < unlock
    assert f"still runs: pretrain x (PID {orphan.pid}, since 20" in said


def test_what_a_killed_snakemake_announced_is_cleared_by_the_next():
    with another_process(ANNOUNCE, "tiny") as killed:
        pass
    (left,) = Path(".snakemake").glob(f"running-*-{killed.pid}.lock")
    assert left.is_file()
    with another_process(ANNOUNCE, "tiny"):
        assert not left.exists()


@pytest.mark.parametrize("verb", ["data", "pretrain", "probe", "attack"])
def test_every_job_refuses_to_run_twice_at_once(verb, project, capsys):
    study, run = load_study(TINY), "simclr-std-digits-s0"
    names = {"run": run, "probe": "crops2", "attack": "pgd2"}
    made = {
        "data": folders.data_folder(study, "digits"),
        "pretrain": folders.pretrain_folder(study, run),
        "probe": folders.probe_folder(study, run, "crops2"),
        "attack": folders.attack_folder(study, run, "crops2", "pgd2"),
    }
    taken = list(names)[: list(made).index(verb)]
    options = [f"--{name}={names[name]}" for name in taken] or ["--dataset=digits"]
    with another_process(CLAIM, made[verb], f"{verb} of another") as first:
        assert main([verb, "--study", str(TINY), *options]) == 2
    assert f"{verb} of another (PID {first.pid}" in capsys.readouterr().err
    assert list(project.rglob("*.json")) == []


@pytest.fixture
def without_locks(monkeypatch):
    """A file system on which nothing can be locked."""

    def refuse(*_):
        raise OSError(errno.ENOLCK, "no locks available")

    monkeypatch.setattr("fcntl.flock", refuse)


def write_lock(lock, **changes):
    said = {"name": "pretrain x", "pid": os.getpid(), "since": "2026-01-01T00:00:00Z"}
    lock.parent.mkdir(parents=True, exist_ok=True)
    lock.write_text(json.dumps(said | {"machine": locks._machine()} | changes))
    return lock


def test_a_lock_of_another_machine_is_told_without_a_kill_that_would_end_something_here():
    with another_process(CLAIM, FOLDER, "pretrain x") as job:
        lock = locks.lock_of(FOLDER)
        lock.write_text(json.dumps(json.loads(lock.read_text()) | {"machine": "another"}))
        with pytest.raises(locks.BusyError) as refused, locks.claim(FOLDER, "pretrain x"):
            pass
    assert f"pretrain x (on another machine: PID {job.pid}, since 20" in str(refused.value)
    assert "kill" not in str(refused.value)


def test_a_lock_holds_no_name_of_its_machine():
    with locks.claim(FOLDER, "pretrain x"):
        assert socket.gethostname() not in locks.lock_of(FOLDER).read_text()


@pytest.mark.usefixtures("without_locks")
def test_where_nothing_can_be_locked_it_is_unknown_whether_somebody_runs():
    lock = write_lock(locks.lock_of(FOLDER))
    assert f"unknown; if not, type: rm {lock}" in str(locks.holder(lock))
    assert "on another machine" in str(locks.holder(write_lock(lock, machine="another")))
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        pass
    assert locks.holder(write_lock(lock, pid=ended.pid)) is None
    leave_snakemake_lock("results/tiny/report.html")
    write_lock(lock)
    assert "Nothing runs" not in locks.notice(small_study())


def test_what_another_machine_announced_is_left_alone():
    theirs = write_lock(Path(".snakemake/running-another-1.lock"), machine="another")
    ours = write_lock(Path(".snakemake/running-this-1.lock"))
    with another_process(ANNOUNCE, "tiny"):
        assert theirs.exists()
        assert not ours.exists()


@pytest.mark.parametrize("arguments", [["other"], ["tiny", "looks"]])
def test_no_kill_is_given_for_a_snakemake_that_does_not_hold_the_lock(arguments):
    leave_snakemake_lock("results/tiny/report.html")
    with another_process(ANNOUNCE, *arguments) as bystander:
        said = locks.notice(small_study())
    assert "was killed" in said
    assert "kill " not in said
    assert (f"Wait until Snakemake (PID {bystander.pid}, " in said) == (arguments == ["other"])


def test_data_may_be_locked_by_a_snakemake_of_another_study():
    leave_snakemake_lock(f"{folders.data_folder(small_study(), 'digits')}/record.json")
    with another_process(ANNOUNCE, "other") as snakemake:
        said = locks.notice(small_study())
    assert "study other)" in said
    assert f"kill {snakemake.pid} " in said
