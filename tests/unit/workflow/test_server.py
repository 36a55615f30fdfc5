"""The server of jobs: a job behaves as a process of its own, or the program runs it itself."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import robustviews
from robustviews.workflow import server

pytestmark = pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="Linux only")

PACKAGE = Path(robustviews.__file__).parent
# The verb of this server is a Python expression.
SERVE = """
import os, sys, threading, time
from robustviews.workflow import server

def run(arguments):
    return eval(arguments[0])

sys.exit(server.serve(run, len))
"""
ASK = """
import sys
from robustviews.workflow import server

status = server.ask(sys.argv[1:])
print("itself") if status is None else None
sys.exit(status)
"""
# Says when it waits for the server's answer.
WAITS = """
from robustviews.workflow import server
receive = server._receive
server._receive = lambda one: print("up", flush=True) or receive(one)
"""


class Served:
    """A server whose jobs are Python expressions, and programs that ask it."""

    def __init__(self, code=SERVE, package=PACKAGE) -> None:
        name = f"robustviews-{secrets.token_hex(8)}"
        self.environment = {**os.environ, "PYTHONPATH": f"{package.parent}", server.VARIABLE: name}
        self.process = self._python(code, stdin=subprocess.PIPE)
        while f"@{name}" not in Path("/proc/net/unix").read_text(encoding="utf-8"):
            assert self.process.poll() is None
            time.sleep(0.01)

    def _python(self, code, *arguments, **options):
        options = {"env": self.environment, "text": True, **options}
        return subprocess.Popen([sys.executable, "-P", "-c", code, *arguments], **options)

    def begin(self, code, before="", **variables):
        """Start a program that asks for a job."""
        return self._python(
            before + ASK,
            code,
            env={**self.environment, **variables},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            # Tests that run in the background of a shell ignore it, and so would the program.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )

    def run(self, code, input=None, **variables):  # noqa: A002  # as of subprocess.run
        """Return exit status, standard output and standard error of a job."""
        program = self.begin(code, **variables)
        output, error = program.communicate(input, timeout=60)
        return program.returncode, output, error

    def __enter__(self):
        return self

    def __exit__(self, *_):
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        assert self.process.wait(timeout=60) == 0


@pytest.fixture
def served():
    with Served() as server:
        yield server


def test_a_job_has_streams_folder_environment_and_arguments_of_its_program(served, monkeypatch):
    monkeypatch.chdir("/")
    code = "print(input(), os.getcwd(), os.environ['TMPDIR'], len(sys.argv)) or 3"
    assert served.run(code, "typed", TMPDIR="/nowhere") == (3, "typed / /nowhere 2\n", "")


def test_jobs_are_forks_of_the_server(served):
    first, second = (served.run("print(os.getpid(), os.getppid())")[1].split() for _ in range(2))
    assert first[1] == second[1] == str(served.process.pid)
    assert first[0] != second[0]


@pytest.mark.parametrize(
    ("code", "status", "error"),
    [
        ("sys.exit('wrong')", 1, "wrong"),
        ("sys.exit()", 0, ""),
        ("1 / 0", 1, "ZeroDivisionError"),
        ("os.kill(os.getpid(), 9)", -9, ""),
        ("os._exit(5)", 5, ""),
    ],
)
def test_a_job_that_fails_ends_as_without_a_server(served, code, status, error):
    actual, _, text = served.run(code)
    assert actual == status
    assert error in text


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_signals_reach_the_job(served, number):
    program = served.begin("print('up', flush=True) or time.sleep(60)")
    assert program.stdout.readline() == "up\n"
    program.send_signal(number)
    program.communicate(timeout=30)
    assert program.returncode == -number


def test_ctrl_c_ends_a_program_whose_server_has_not_answered_yet(served):
    os.kill(served.process.pid, signal.SIGSTOP)
    try:
        program = served.begin("1", before=WAITS)
        assert program.stdout.readline() == "up\n"
        program.send_signal(signal.SIGINT)
        assert program.wait(timeout=30) == -signal.SIGINT
    finally:
        os.kill(served.process.pid, signal.SIGCONT)  # it holds the streams
    assert program.communicate(timeout=30)[1] == ""


def test_a_signal_that_the_program_ignores_does_not_reach_the_job(served):
    ignoring = "import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN)\n"
    program = served.begin("print('up', flush=True) or time.sleep(1) or 6", before=ignoring)
    assert program.stdout.readline() == "up\n"
    program.send_signal(signal.SIGHUP)
    program.communicate(timeout=30)
    assert program.returncode == 6


def ends(process):
    """Wait until a process is gone."""
    deadline = time.monotonic() + 30
    while Path(f"/proc/{process}/exe").exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return True


def test_a_job_ends_with_its_program(served):
    program = served.begin("print(os.getpid(), flush=True) or time.sleep(60)")
    job = int(program.stdout.readline())
    program.kill()
    program.communicate()
    assert ends(job)


def test_a_job_ends_with_the_server_and_its_program_reports_it():
    with contextlib.suppress(AssertionError), Served() as served:  # a status of -9
        program = served.begin("print(os.getpid(), flush=True) or time.sleep(60)")
        job = int(program.stdout.readline())
        served.process.kill()
        _, error = program.communicate(timeout=30)
    assert (program.returncode, error) == (1, "the server of jobs has ended; type: snakemake\n")
    assert ends(job)


def test_a_stopped_server_finishes_its_jobs_and_takes_no_others(served):
    program = served.begin("print('up', flush=True) or time.sleep(1) or 4")
    assert program.stdout.readline() == "up\n"
    served.process.stdin.close()
    time.sleep(0.3)
    assert served.run("print('served')")[1] == "itself\n"
    program.communicate(timeout=30)
    assert program.returncode == 4


@pytest.mark.parametrize("variable", ["OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES", "SLURM_JOB_ID"])
def test_a_program_with_another_environment_runs_the_job_itself(served, variable):
    assert served.run("print('served')")[1] == "served\n"
    assert served.run("print('served')", **{variable: "7"})[1] == "itself\n"


def test_code_that_was_edited_since_is_not_run_by_the_server(tmp_path):
    package = tmp_path / "robustviews"
    shutil.copytree(PACKAGE, package)
    with Served(package=package) as served:
        assert served.run("print('served')")[1] == "served\n"
        os.utime(package / "finite.py")
        assert served.run("print('served')")[1] == "itself\n"


def test_a_server_with_threads_forks_no_job():
    thread = "threading.Thread(target=sys.stdin.read, daemon=True).start()\nsys.exit("
    with Served(SERVE.replace("sys.exit(", thread)) as served:
        assert served.run("print('served')")[1] == "itself\n"
