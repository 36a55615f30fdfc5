"""A server that runs the jobs of one Snakemake as forks of a process with torch imported.

Most jobs of a small study take less time than `import torch`. The server imports it once and forks
for each job. The program `robustviews` sends its arguments, environment and streams, forwards
signals, and returns the exit status. Where anything could make a difference, the program runs the
job itself: another environment, interpreter, container or cluster job, code edited since the
server started, a server with threads.

Linux only, and not for jobs on GPUs, which spend little of their time in imports.
"""

from __future__ import annotations

import atexit
import contextlib
import importlib
import json
import os
import secrets
import selectors
import signal
import socket
import struct
import subprocess
import sys
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple, NoReturn

VARIABLE = "ROBUSTVIEWS_SERVER"

# What the jobs of a verb import.
_COMPUTING = ("torch", "pyautoattack", "robustviews.cli.stages", "robustviews.api")
_DRAWING = ("matplotlib.pyplot", "robustviews.cli.report")
_IMPORTS = {
    **dict.fromkeys(("pretrain", "probe", "attack", "sanity"), _COMPUTING),
    **dict.fromkeys(("figure", "curves", "report"), _DRAWING),
    "examples": (*_COMPUTING, *_DRAWING),
}
# Variables that differ between jobs, of Snakemake, of the shell and of the workflow.
_OF_JOBS = {"PATH", "PWD", "OLDPWD", "SHLVL", "_", "TMPDIR", "TMP", "TEMP", "TEMPDIR"}
_OF_JOBS |= {"ROBUSTVIEWS_STUDY", "ROBUSTVIEWS_DEVICE"}
_FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_REFUSED = 0  # in place of a process
_NUMBER = struct.Struct("!i")

Run = Callable[[list[str]], int]
Prepare = Callable[[str], object]


def is_possible() -> bool:
    """Return whether this system lets a server wait for processes."""
    try:
        os.close(os.pidfd_open(os.getpid()))
    except (AttributeError, OSError):  # another system, or a container that forbids it
        return False
    return True


def import_for(verb: str) -> None:
    """Import what the jobs of a verb import."""
    for module in ("robustviews.cli", *_IMPORTS.get(verb, ())):
        importlib.import_module(module)


def start(threads: int) -> None:
    """Start a server that ends with this process; name it in the environment of the jobs.

    Args:
        threads: of each job; Snakemake tells numerical libraries to use as many.
    """
    if not is_possible():
        return
    os.environ[VARIABLE] = f"robustviews-{secrets.token_hex(16)}"
    names = [f"{name}_NUM_THREADS" for name in ("OMP", "GOTO", "OPENBLAS", "MKL", "NUMEXPR")]
    limits = dict.fromkeys((*names, "VECLIB_MAXIMUM_THREADS"), str(threads))
    server = subprocess.Popen(
        [sys.executable, "-P", "-m", "robustviews", "serve"],  # -P: modules of packages alone
        stdin=subprocess.PIPE,  # closed when this process ends, however it ends
        start_new_session=True,  # Ctrl-C reaches jobs through their programs
        env={**os.environ, **limits},
    )
    assert server.stdin is not None
    atexit.register(server.stdin.close)


def ask(arguments: list[str]) -> int | None:
    """Let the server run a verb, with the streams and signals of this process.

    Returns:
        Exit status; None if this process must run the verb itself.
    """
    environment = dict(os.environ)
    ignored = [int(one) for one in _FORWARDED if signal.getsignal(one) is signal.SIG_IGN]
    request = _Request(arguments, str(Path.cwd()), environment, _place(), ignored)
    with socket.socket(socket.AF_UNIX) as server, os.fdopen(os.memfd_create(""), "w+b") as file:
        file.write(json.dumps(request).encode())
        file.flush()
        try:
            server.connect(f"\0{environment[VARIABLE]}")
            socket.send_fds(server, [b"."], [0, 1, 2, file.fileno()])
            process = _receive(server)
        except OSError:
            return None  # no server, or not any more
        except KeyboardInterrupt:  # before the server has answered
            return _end_by(signal.SIGINT)
        if process == _REFUSED:
            return None
        for number in {*_FORWARDED}.difference(ignored):
            signal.signal(number, lambda sent, _: _signal(process, sent))
        try:
            status = _receive(server)
        except OSError:  # no job outlives its program
            _signal(process, signal.SIGKILL)
            sys.stderr.write("the server of jobs has ended; type: snakemake\n")
            return 1
    return _end_by(-status) if status < 0 else status


def serve(run: Run, prepare: Prepare) -> int:
    """Run jobs until the process that started the server ends.

    Args:
        run: runs a verb with its arguments, and returns the exit status.
        prepare: does before a fork what all jobs of a study file would do, such as parsing code.
    """
    for number in _FORWARDED:
        signal.signal(number, signal.SIG_IGN)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"\0{os.environ[VARIABLE]}")
        listener.listen()
        _Server(listener, run, prepare).serve()
    return 0


class _Request(NamedTuple):
    """A verb to run, and where its program runs."""

    arguments: list[str]
    folder: str
    environment: dict[str, str]
    place: list[str]
    ignored: list[int]  # signals, as after `nohup`


class _Job(NamedTuple):
    """A job that runs: its process, a descriptor of the process, the program that waits for it."""

    process: int
    descriptor: int
    client: socket.socket


