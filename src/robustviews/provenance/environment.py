"""Checks of a job's recorded environment: lock, packages, device, determinism."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from robustviews import artifacts
from robustviews.artifacts.records import PACKAGES
from robustviews.provenance.checks import force_rerun
from robustviews.provenance.disk import Disk, short
from robustviews.provenance.findings import Finding, State
from robustviews.provenance.history import History
from robustviews.study.jobs import Job

LOCK = Path("requirements.lock")
_PIN = re.compile(r"^([A-Za-z0-9._-]+)==([^\s;\\]+)", re.MULTILINE)
_UNSTATED = "its record does not say"


def check(disk: Disk, history: History, job: Job) -> list[Finding]:
    """Compare a finished job's environment with the lock and the study, and describe it.

    Args:
        disk: files of the study.
        history: of the project, which holds the lock of the commit that the job ran from.
        job: a computing job with a record.
    """
    lock = _Lock(disk, history, job)
    return [
        _lock(job, lock),
        *_packages(disk, job, lock),
        *(determinism(disk, job) or [_machine(disk, job)]),
    ]


def determinism(disk: Disk, job: Job) -> list[Finding]:
    """Check that a job ran as reproducibly as the study asks for.

    Args:
        disk: files of the study.
        job: a computing job.

    Returns:
        One finding if it did not; nothing if it did, or if no record says.
    """
    recorded = disk.stated(job).environment.get("deterministic")
    requested = disk.study.runtime.deterministic
    if recorded in (None, requested) or job.rule == "data":
        return []
    text = f"ran with deterministic {recorded}, the study asks for {requested}; "
    text += force_rerun(disk, job)
    return [_finding("environment", job, State.FAILED, text)]


class _Lock:
    """The lock of a job, and the lock on disk.

    Attributes:
        recorded: hash in the job's record.
        here: hash of the lock on disk.
        newer: the job ran with the lock of its commit, and a newer lock was committed since.
        pins: the versions that the job's lock allows; if that lock is unknown, the lock on disk.
    """

    def __init__(self, disk: Disk, history: History, job: Job) -> None:
        self.recorded = disk.stated(job).environment.get("lock")
        self.here = _lock_here(disk)
        self.newer, self.pins = False, _pins(disk.root)
        if self.recorded is None or self.recorded == self.here or history.head is None:
            return
        commit = disk.stated(job).code.commit
        at_commit = history.file(commit, LOCK) if history.is_name(commit) else None
        at_head = history.file(history.head, LOCK)
        if at_commit is None or at_head is None:
            return
        self.newer = _hash(at_commit) == self.recorded and _hash(at_head) == self.here
        if self.newer:
            self.pins = _read_pins(at_commit.decode(errors="replace"))


def _lock(job: Job, lock: _Lock) -> Finding:
    if lock.recorded is None:
        text = f"unknown: {_UNSTATED} which {LOCK} it was installed from; make setup, then run it "
        return _finding("lock", job, State.UNKNOWN, f"{text}again")
    if lock.here is None:
        text = f"no {LOCK} here to compare with {short(lock.recorded)}; restore it: git checkout "
        return _finding("lock", job, State.UNKNOWN, f"{text}{LOCK}")
    if lock.newer:
        text = f"ran with {LOCK} of its commit, {short(lock.recorded)}; the lock here is newer"
        return _finding("lock", job, State.VERIFIED, text)
    if lock.recorded != lock.here:
        text = f"ran with {short(lock.recorded)}, {LOCK} here is {short(lock.here)}; if {LOCK} was "
        text += f"edited: git checkout {LOCK}; else make setup, then run it again"
        return _finding("lock", job, State.FAILED, text)
    return _finding("lock", job, State.VERIFIED, f"ran with {LOCK} here, {short(lock.here)}")


def _packages(disk: Disk, job: Job, lock: _Lock) -> Iterator[Finding]:
    environment = disk.stated(job).environment
    recorded = environment.get("packages")
    if not isinstance(recorded, dict) or not recorded:
        text = f"unknown: {_UNSTATED} which versions of which packages it ran with"
        yield _finding("packages", job, State.UNKNOWN, text)
        return
    versions = {name: {str(version)} for name, version in recorded.items()}
    if "torch" in environment:
        versions.setdefault("torch", set()).add(str(environment["torch"]))
    if not lock.pins:
        text = f"cannot be compared: no {LOCK} here; restore it: git checkout {LOCK}"
        yield _finding("packages", job, State.UNKNOWN, text)
        return
    problems = [
        f"{name} {version}, {LOCK} pins {' or '.join(sorted(lock.pins[name]))}"
        for name, recorded_versions in versions.items()
        for version in sorted(recorded_versions)
        if name in lock.pins and version.partition("+")[0] not in lock.pins[name]
    ]
    for text in problems:
        fix = f"make setup, then {force_rerun(disk, job)}"
        yield _finding("packages", job, State.FAILED, f"ran with {text}; {fix}")
    unknown = [f"{LOCK} does not pin {name}" for name in sorted({*versions} - {*lock.pins})]
    unknown += [f"{_UNSTATED} which {name}" for name in PACKAGES if name not in recorded]
    if unknown:
        yield _finding("packages", job, State.UNKNOWN, f"unknown: {'; '.join(unknown)}")
    elif not problems:
        listed = ", ".join(f"{name} {recorded[name]}" for name in sorted(recorded))
        yield _finding("packages", job, State.VERIFIED, f"as pinned: {listed}")


def _machine(disk: Disk, job: Job) -> Finding:
    """Describe the machine that ran a job, and its settings."""
    environment = disk.stated(job).environment
    keys = ["python"]
    if job.rule != "data":
        keys += ["device", "threads", "deterministic"]
        on_gpu = str(environment.get("device")).startswith("cuda")
        keys += ["cuda", "driver"] if on_gpu else ["cpu_capability"]
    stated = {key: environment.get(key) for key in keys}
    image = environment.get("image")
    text = ", ".join(f"{key} {_text(value)}" for key, value in stated.items())
    text += f", image {image}" if image else ", no image"
    is_unique = not image or "sha256:" in str(image)
    if not is_unique:
        text += ", whose name holds no sha256: and may now belong to another image"
    known = is_unique and None not in stated.values()
    return _finding("environment", job, State.VERIFIED if known else State.UNKNOWN, text)


def _text(value: object) -> str:
    return "unknown" if value is None else str(value)


def _lock_here(disk: Disk) -> str | None:
    if disk.exists(LOCK):
        return disk.sha256(LOCK)
    path = artifacts.lock_file()
    return artifacts.sha256(path) if path else None


def _pins(root: Path) -> dict[str, set[str]]:
    path = root / LOCK if (root / LOCK).is_file() else artifacts.lock_file()
    return _read_pins(path.read_text(encoding="utf-8", errors="replace")) if path else {}


@cache
def _read_pins(text: str) -> dict[str, set[str]]:
    """Return the versions that a lock allows, by package: several if platforms differ."""
    pins: dict[str, set[str]] = {}
    for name, version in _PIN.findall(text):
        normal = re.sub(r"[-_.]+", "-", name).lower()
        pins.setdefault(normal, set()).add(version.partition("+")[0])
    return pins


def _hash(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def _finding(check_name: str, job: Job, state: State, text: str) -> Finding:
    return Finding(check_name, job.record.as_posix(), state, text)
