"""Which processes work here: locks that the system frees when their process ends, however it ends.

Where nothing can be locked (Windows, some network file systems) nobody is kept out, and who left a
lock may or may not run: that is then called unknown. A lock tells machines apart by a number that
says nothing about them.

A job locks the folder that it writes, so that a training which outlived its Snakemake and a second
one of the same run never write over each other. Snakemake's own lock is a file that stays behind
when Snakemake is killed and does not say whose it is; `notice` does.
"""

from __future__ import annotations

import atexit
import contextlib
import dataclasses
import errno
import functools
import hashlib
import json
import os
import sys
import time
import uuid
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from robustviews.artifacts import ArtifactError
from robustviews.study import folders
from robustviews.study import jobs as pending

if TYPE_CHECKING:
    from robustviews.study.schema import Study

NOTES = Path(".snakemake")
_BOOT = Path("/proc/sys/kernel/random/boot_id")  # of Linux; another one on each machine
_UNSUPPORTED = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS)  # said by some network file systems
_TRIES, _PAUSE = 10, 0.02  # times, and seconds between them
_GOES_ON = "a training goes on from its last saved state"


class BusyError(ArtifactError):
    """Another process does the same job; the message says which, and how to end it."""


@dataclasses.dataclass(frozen=True)
class Process:
    """A process that holds a lock.

    Attributes:
        name: what it does, such as `pretrain emp-free-digits-s0`.
        pid: its number; None while it has not said it yet.
        since: when it began, in ISO 8601, UTC.
        is_here: whether it runs on this machine, where `kill` finds it.
        study: whose results it makes, of a Snakemake; empty where it does not say.
        looks: whether it only looks, as a dry run does, and makes nothing.
        doubt: why nobody knows whether it still runs, and the way out; empty where it surely does.
    """

    name: str
    pid: int | None
    since: str
    is_here: bool = True
    study: str = ""
    looks: bool = False
    doubt: str = ""

    def __str__(self) -> str:
        """Name it with its number."""
        number = f"{'' if self.is_here else 'on another machine: '}PID {self.pid or 'unknown'}"
        said = [number, f"since {self.since}", self.study and f"study {self.study}"]
        said += ["only looks" if self.looks else "", self.doubt]
        return f"{self.name} ({', '.join(filter(None, said))})"


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
    # Of the ranks of one training the first claims for all; other launchers start trainings alone.
    if "TORCHELASTIC_RUN_ID" in os.environ and os.environ.get("RANK", "0") != "0":
        return contextlib.nullcontext()
    return _held(lock_of(folder), name)


@contextlib.contextmanager
def _held(lock: Path, name: str, **more: str | bool) -> Iterator[None]:
    lock.parent.mkdir(parents=True, exist_ok=True)
    file = _acquire(lock)
    if file is None:
        other = holder(lock) or Process(name, None, "a moment ago")
        raise BusyError(f"{other} already runs; wait for it, or {_end([other])}   ({_GOES_ON})")
    with file:
        since = f"{datetime.fromtimestamp(time.time(), UTC):%Y-%m-%dT%H:%M:%SZ}"
        said = {"name": name, "pid": os.getpid(), "since": since, "machine": _machine(), **more}
        file.truncate(0)
        file.write(json.dumps(said))
        file.flush()
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                lock.unlink()


def holder(lock: Path) -> Process | None:
    """Return which process holds a lock, or may do so; None where nobody does."""
    for _ in range(_TRIES):
        try:
            with lock.open("r+", encoding="utf-8") as file:
                locked = _lock(file)
                if locked:
                    return None
                process = _process(json.load(file))
            return process if locked is False else _doubted(process, lock)
        except OSError:
            return None
        except (ValueError, KeyError, TypeError):  # it has the lock and is about to say so
            time.sleep(_PAUSE)
    return Process("a process that does not say what it is", None, "a moment ago")


def announce(study: str, *, looks: bool = False, root: Path = Path()) -> None:
    """Say until the end of this process that Snakemake runs in a project.

    Args:
        study: whose results it makes.
        looks: whether it makes nothing, as a dry run.
        root: project folder.
    """
    for stale in _announced(root):
        if holder(stale) is None and _is_of_here(stale):
            stale.unlink(missing_ok=True)
    lock = root / NOTES / f"running-{_machine()}-{os.getpid()}.lock"
    stack = contextlib.ExitStack()
    with contextlib.suppress(OSError):  # a project that cannot be written can still be looked at
        stack.enter_context(_held(lock, "Snakemake", study=study, looks=looks))
    atexit.register(stack.close)


