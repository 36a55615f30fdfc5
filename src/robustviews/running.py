"""Which processes work here: locks that the system frees when their process ends, however it ends.

A job locks the folder that it writes, so that a training which outlived its Snakemake and a second
one of the same run never write over each other. Snakemake's own lock is a file that stays behind
when Snakemake is killed and does not say whose it is; `notice` does.
"""

from __future__ import annotations

import atexit
import contextlib
import errno
import json
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, TYPE_CHECKING

from robustviews import pending, plan
from robustviews.artifacts import ArtifactError

if TYPE_CHECKING:
    from robustviews.config.schema import Study

NOTES = Path(".snakemake")
_UNSUPPORTED = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS)  # said by some network file systems
_TRIES, _PAUSE = 10, 0.02  # times, and seconds between them
_GOES_ON = "a training goes on from its last saved state"


class BusyError(ArtifactError):
    """Another process does the same job; the message says which, and how to end it."""


@dataclass(frozen=True)
class Process:
    """A process that holds a lock.

    Attributes:
        name: what it does, such as `pretrain emp-free-digits-s0`.
        pid: its number; None while it has not said it yet.
        since: when it began, in ISO 8601, UTC.
    """

    name: str
    pid: int | None
    since: str

    def __str__(self) -> str:
        """Name it with its number."""
        return f"{self.name} (PID {self.pid or 'unknown'}, since {self.since})"


def lock_of(folder: Path) -> Path:
    """Return the lock of a folder that a job writes: a hidden file beside it."""
    return folder.with_name(f".{folder.name}.lock")


def claim(folder: Path, name: str) -> contextlib.AbstractContextManager[None]:
    """Keep the folder that a job writes for this process while a block runs.

    Args:
        folder: results of the job.
        name: of the job, for those who find the folder taken.

    Raises:
        BusyError: another process does this job.
    """
    if os.environ.get("RANK", "0") != "0":  # of the ranks of one training the first claims for all
        return contextlib.nullcontext()
    return _held(lock_of(folder), name)


@contextlib.contextmanager
def _held(lock: Path, name: str) -> Iterator[None]:
    lock.parent.mkdir(parents=True, exist_ok=True)
    file = _acquire(lock)
    if file is None:
        other = holder(lock) or Process(name, None, "a moment ago")
        raise BusyError(
            f"{other} already runs; wait for it, or end it with: kill {_pids([other])}   "
            f"({_GOES_ON})"
        )
    with file:
        since = f"{datetime.fromtimestamp(time.time(), UTC):%Y-%m-%dT%H:%M:%SZ}"
        file.truncate(0)
        file.write(json.dumps({"name": name, "pid": os.getpid(), "since": since}))
        file.flush()
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                lock.unlink()


def holder(lock: Path) -> Process | None:
    """Return which process holds a lock, None where nobody does."""
    for _ in range(_TRIES):
        try:
            with lock.open("r+", encoding="utf-8") as file:
                if _lock(file):
                    return None
                said = json.load(file)
            return Process(str(said["name"]), int(said["pid"]), str(said["since"]))
        except OSError:
            return None
        except (ValueError, KeyError, TypeError):  # it has the lock and is about to say so
            time.sleep(_PAUSE)
    return Process("a process that does not say what it is", None, "a moment ago")


def announce(root: Path = Path()) -> None:
    """Say until the end of this process that Snakemake runs in a project."""
    for stale in _announced(root):
        if holder(stale) is None:
            stale.unlink(missing_ok=True)
    stack = contextlib.ExitStack()
    with contextlib.suppress(OSError):  # a project that cannot be written can still be looked at
        stack.enter_context(_held(root / NOTES / f"running-{os.getpid()}.lock", "Snakemake"))
    atexit.register(stack.close)


def notice(study: Study, root: Path = Path()) -> str:
    """Say who holds Snakemake's lock on the files of a study, and what to type.

    Returns:
        Lines for people; empty where nothing is locked.
    """
    if not _is_locked(study, root):
        return ""
    folders = [job.folder for job in pending.jobs(study).values() if job.folder is not None]
    jobs = _holders(root / lock_of(folder) for folder in folders)
    runners = _holders(_announced(root))
    if runners:
        names = ", ".join(map(str, [*runners, *jobs]))
        return (
            f"Already at work on {study.study}: {names}.\n"
            f"Wait for it, or end it with: kill {_pids(runners)}   (jobs under way end first)"
        )
    first = "The Snakemake that locked this folder was killed; finished jobs are safe."
    if not jobs:
        return f"{first}\nNothing runs here any more. Type: snakemake --unlock   and run again"
    return (
        f"{first}\nWhat it had started still runs: {', '.join(map(str, jobs))}.\n"
        f"Type: kill {_pids(jobs)}   ({_GOES_ON})\nthen: snakemake --unlock   and run again"
    )


def _acquire(path: Path) -> IO[str] | None:
    """Open and lock a file, None where another process holds it."""
    for _ in range(_TRIES):
        file = path.open("a+", encoding="utf-8")
        if _lock(file):
            with contextlib.suppress(FileNotFoundError):
                if path.stat().st_ino == os.fstat(file.fileno()).st_ino:
                    return file
        file.close()  # held, perhaps by one who only looks, or just removed by who held it
        time.sleep(_PAUSE)
    return None


def _lock(file: IO[str]) -> bool:
    """Lock an open file; return whether that could be done."""
    if sys.platform == "win32":  # where nothing is locked
        return True
    import fcntl

    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in _UNSUPPORTED:
            raise
    return True


def _announced(root: Path) -> list[Path]:
    return sorted((root / NOTES).glob("running-*.lock"))


def _holders(locks: Iterator[Path] | list[Path]) -> list[Process]:
    return [process for lock in locks if (process := holder(lock)) is not None]


def _pids(processes: list[Process]) -> str:
    return " ".join("PID" if each.pid is None else str(each.pid) for each in processes)


def _is_locked(study: Study, root: Path) -> bool:
    folders = [plan.results_folder(study)]
    folders += [plan.data_folder(study, name) for name in study.datasets]
    names = tuple(f"{folder.as_posix()}/" for folder in folders)
    for lock in (root / NOTES / "locks").glob("*.lock"):
        with contextlib.suppress(OSError), lock.open(encoding="utf-8") as file:  # or removed since
            if any(line.startswith(names) for line in file):
                return True
    return False
