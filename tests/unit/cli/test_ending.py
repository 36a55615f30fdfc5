"""How a command ends: one line and the right status after a full disk, a closed pipe, a signal."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest

import robustviews
from robustviews.cli import ending
from tests.unit.study.mistakes import BASE

PATIENCE = 60  # seconds that another process may take
# A command that is writing when a signal comes.
WRITES = """\
import signal, sys, time
from pathlib import Path
from robustviews import artifacts
from robustviews.cli import ending
from robustviews.workflow import locks
job = Path("results/job")
signal.signal(signal.SIGINT, signal.default_int_handler)  # tests in the background ignore it
def command():
    with locks.acquire(job, "job"), artifacts.atomic_folder(job) as into:
        artifacts.write_text(into / "half", "half of it")
        print("writing", flush=True)
        time.sleep(60)
sys.exit(ending.ended(command, "pretrain"))
"""


@contextmanager
def another_process(*arguments, **streams):
    env = os.environ | {"PYTHONPATH": str(Path(robustviews.__file__).parents[1])}
    env.pop("PYTHONUNBUFFERED", None)  # output fails at the end, not at once
    process = subprocess.Popen(
        [sys.executable, *arguments], env=env, stderr=subprocess.PIPE, **streams
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate(timeout=PATIENCE)


@pytest.fixture(autouse=True)
def project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_text(BASE, encoding="utf-8")
    return tmp_path


@pytest.mark.parametrize("name", ["ENOSPC", "EDQUOT", "EACCES", "EROFS", "EIO"])
@pytest.mark.parametrize("file", [None, "results/x"])
def test_an_error_of_the_machine_is_one_line_with_what_to_do(name, file, capsys):
    number = getattr(errno, name)

    def command():
        raise OSError(number, os.strerror(number), file)

    assert ending.ended(command, "audit") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"{file or 'robustviews audit'}: {os.strerror(number)}; ")


def test_an_error_that_is_not_the_machines_keeps_its_traceback():
    def command():
        raise FileNotFoundError(errno.ENOENT, "", "x")

    with pytest.raises(FileNotFoundError):
        ending.ended(command, "audit")


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_a_signal_leaves_one_line_and_nothing_half_written(name, project):
    number = getattr(signal, name)
    with another_process("-c", WRITES, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"writing\n"
        process.send_signal(number)
        _, said = process.communicate(timeout=PATIENCE)
    assert process.returncode == 128 + number
    (line,) = said.decode().splitlines()
    assert line.startswith(f"robustviews pretrain: ended by {name}; the same command resumes")
    assert list((project / "results").iterdir()) == []


def test_a_job_that_ignores_hangups_goes_on_after_one():
    ignoring = f"import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN)\n{WRITES}"
    with another_process("-c", ignoring, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"writing\n"
        process.send_signal(signal.SIGHUP)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.3)


@pytest.mark.parametrize("words", [["switches"], ["check", "params.yaml"], ["audit"], ["--help"]])
def test_output_that_nobody_reads_ends_a_verb_quietly(words):
    reader, writer = os.pipe()
    os.close(reader)
    with another_process("-m", "robustviews", *words, stdout=writer) as process:
        os.close(writer)
        _, said = process.communicate(timeout=PATIENCE)
    assert (process.returncode, said) == (128 + signal.SIGPIPE, b"")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has /dev/full")
@pytest.mark.parametrize("words", [["switches"], ["check", "params.yaml"]])
def test_output_that_finds_no_space_is_one_line(words):
    with (
        Path("/dev/full").open("wb") as full,
        another_process("-m", "robustviews", *words, stdout=full) as process,
    ):
        _, said = process.communicate(timeout=PATIENCE)
    assert process.returncode == 2
    (line,) = said.decode().splitlines()
    assert line.startswith(f"robustviews {words[0]}: No space left on device")


def test_closed_streams_are_no_error():
    command = f'"{sys.executable}" -m robustviews switches <&- >&- 2>&-'
    env = os.environ | {"PYTHONPATH": str(Path(robustviews.__file__).parents[1])}
    assert subprocess.run(["sh", "-c", command], env=env, check=False).returncode == 0