class _Server:
    """Waits for programs, for the ends of jobs, and for its own end."""

    def __init__(self, listener: socket.socket, run: Run, prepare: Prepare) -> None:
        self._listener, self._run, self._prepare = listener, run, prepare
        self._code, self._place, self._environment = _code(), _place(), _decisive(os.environ)
        self._jobs: list[_Job] = []
        self._events = selectors.DefaultSelector()
        self._events.register(0, selectors.EVENT_READ, self._stop)
        self._events.register(listener, selectors.EVENT_READ, self._accept)

    def serve(self) -> None:
        """Handle events until the server is stopped and the last job has ended."""
        while self._events.get_map():
            for key, _ in self._events.select():
                if key.fd in self._events.get_map():  # not removed by an event before
                    key.data()

    def _stop(self) -> None:
        self._events.unregister(0)
        self._events.unregister(self._listener)

    def _accept(self) -> None:
        client, _ = self._listener.accept()
        streams: list[int] = []
        try:
            client.settimeout(10)
            _, streams, _, _ = socket.recv_fds(client, 1, 4)
            with os.fdopen(streams.pop(), "rb") as file:
                file.seek(0)
                request = _Request(*json.load(file))
            if self._can_run(request, client):
                self._start(request, client, streams)
                return
            client.sendall(_NUMBER.pack(_REFUSED))
        except (OSError, ValueError, TypeError, IndexError):  # no valid request, or no program
            pass
        finally:
            for stream in streams:
                os.close(stream)
        client.close()

    def _can_run(self, request: _Request, client: socket.socket) -> bool:
        """Return whether a fork of this process runs a job as a process of its own would."""
        credentials = client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        if (
            struct.unpack("3i", credentials)[1] != os.getuid()
            or request.place != self._place
            or _decisive(request.environment) != self._environment
            or _code() != self._code
        ):
            return False
        with contextlib.suppress(Exception):  # the job itself reports it
            import_for(request.arguments[0])
            self._prepare(request.environment.get("ROBUSTVIEWS_STUDY", ""))
        return len(list(Path("/proc/self/task").iterdir())) == 1

    def _start(self, request: _Request, client: socket.socket, streams: list[int]) -> None:
        process = os.fork()
        if not process:
            self._events.close()
            for other in (self._listener, client, *(job.client for job in self._jobs)):
                other.close()
            _become(request, streams, self._run)
        job = _Job(process, os.pidfd_open(process), client)
        self._jobs.append(job)
        self._events.register(job.descriptor, selectors.EVENT_READ, lambda: self._end(job))
        self._events.register(client, selectors.EVENT_READ, lambda: self._kill(job))
        with contextlib.suppress(OSError):  # the program has ended, and so does the job
            client.sendall(_NUMBER.pack(process))

    def _kill(self, job: _Job) -> None:
        """End the job of a program that has ended."""
        self._events.unregister(job.client)
        _signal(job.process, signal.SIGKILL)

    def _end(self, job: _Job) -> None:
        """Return the exit status of a job."""
        status = os.waitstatus_to_exitcode(os.waitpid(job.process, 0)[1])
        self._jobs.remove(job)
        self._events.unregister(job.descriptor)
        os.close(job.descriptor)
        if job.client in self._events.get_map():
            self._events.unregister(job.client)
        with contextlib.suppress(OSError):
            job.client.sendall(_NUMBER.pack(status))
        job.client.close()


def _become(request: _Request, streams: list[int], run: Run) -> NoReturn:
    """Run a verb in this fork, with streams and environment of the program, and end."""
    status: object = 1
    try:
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
            os.close(stream)
        for number in {*_FORWARDED}.difference(request.ignored):
            ends = signal.SIG_DFL if number != signal.SIGINT else signal.default_int_handler
            signal.signal(number, ends)
        os.environ.clear()
        os.environ.update(request.environment)
        os.chdir(request.folder)
        sys.argv[1:] = request.arguments
        status = run(request.arguments)
    except SystemExit as end:
        status = end.code or 0
        if not isinstance(status, int):
            sys.stderr.write(f"{status}\n")
    except KeyboardInterrupt:
        _end_by(signal.SIGINT)
    except BaseException:  # as the interpreter would
        traceback.print_exc()
    finally:
        with contextlib.suppress(Exception):
            atexit._run_exitfuncs()
        for output in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError):
                output.flush()
        os._exit(status if isinstance(status, int) else 1)


def _end_by(number: int) -> int:
    """End this process by a signal, as a job has ended, without a traceback."""
    with contextlib.suppress(OSError):  # SIGKILL has no other handler
        signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
    return 128 + number


def _signal(process: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(process, number)


def _receive(server: socket.socket) -> int:
    content = server.recv(_NUMBER.size, socket.MSG_WAITALL)
    if len(content) < _NUMBER.size:
        raise ConnectionResetError("the server ended")
    number: int = _NUMBER.unpack(content)[0]
    return number


def _place() -> list[str]:
    """Return the interpreter, the namespaces and the control group of this process."""
    namespaces = [Path("/proc/self/ns", name).readlink() for name in ("mnt", "pid", "user")]
    return [
        sys.executable,
        *map(str, namespaces),
        Path("/proc/self/cgroup").read_text(encoding="utf-8"),
    ]


def _decisive(environment: Mapping[str, str]) -> dict[str, str]:
    return {name: environment[name] for name in environment if name not in _OF_JOBS}


def _code() -> list[tuple[str, int, int]]:
    """Return name, time and size of each file of the package and of each folder of packages."""
    files = Path(__file__).parents[1].rglob("*.*")
    paths = [path for path in files if path.suffix != ".pyc"]
    stats = [(str(path), path.stat()) for path in (*paths, *map(Path, sys.path)) if path.exists()]
    return sorted((name, stat.st_mtime_ns, stat.st_size) for name, stat in stats)
