"""Locks: which process writes a folder and which Snakemake runs; a lock ends with its process.

A job locks the folder that it writes, so that a training that outlived its Snakemake process and a
second training of the same run never overwrite each other. Snakemake's own lock is a file that
remains when Snakemake is killed and does not name its owner; `notice` does.
"""

from __future__ import annotations

import atexit
import contextlib
import dataclasses
import json
import os
import socket
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

from robustviews.artifacts import ArtifactError
from robustviews.study import folders

if TYPE_CHECKING:
    from robustviews.study.schema import Study

_SNAKEMAKE = Path(".snakemake")
_PATIENCE = 0.5  # seconds: longer than `owner` holds a lock or an owner needs to write its name
_RESUMES = "a training resumes from its last saved state"


class BusyError(ArtifactError):
    """Another process runs the same job; the message names it and the command that ends it."""


@dataclasses.dataclass(frozen=True)
class Owner:
    """The process that owns a lock.

    Attributes:
        name: its job, such as `pretrain emp-free-digits-s0`.
        pid: process ID.
        host: machine on which it runs.
        since: when it acquired the lock, in ISO 8601, UTC.
    """

    name: str
    pid: int
    host: str
    since: str

    def __str__(self) -> str:
        """Return name, process ID, machine and time."""
        return f"{self.name} (PID {self.pid} on {self.host}, since {self.since})"


def lock_of(folder: Path) -> Path:
    """Return the lock of a folder that a job writes: a hidden file beside the folder."""
    return folder.with_name(f".{folder.name}.lock")


def acquire(folder: Path, name: str) -> contextlib.AbstractContextManager[None]:
    """Lock the folder that a job writes while a block runs.

    Args:
        folder: results of the job.
        name: of the job, reported to other processes that find the folder locked.

    Raises:
        BusyError: another process runs this job.
    """
    # torchrun's first rank locks for all ranks; other launchers start trainings of one rank each.
    if "TORCHELASTIC_RUN_ID" in os.environ and os.environ.get("RANK", "0") != "0":
        return contextlib.nullcontext()
    return _locked(lock_of(folder), name)


def owner(path: Path) -> Owner | None:
    """Return the owner of a lock; None if the lock is free, after removing its file."""
    lock = FileLock(path, timeout=_PATIENCE)
    try:
        if path.exists():
            with lock:
                path.unlink()
    except Timeout:
        with contextlib.suppress(OSError, ValueError, TypeError):  # released a moment ago
            return Owner(**json.loads(path.read_text(encoding="utf-8")))
    except OSError:  # such as a project that this user cannot write to
        pass
    return None


def owners(study: Study, root: Path = Path()) -> list[Owner]:
    """Return the owners of the locks on prepared data and on a study's results.

    Args:
        study: the study of the results; folders of its former jobs count too.
        root: project folder.
    """
    results = root / folders.results_folder(study)
    return _owners([*(root / "data").glob(".*.lock"), *results.rglob(".*.lock")])


def announce(study: str, root: Path = Path()) -> None:
    """Hold a lock until this process ends, so that others see that Snakemake runs here.

    A dry run, which computes nothing, does not call this.

    Args:
        study: name of the study that runs.
        root: project folder.
    """
    lock = root / _SNAKEMAKE / f"running-{os.getpid()}.lock"
    stack = contextlib.ExitStack()
    with contextlib.suppress(OSError):  # a read-only project can still be read
        stack.enter_context(_locked(lock, f"Snakemake of {study}"))
    atexit.register(stack.close)


def notice(study: Study, root: Path = Path()) -> str:
    """Return who owns Snakemake's lock on the files of a study, with suggested commands.

    Returns:
        Lines of text; empty if no file of the study is locked.
    """
    if not _is_locked(study, root):
        return ""
    snakemakes, jobs = _owners((root / _SNAKEMAKE).glob("running-*.lock")), owners(study, root)
    if snakemakes:
        names = ", ".join(map(str, [*snakemakes, *jobs]))
        return f"Running here: {names}.\nWait, or {_ending(snakemakes)}   (running jobs end first)"
    text = "The Snakemake that locked this folder was killed; finished jobs are safe.\n"
    if jobs:
        names = ", ".join(map(str, jobs))
        text += f"Its jobs still run: {names}.\nWait, or {_ending(jobs)}   ({_RESUMES})\n"
    return f"{text}Then type: snakemake --unlock   and run again"


@contextlib.contextmanager
def _locked(path: Path, name: str) -> Iterator[None]:
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path, timeout=_PATIENCE)
    try:
        lock.acquire()
    except Timeout:
        other = owner(path)
        advice = f"wait for it, or {_ending([other])}   ({_RESUMES})" if other else "try again"
        raise BusyError(f"{other or name} already runs; {advice}") from None
    try:
        since = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"
        me = Owner(name, os.getpid(), socket.gethostname(), since)
        path.write_text(json.dumps(dataclasses.asdict(me)), encoding="utf-8")
        yield
    finally:
        path.unlink(missing_ok=True)
        lock.release()


def _owners(paths: Iterable[Path]) -> list[Owner]:
    return list(filter(None, map(owner, sorted(paths))))


def _ending(owners: list[Owner]) -> str:
    return f"end it there with: kill {' '.join(str(process.pid) for process in owners)}"


def _is_locked(study: Study, root: Path) -> bool:
    """Return whether one of Snakemake's locks names a file of a study."""
    own = [folders.results_folder(study)]
    own += [folders.data_folder(study, name) for name in study.datasets]
    prefixes = tuple(f"{folder.as_posix()}/" for folder in own)
    for lock in (root / _SNAKEMAKE / "locks").glob("*.lock"):
        with contextlib.suppress(OSError), lock.open(encoding="utf-8") as file:  # or it is gone
            if any(line.startswith(prefixes) for line in file):
                return True
    return False
