"""Locks of jobs and of Snakemake: their owners, and the message that a second process gets."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import subprocess
import sys
import threading
from contextlib import contextmanager
from pathlib import Path

import pytest
from filelock import FileLock

import robustviews
from robustviews.cli import main
from robustviews.study import folders, load_study
from robustviews.workflow import locks
from tests.unit.results_tree import small_study
from tests.workflow.project import TINY

FOLDER = Path("results/tiny/pretrain/simclr-pgd5-digits-s0")
PATIENCE = 60  # seconds that another process may take to start

ACQUIRE = """\
import sys
from pathlib import Path
from robustviews.workflow import locks
with locks.acquire(Path(sys.argv[1]), sys.argv[2]):
    print("locked", flush=True)
    sys.stdin.read()
"""
BEGIN = """\
import sys
from robustviews.workflow import locks
from tests.unit.results_tree import small_study
locks.begin(small_study())
if sys.argv[1] == "on a cluster":
    locks.runs_elsewhere()
print("locked", flush=True)
sys.stdin.read()
"""


@contextmanager
def another_process(code, *arguments):
    """Run code in a process of its own, as soon as it owns its lock."""
    paths = Path(robustviews.__file__).parents[1], Path(__file__).parents[3]
    env = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, paths))}
    command = [sys.executable, "-c", code, *map(str, arguments)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    process = subprocess.Popen(command, env=env, **pipes)
    try:
        assert process.stdout.readline() == b"locked\n"
        yield process
    finally:
        process.kill()
        process.communicate(timeout=PATIENCE)


@pytest.fixture(autouse=True)
def project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def leave_snakemake_lock(*files):
    """Write the lock that Snakemake has on files while it runs and after it was killed."""
    lock = Path(".snakemake/locks/0.output.lock")
    lock.parent.mkdir(parents=True)
    lock.write_text("".join(f"{file}\n" for file in files), encoding="utf-8")
    return lock


def test_a_second_process_learns_which_one_does_the_job_and_how_to_end_it():
    with (
        another_process(ACQUIRE, FOLDER, "pretrain x") as first,
        pytest.raises(locks.BusyError) as refused,
        locks.acquire(FOLDER, "pretrain x"),
    ):
        pass
    assert str(refused.value).startswith(f"pretrain x (PID {first.pid} on ")
    assert f"kill {first.pid} " in str(refused.value)


def test_a_lock_is_gone_when_its_job_ends_and_free_when_its_process_is_killed():
    with locks.acquire(FOLDER, "pretrain x"):
        assert locks.lock_of(FOLDER).is_file()
    assert not locks.lock_of(FOLDER).exists()
    with another_process(ACQUIRE, FOLDER, "pretrain x"):
        pass
    assert locks.lock_of(FOLDER).is_file()  # a killed process cannot remove it
    with locks.acquire(FOLDER, "pretrain x"):
        pass
    assert not locks.lock_of(FOLDER).exists()


def test_another_user_who_may_not_open_a_lock_learns_who_owns_it(monkeypatch):
    def refuse(_):
        raise PermissionError(13, "Permission denied")

    with another_process(ACQUIRE, FOLDER, "pretrain x") as first:
        monkeypatch.setattr(locks.FileLock, "acquire", refuse)
        monkeypatch.setattr(locks.FileLock, "__enter__", refuse)
        assert locks.owner(locks.lock_of(FOLDER)).pid == first.pid
        with (
            pytest.raises(locks.BusyError, match=f"kill {first.pid} "),
            locks.acquire(FOLDER, "pretrain x"),
        ):
            pass
    assert locks.owner(locks.lock_of(FOLDER)) is None  # dead
    with pytest.raises(PermissionError), locks.acquire(FOLDER, "pretrain x"):
        pass


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_job_runs_and_says_so_where_the_file_system_has_no_locks(number, monkeypatch, caplog):
    def refuse(*_):
        raise OSError(number, os.strerror(number))

    with another_process(ACQUIRE, FOLDER, "pretrain x"):
        pass  # killed: its file must not pass for a lock
    monkeypatch.setattr(fcntl, "flock", refuse)
    with locks.acquire(FOLDER, "pretrain x"):
        assert locks.owner(locks.lock_of(FOLDER)) is None
    assert not locks.lock_of(FOLDER).exists()
    assert "no locks" in caplog.text
    Path(".snakemake").mkdir()
    Path(".snakemake/begin.lock").touch()  # of a Snakemake that was killed
    assert locks.begin(small_study()) == ""


def test_jobs_of_other_folders_do_not_wait_for_each_other():
    with another_process(ACQUIRE, FOLDER, "x"), locks.acquire(FOLDER.with_name("other"), "y"):
        pass


def test_of_the_ranks_of_one_training_only_the_first_locks(monkeypatch):
    with another_process(ACQUIRE, FOLDER, "pretrain x"):
        monkeypatch.setenv("RANK", "1")  # as a launcher of single-process trainings may set it
        with pytest.raises(locks.BusyError), locks.acquire(FOLDER, "pretrain x"):
            pass
        monkeypatch.setenv("TORCHELASTIC_RUN_ID", "x")
        with locks.acquire(FOLDER, "pretrain x"):
            pass
        monkeypatch.setenv("RANK", "0")
        with pytest.raises(locks.BusyError), locks.acquire(FOLDER, "pretrain x"):
            pass


def test_looking_at_a_lock_does_not_make_a_job_fail():
    FOLDER.parent.mkdir(parents=True)
    look = FileLock(locks.lock_of(FOLDER), thread_local=False)
    look.acquire()
    end = threading.Timer(0.1, look.release)
    end.start()
    with locks.acquire(FOLDER, "pretrain x"):
        pass
    end.join()


def test_there_is_no_notice_without_a_lock_on_files_of_the_study():
    assert locks.notice(small_study()) == ""
    leave_snakemake_lock("results/other/report.html", "data/other-12345678/record.json")
    assert locks.notice(small_study()) == ""


def test_the_notice_names_the_snakemake_that_runs_and_its_jobs():
    leave_snakemake_lock("results/tiny/report.html")
    with (
        another_process(BEGIN, "here") as snakemake,
        another_process(ACQUIRE, FOLDER, "pretrain x") as job,
    ):
        notice = locks.notice(small_study())
    assert f"Snakemake of tiny (PID {snakemake.pid} on " in notice
    assert f"pretrain x (PID {job.pid} on " in notice
    assert f"kill {snakemake.pid} " in notice
    assert "--unlock" not in notice


def test_the_lock_of_a_snakemake_that_is_proven_dead_is_removed_by_the_next_one():
    with another_process(BEGIN, "here") as snakemake:
        lock = leave_snakemake_lock("results/tiny/report.html")
    assert "The next run removes its lock" in locks.notice(small_study())  # of a dry run
    line = locks.begin(small_study())
    assert f"lock of Snakemake of tiny (PID {snakemake.pid} on " in line
    assert not lock.exists()
    assert locks.notice(small_study()) == ""
    (own,) = Path(".snakemake").glob("running-*")
    assert str(os.getpid()) in own.name


def _another_boot(stated):
    return stated | {"boot": "another"}


def _another_machine(stated):
    return stated | {"host": "another"}


def _living_process(stated):
    return stated | {"pid": os.getppid()}


def _unknown_boot(stated):
    del stated["boot"]  # as of an older version
    return stated


@pytest.mark.parametrize(
    "change", [_another_boot, _another_machine, _living_process, _unknown_boot, None]
)
def test_a_lock_whose_owner_may_be_alive_is_respected(change):
    with another_process(BEGIN, "here" if change else "on a cluster"):
        lock = leave_snakemake_lock("results/tiny/report.html")
    (announced,) = Path(".snakemake").glob("running-*")
    if change:
        stated = change(json.loads(announced.read_text(encoding="utf-8")))
        announced.write_text(json.dumps(stated), encoding="utf-8")
    assert locks.begin(small_study()) == ""
    assert lock.exists()
    assert "snakemake --unlock" in locks.notice(small_study())


@pytest.mark.parametrize("alive", [(BEGIN, "here"), (ACQUIRE, FOLDER, "pretrain x")])
def test_the_lock_of_a_dead_snakemake_stays_while_another_or_one_of_its_jobs_lives(alive):
    with another_process(BEGIN, "here"):
        pass
    (dead,) = Path(".snakemake").glob("running-*")
    stated = dead.read_text(encoding="utf-8")
    with another_process(*alive):
        dead.write_text(stated, encoding="utf-8")
        lock = leave_snakemake_lock("results/tiny/report.html")
        assert locks.begin(small_study()) == ""
        assert lock.exists()


def test_the_notice_says_to_end_a_training_that_outlived_its_snakemake_first():
    leave_snakemake_lock("results/tiny/report.html")
    with another_process(ACQUIRE, FOLDER, "pretrain x") as orphan:
        notice = locks.notice(small_study())
    kill, unlock = notice.index(f"kill {orphan.pid} "), notice.index("snakemake --unlock")
    assert kill < unlock
    assert f"still run: pretrain x (PID {orphan.pid} on " in notice


@pytest.mark.parametrize("verb", ["data", "pretrain", "probe", "attack"])
def test_every_job_refuses_to_run_twice_at_once(verb, project, capsys):
    study, run = load_study(TINY), "simclr-std-digits-s0"
    names = {"run": run, "probe": "crops2", "attack": "pgd2"}
    folder_of = {
        "data": folders.data_folder(study, "digits"),
        "pretrain": folders.job_folder(study, "pretrain", run),
        "probe": folders.job_folder(study, "probe", f"{run}/crops2"),
        "attack": folders.job_folder(study, "attack", f"{run}/crops2/pgd2"),
    }
    selected = list(names)[: list(folder_of).index(verb)]
    options = [f"--{name}={names[name]}" for name in selected] or ["--dataset=digits"]
    with another_process(ACQUIRE, folder_of[verb], f"{verb} of another") as first:
        assert main([verb, "--study", str(TINY), *options]) == 2
    assert f"{verb} of another (PID {first.pid} on " in capsys.readouterr().err
    assert list(project.rglob("*.json")) == []
