"""Locks: which process writes a folder and which Snakemake runs; a lock ends with its process.

A job locks the folder that it writes, so that a training that outlived its Snakemake process and a
second training of the same run never overwrite each other. Snakemake's own lock is a file that
remains when Snakemake is killed and does not name its owner; `notice` does. `begin` removes it if
its owner is proven dead.
"""

from __future__ import annotations

import atexit
import contextlib
import dataclasses
import errno
import json
import logging
import os
import signal
import socket
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

from robustviews import artifacts
from robustviews.artifacts import ArtifactError
from robustviews.study import folders
from robustviews.workflow.metadata import SNAKEMAKE

if TYPE_CHECKING:
    from robustviews.study.schema import Study

log = logging.getLogger(__name__)

_PATIENCE = 0.5  # seconds: longer than `owner` holds a lock or an owner needs to write its name
_WITHOUT_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)  # as NFS without its lock daemon
_RESUMES = "a training resumes from its last saved state"


class BusyError(ArtifactError):
    """Another process runs the same job; the message names it and the command that ends it."""


@dataclasses.dataclass(frozen=True)
class Owner:
    """The process that owns a lock."""

    name: str  # its job, such as `pretrain emp-free-digits-s0`
    pid: int
    host: str  # machine on which it runs
    since: str  # when it acquired the lock, in ISO 8601, UTC
    boot: str = ""  # boot of its machine, which only Linux names
    remote: bool = False  # whether it may have jobs on other machines, which cannot be seen here

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


def owner(path: Path, *, keep: bool = False) -> Owner | None:
    """Return the owner of a lock; None if the lock is free, whose file is removed unless `keep`."""
    try:
        if path.exists():
            with _lock(path):
                if not keep:
                    path.unlink()
    except Timeout:
        return _stated(path)
    except PermissionError:  # another user's
        stated = _stated(path)
        return None if stated is None or _is_gone(stated) else stated
    except OSError:
        pass
    return None


def _stated(path: Path) -> Owner | None:
    """Return the owner that the file of a lock names, dead or alive."""
    with contextlib.suppress(OSError, ValueError, TypeError):  # released a moment ago
        return Owner(**json.loads(path.read_text(encoding="utf-8")))
    return None


def owners(study: Study) -> list[Owner]:
    """Return the owners of locks on prepared data, and on results of present and former jobs."""
    results = folders.results_folder(study)
    return _owners([*Path("data").glob(".*.lock"), *results.rglob(".*.lock")])


def begin(study: Study) -> str:
    """Hold a lock until this process ends, so that others see that Snakemake runs here.

    Snakemake's own lock on files of the study is removed before, if nothing that might need it is
    alive. A dry run, which computes nothing, does not call this.

    Returns:
        A line that says whose lock was removed; empty if none was.
    """
    line = ""
    stack = contextlib.ExitStack()
    with contextlib.suppress(OSError):  # a read-only project can still be read
        SNAKEMAKE.mkdir(exist_ok=True)
        # Of two that begin at once, one sees the other.
        with _lock(SNAKEMAKE / "begin.lock", patience=-1):
            if _is_locked(study):
                line = _remove_lock(study)
            elif not _locks():
                _owners(_announcements())  # removes the files of the dead
            name = f"Snakemake of {study.study}"
            stack.enter_context(_locked(_announcement(), name))
    atexit.register(stack.close)
    return line


def runs_elsewhere() -> None:
    """State in the lock of `begin` that jobs run on other machines."""
    path = _announcement()
    me = _stated(path)
    if me is not None:
        text = json.dumps(dataclasses.asdict(dataclasses.replace(me, remote=True)))
        path.write_text(text, encoding="utf-8")


def end_on_hangup() -> None:
    """End Snakemake as after SIGTERM when its terminal is closed; it would leave its lock."""
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is signal.SIG_DFL:
        signal.signal(signal.SIGHUP, _hang_up)


def _hang_up(number: int, frame: FrameType | None) -> None:
    end = signal.getsignal(signal.SIGTERM)
    if not callable(end):  # Snakemake schedules nothing yet
        raise KeyboardInterrupt
    end(number, frame)


