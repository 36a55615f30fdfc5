"""Processes that run in a project folder, and which of them a signal is sent to."""

from __future__ import annotations

import os
import random
import signal
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
VERBS = (
    "data", "encoder", "pretrain", "probe", "attack", "sanity", "table", "figure", "curves",
    "examples", "report", "frame", "metrics", "audit", "verify",
)  # fmt: skip


@dataclass(frozen=True)
class Process:
    """A process of a project.

    Attributes:
        words: its command line.
    """

    pid: int
    parent: int
    session: int
    words: tuple[str, ...]

    @property
    def verb(self) -> str:
        """Return the verb of robustviews that it runs; empty if it runs none."""
        for program, verb in zip(self.words[:4], self.words[1:5], strict=False):
            if Path(program).name == "robustviews":
                return verb
        return ""


def running(folder: Path) -> list[Process]:
    """Return the processes whose working folder is a project's."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if (path / "cwd").readlink() == folder:
                stat = (path / "stat").read_text(encoding="utf-8").rpartition(")")[2].split()
                words = tuple((path / "cmdline").read_text(encoding="utf-8").split("\0"))
                if stat[0] != "Z":
                    found.append(Process(int(path.name), int(stat[1]), int(stat[3]), words))
    return found


def wait_for_none(folder: Path, patience: float) -> None:
    """Wait until nothing runs in a project: a job may outlive its workflow."""
    deadline = time.monotonic() + patience
    while running(folder):
        if time.monotonic() > deadline:
            raise TimeoutError(f"still running: {running(folder)}")
        time.sleep(0.05)


def stage(processes: list[Process]) -> str:
    """Return what a workflow does: a verb of its jobs, else that none runs."""
    verbs = {process.verb for process in processes}
    return next((verb for verb in VERBS if verb in verbs), "between jobs")


SERVER = "the server of jobs"
KINDS = ("a session", "all processes", "the command", "a job", SERVER)


def chosen(
    kind: str, processes: list[Process], started: int, chance: random.Random
) -> list[Process]:
    """Return the processes that get a signal.

    Args:
        kind: one of KINDS: a session is what gets Ctrl-C in a terminal, all processes what a batch
            system ends. A job is its program, or the fork of the server that does its work.
        processes: of the project.
        started: process ID of a command.
        chance: chooses a job.
    """
    servers = {process.pid for process in processes if process.verb == "serve"}
    if kind == "a session":
        return [process for process in processes if process.session == started]
    if kind == "the command":
        return [process for process in processes if process.pid == started]
    if kind == "a job":
        jobs = [one for one in processes if one.parent in servers or one.verb in VERBS]
        return chance.sample(jobs, min(len(jobs), 1))
    if kind == SERVER:
        return [one for one in processes if one.pid in servers and one.parent not in servers]
    return processes


def send(number: signal.Signals, processes: list[Process]) -> int:
    """Send a signal; return how many processes got it."""
    count = 0
    for process in processes:
        with suppress(ProcessLookupError):
            os.kill(process.pid, number)
            count += 1
    return count