def notice(study: Study, root: Path = Path()) -> str:
    """Say who holds Snakemake's lock on the files of a study, and what to type.

    Returns:
        Lines for people; empty where nothing is locked.
    """
    locked = _locked(study, root)
    if not locked:
        return ""
    results = f"{folders.results_folder(study).as_posix()}/"
    shared = not any(name.startswith(results) for name in locked)  # data, of any study
    made = [job.folder for job in pending.jobs(study).values() if job.folder is not None]
    jobs = _holders(root / lock_of(folder) for folder in made)
    makers = [each for each in _holders(_announced(root)) if not each.looks]
    runners = [each for each in makers if shared or each.study == study.study]
    if runners:
        names = ", ".join(map(str, [*runners, *jobs]))
        return (
            f"Already at work on {study.study}: {names}.\n"
            f"Wait for it, or {_end(runners)}   (jobs under way end first)"
        )
    first = "The Snakemake that locked this folder was killed; finished jobs are safe."
    if makers:  # `--unlock` takes the locks of all
        first += f"\nWait until {', '.join(map(str, makers))} has ended too."
    if not jobs:
        rest = "" if makers else "Nothing runs here any more. "
        return f"{first}\n{rest}Type: snakemake --unlock   and run again"
    return (
        f"{first}\nWhat it had started still runs: {', '.join(map(str, jobs))}.\n"
        f"Wait for it, or {_end(jobs)}   ({_GOES_ON})\nthen: snakemake --unlock   and run again"
    )


def _acquire(path: Path) -> IO[str] | None:
    """Open and lock a file, None where another process holds it."""
    for _ in range(_TRIES):
        file = path.open("a+", encoding="utf-8")
        if _lock(file) is not False:
            with contextlib.suppress(FileNotFoundError):
                if path.stat().st_ino == os.fstat(file.fileno()).st_ino:
                    return file
        file.close()  # held, perhaps by one who only looks, or just removed by who held it
        time.sleep(_PAUSE)
    return None


def _lock(file: IO[str]) -> bool | None:
    """Lock an open file; return whether that could be done, None where nothing can be locked."""
    if sys.platform == "win32":
        return None
    import fcntl

    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in _UNSUPPORTED:
            raise
        return None
    return True


@functools.cache
def _machine() -> str:
    """Return what tells this machine, since it was started, from others; it names nobody."""
    try:
        text = _BOOT.read_text(encoding="ascii")
    except OSError:
        text = str(uuid.getnode())
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _process(said: dict[str, Any]) -> Process:
    """Read what a lock says; those of another machine say so."""
    return Process(
        str(said["name"]),
        int(said["pid"]),
        str(said["since"]),
        is_here=said.get("machine") == _machine(),
        study=str(said.get("study", "")),
        looks=bool(said.get("looks")),
    )


def _doubted(process: Process, lock: Path) -> Process | None:
    """Return who left a lock where nothing can be locked; None where it has surely ended."""
    if process.is_here and sys.platform != "win32":  # where asking for a process would end it
        try:
            os.kill(process.pid or 0, 0)
        except ProcessLookupError:
            return None
        except PermissionError:  # it runs, as somebody else's
            pass
    doubt = f"whether it still runs is unknown; if not, type: rm {lock}"
    return dataclasses.replace(process, doubt=doubt)


def _is_of_here(lock: Path) -> bool:
    try:
        return _process(json.loads(lock.read_text(encoding="utf-8"))).is_here
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def _announced(root: Path) -> list[Path]:
    return sorted((root / NOTES).glob("running-*.lock"))


def _holders(locks: Iterable[Path]) -> list[Process]:
    return [process for lock in locks if (process := holder(lock)) is not None]


def _end(processes: list[Process]) -> str:
    """Say how to end processes; a number that another machine gave is another process here."""
    pids = ["PID" if each.pid is None else str(each.pid) for each in processes if each.is_here]
    return f"end it with: kill {' '.join(pids)}" if pids else "end it where it runs"


def _locked(study: Study, root: Path) -> list[str]:
    """Return the files of a study that Snakemake has locked."""
    own = [folders.results_folder(study)]
    own += [folders.data_folder(study, name) for name in study.datasets]
    names = tuple(f"{folder.as_posix()}/" for folder in own)
    found: list[str] = []
    for lock in (root / NOTES / "locks").glob("*.lock"):
        with contextlib.suppress(OSError), lock.open(encoding="utf-8") as file:  # or removed since
            found += [line for line in file if line.startswith(names)]
    return found
