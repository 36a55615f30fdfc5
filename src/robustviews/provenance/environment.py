"""Checks of a job's recorded environment: lock, packages, device, determinism."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from robustviews import artifacts
from robustviews.artifacts.records import PACKAGES
from robustviews.provenance.checks import force_rerun
from robustviews.provenance.disk import Disk, sha256_of, short
from robustviews.provenance.findings import Finding, failed, unknown, verified
from robustviews.provenance.history import History
from robustviews.study.jobs import Job

LOCK = Path("requirements.lock")
_PIN = re.compile(r"^([A-Za-z0-9._-]+)==([^\s;\\]+)", re.MULTILINE)
_UNSTATED = "its record does not say"


def check(disk: Disk, history: History, job: Job) -> list[Finding]:
    """Compare a finished job's environment with the lock and the study, and describe it.

    The history holds the lock of the commit that the job ran from.
    """
    lock = _Lock(disk, history, job)
    return [
        _lock(job, lock),
        *_packages(disk, job, lock),
        *(determinism(disk, job) or [_machine(disk, job)]),
    ]


def determinism(disk: Disk, job: Job) -> list[Finding]:
    """Return a finding if a job did not run as reproducibly as the study asks for.

    Nothing if it did, or if no record says.
    """
    recorded = disk.stated(job).environment.get("deterministic")
    requested = disk.study.runtime.deterministic
    if recorded in (None, requested) or job.rule == "data":
        return []
    text = f"ran with deterministic {recorded}, the study asks for {requested}; "
    text += force_rerun(disk, job)
    return [failed("environment", job.record, text)]


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
        self.newer = sha256_of(at_commit) == self.recorded and sha256_of(at_head) == self.here
        if self.newer:
            self.pins = _read_pins(at_commit.decode(errors="replace"))


def _lock(job: Job, lock: _Lock) -> Finding:
    if lock.recorded is None:
        text = f"unknown: {_UNSTATED} which {LOCK} it was installed from; make setup, then run it "
        return unknown("lock", job.record, f"{text}again")
    if lock.here is None:
        text = f"no {LOCK} here to compare with {short(lock.recorded)}; restore it: git checkout "
        return unknown("lock", job.record, f"{text}{LOCK}")
    if lock.newer:
        text = f"ran with {LOCK} of its commit, {short(lock.recorded)}; the lock here is newer"
        return verified("lock", job.record, text)
    if lock.recorded != lock.here:
        text = f"ran with {short(lock.recorded)}, {LOCK} here is {short(lock.here)}; if {LOCK} was "
        text += f"edited: git checkout {LOCK}; else make setup, then run it again"
        return failed("lock", job.record, text)
    return verified("lock", job.record, f"ran with {LOCK} here, {short(lock.here)}")


def _packages(disk: Disk, job: Job, lock: _Lock) -> Iterator[Finding]:
    environment = disk.stated(job).environment
    recorded = environment.get("packages")
    if not isinstance(recorded, dict) or not recorded:
        text = f"unknown: {_UNSTATED} which versions of which packages it ran with"
        yield unknown("packages", job.record, text)
        return
    versions = {name: {str(version)} for name, version in recorded.items()}
    if "torch" in environment:
        versions.setdefault("torch", set()).add(str(environment["torch"]))
    if not lock.pins:
        text = f"cannot be compared: no {LOCK} here; restore it: git checkout {LOCK}"
        yield unknown("packages", job.record, text)
        return
    problems = [
        f"{name} {version}, {LOCK} pins {' or '.join(sorted(lock.pins[name]))}"
        for name, recorded_versions in versions.items()
        for version in sorted(recorded_versions)
        if name in lock.pins and version.partition("+")[0] not in lock.pins[name]
    ]
    for text in problems:
        fix = f"make setup, then {force_rerun(disk, job)}"
        yield failed("packages", job.record, f"ran with {text}; {fix}")
    unstated = [f"{LOCK} does not pin {name}" for name in sorted({*versions} - {*lock.pins})]
    unstated += [f"{_UNSTATED} which {name}" for name in PACKAGES if name not in recorded]
    if unstated:
        yield unknown("packages", job.record, f"unknown: {'; '.join(unstated)}")
    elif not problems:
        listed = ", ".join(f"{name} {recorded[name]}" for name in sorted(recorded))
        yield verified("packages", job.record, f"as pinned: {listed}")


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
    text = ", ".join(
        f"{key} {'unknown' if value is None else value}" for key, value in stated.items()
    )
    text += f", image {image}" if image else ", no image"
    is_unique = not image or "sha256:" in str(image)
    if not is_unique:
        text += ", whose name holds no sha256: and may now belong to another image"
    known = is_unique and None not in stated.values()
    return (verified if known else unknown)("environment", job.record, text)


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