def notice(study: Study) -> str:
    """Return who owns Snakemake's lock on the files of a study, with suggested commands.

    Returns:
        Lines of text; empty if no file of the study is locked.
    """
    if not _is_locked(study):
        return ""
    snakemakes, jobs = _owners(_announcements(), keep=True), owners(study)
    if snakemakes:
        names = ", ".join(map(str, [*snakemakes, *jobs]))
        return f"Running here: {names}.\nWait, or {_ending(snakemakes)}   (running jobs end first)"
    text = "The Snakemake that locked this folder was killed; finished jobs are safe.\n"
    if jobs:
        names = ", ".join(map(str, jobs))
        text += f"Its jobs still run: {names}.\nWait, or {_ending(jobs)}   ({_RESUMES})\n"
    elif _dead():
        return f"{text}The next run removes its lock"
    return f"{text}Then type: snakemake --unlock   and run again"


def _remove_lock(study: Study) -> str:
    """Remove Snakemake's locks if all that might need one are proven dead; return who they were."""
    dead = _dead()
    if not dead or owners(study):
        return ""
    for path in _locks():
        path.unlink()
    _owners(_announcements())
    names = ", ".join(map(str, dead))
    return f"Removed the lock of {names}: it was killed, and none of its jobs runs any more"


def _dead() -> list[Owner]:
    """Return the owners of Snakemake's locks; none unless each of them is proven dead.

    A process is dead if its lock is free, in the same boot of the same machine, and no process has
    its number. On a cluster its jobs may live on.
    """
    paths = _announcements()
    if _owners(paths, keep=True):
        return []
    stated = [_stated(path) for path in paths]
    dead = [one for one in stated if one is not None and not one.remote and _is_gone(one)]
    return dead if len(dead) == len(paths) else []


def _is_gone(process: Owner) -> bool:
    if not process.boot or (process.host, process.boot) != (socket.gethostname(), _boot()):
        return False
    try:
        os.kill(process.pid, 0)
    except ProcessLookupError:
        return True
    except OSError:  # another user's
        pass
    return False


def _boot() -> str:
    """Return the name of this boot of the machine; empty where the system has none."""
    with contextlib.suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
    return ""


def _locks() -> list[Path]:
    return sorted((SNAKEMAKE / "locks").glob("*.lock"))


def _announcement() -> Path:
    return SNAKEMAKE / f"running-{os.getpid()}.lock"


def _announcements() -> list[Path]:
    """Return the locks of all other Snakemakes, dead or alive."""
    paths = SNAKEMAKE.glob("running-*.lock")
    return sorted(path for path in paths if path != _announcement())


@contextlib.contextmanager
def _locked(path: Path, name: str) -> Iterator[None]:
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = _lock(path)
    held = _acquired(lock, path, name)
    try:
        if held:
            since = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"
            me = Owner(name, os.getpid(), socket.gethostname(), since, _boot())
            with artifacts.writing(path):
                path.write_text(json.dumps(dataclasses.asdict(me)), encoding="utf-8")
        yield
    finally:
        path.unlink(missing_ok=True)
        lock.release()


def _lock(path: Path, patience: float = _PATIENCE) -> FileLock:
    # Not the fallback of filelock: a file whose existence is the lock outlives a killed process.
    return FileLock(path, timeout=patience, fallback_to_soft=False)


def _acquired(lock: FileLock, path: Path, name: str) -> bool:
    """Acquire a lock; return False where the file system has no locks, after a warning."""
    try:
        lock.acquire()
    except (Timeout, PermissionError) as error:
        other = owner(path)
        if other is None and isinstance(error, PermissionError):
            raise
        advice = f"wait for it, or {_ending([other])}   ({_RESUMES})" if other else "try again"
        raise BusyError(f"{other or name} already runs; {advice}") from None
    except OSError as error:
        if error.errno not in _WITHOUT_LOCKS:
            raise
        log.warning(
            "%s: this file system has no locks (%s), so nothing stops a second run of %s",
            path,
            error.strerror,
            name,
        )
        return False
    return True


def _owners(paths: Iterable[Path], *, keep: bool = False) -> list[Owner]:
    found = (owner(path, keep=keep) for path in sorted(paths))
    return [one for one in found if one is not None]


def _ending(owners: list[Owner]) -> str:
    return f"end it there with: kill {' '.join(str(process.pid) for process in owners)}"


def _is_locked(study: Study) -> bool:
    """Return whether one of Snakemake's locks names a file of a study."""
    own = [folders.results_folder(study)]
    own += [folders.data_folder(study, name) for name in study.datasets]
    prefixes = tuple(f"{folder.as_posix()}/" for folder in own)
    for lock in _locks():
        with contextlib.suppress(OSError), lock.open(encoding="utf-8") as file:  # or it is gone
            if any(line.startswith(prefixes) for line in file):
                return True
    return False
