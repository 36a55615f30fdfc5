"""What a job ran with, as far as its record says: lock, packages, device, determinism."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from robustviews import artifacts
from robustviews.artifacts.records import PACKAGES
from robustviews.provenance.checks import again
from robustviews.provenance.disk import Disk, record_of, short
from robustviews.provenance.findings import Finding, State
from robustviews.provenance.history import History
from robustviews.study.jobs import Job

LOCK = Path("requirements.lock")
_PIN = re.compile(r"^([A-Za-z0-9._-]+)==([^\s;\\]+)", re.MULTILINE)
_RUN = "its record does not say"


def check(disk: Disk, history: History, job: Job) -> list[Finding]:
    """Check a finished job's environment against the lock and the study, and say what it was.

    Args:
        disk: files of the study.
        history: of the project, which has the lock of the commit that the job ran from.
        job: a computing one, with a record.
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
        job: a computing one.

    Returns:
        One finding where it did not; nothing where it did, or where no record says.
    """
    said = disk.section(job, "environment").get("deterministic")
    asked = disk.study.runtime.deterministic
    if said in (None, asked) or job.rule == "data":
        return []
    text = f"ran with deterministic {said}, the study asks for {asked}; {again(disk, job)}"
    return [_finding("environment", job, State.FAILED, text)]


class _Lock:
    """The lock of a job, and the one that is here.

    Attributes:
        recorded: hash that the record states.
        here: hash of the lock on disk.
        newer: the job ran with the lock of its commit, and another was committed since.
        pins: the versions that the job's lock allows, or the one here where that is unknown.
    """

    def __init__(self, disk: Disk, history: History, job: Job) -> None:
        self.recorded = disk.section(job, "environment").get("lock")
        self.here = _lock_here(disk)
        self.newer, self.pins = False, _pins(disk.root)
        if self.recorded is None or self.recorded == self.here or history.head is None:
            return
        commit = disk.section(job, "code").get("commit")
        then = history.file(commit, LOCK) if history.is_name(commit) else None
        now = history.file(history.head, LOCK)
        if then is None or now is None:
            return
        self.newer = _hash(then) == self.recorded and _hash(now) == self.here
        if self.newer:
            self.pins = _read_pins(then.decode(errors="replace"))


def _lock(job: Job, lock: _Lock) -> Finding:
    if lock.recorded is None:
        text = f"unknown: {_RUN} which {LOCK} it was installed from; make setup, then run it again"
        return _finding("lock", job, State.UNKNOWN, text)
    if lock.here is None:
        text = f"no {LOCK} here to compare with {short(lock.recorded)}; get it: git checkout {LOCK}"
        return _finding("lock", job, State.UNKNOWN, text)
    if lock.newer:
        text = f"{LOCK} was that of its commit, {short(lock.recorded)}; the lock here is newer"
        return _finding("lock", job, State.VERIFIED, text)
    if lock.recorded != lock.here:
        text = f"ran with {short(lock.recorded)}, {LOCK} here is {short(lock.here)}; if that was "
        text += f"edited: git checkout {LOCK}; else make setup, then run it again"
        return _finding("lock", job, State.FAILED, text)
    return _finding("lock", job, State.VERIFIED, f"{LOCK} is the one here, {short(lock.here)}")


def _packages(disk: Disk, job: Job, lock: _Lock) -> Iterator[Finding]:
    environment = disk.section(job, "environment")
    recorded = environment.get("packages")
    if not isinstance(recorded, dict) or not recorded:
        text = f"unknown: {_RUN} which versions of which packages it ran with"
        yield _finding("packages", job, State.UNKNOWN, text)
        return
    versions = {name: {str(version)} for name, version in recorded.items()}
    if "torch" in environment:
        versions.setdefault("torch", set()).add(str(environment["torch"]))
    if not lock.pins:
        text = f"cannot be compared: no {LOCK} here; get it: git checkout {LOCK}"
        yield _finding("packages", job, State.UNKNOWN, text)
        return
    wrong = [
        f"{name} {version}, {LOCK} pins {' or '.join(sorted(lock.pins[name]))}"
        for name, found in versions.items()
        for version in sorted(found)
        if name in lock.pins and version.partition("+")[0] not in lock.pins[name]
    ]
    for text in wrong:
        way_out = f"make setup, then {again(disk, job)}"
        yield _finding("packages", job, State.FAILED, f"ran with {text}; {way_out}")
    unknown = [f"{LOCK} does not pin {name}" for name in sorted({*versions} - {*lock.pins})]
    unknown += [f"{_RUN} which {name}" for name in PACKAGES if name not in recorded]
    if unknown:
        yield _finding("packages", job, State.UNKNOWN, f"unknown: {'; '.join(unknown)}")
    elif not wrong:
        named = ", ".join(f"{name} {recorded[name]}" for name in sorted(recorded))
        yield _finding("packages", job, State.VERIFIED, f"as pinned: {named}")


def _machine(disk: Disk, job: Job) -> Finding:
    """Say what computed, and how reproducibly."""
    environment = disk.section(job, "environment")
    keys = ["python"]
    if job.rule != "data":
        keys += ["device", "threads", "deterministic"]
        on_gpu = str(environment.get("device")).startswith("cuda")
        keys += ["cuda", "driver"] if on_gpu else ["cpu_capability"]
    said = {key: environment.get(key) for key in keys}
    image = environment.get("image")
    text = ", ".join(f"{key} {_word(value)}" for key, value in said.items())
    text += f", image {image}" if image else ", no image"
    named = not image or "sha256:" in str(image)
    if not named:
        text += ", whose name holds no sha256: and may by now be another's"
    known = named and None not in said.values()
    return _finding("environment", job, State.VERIFIED if known else State.UNKNOWN, text)


def _word(value: object) -> str:
    return "unknown" if value is None else str(value)


def _lock_here(disk: Disk) -> str | None:
    return disk.sha256(LOCK) if disk.exists(LOCK) else _beside_sources()


def _beside_sources() -> str | None:
    path = artifacts.lock_file()
    return artifacts.sha256(path) if path else None


def _pins(root: Path) -> dict[str, set[str]]:
    path = root / LOCK if (root / LOCK).is_file() else artifacts.lock_file()
    return _read_pins(path.read_text(encoding="utf-8", errors="replace")) if path else {}


@cache
def _read_pins(text: str) -> dict[str, set[str]]:
    """Return the versions that a lock allows of each package: several where platforms differ."""
    pins: dict[str, set[str]] = {}
    for name, version in _PIN.findall(text):
        normal = re.sub(r"[-_.]+", "-", name).lower()
        pins.setdefault(normal, set()).add(version.partition("+")[0])
    return pins


def _hash(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def _finding(check_name: str, job: Job, state: State, text: str) -> Finding:
    return Finding(check_name, record_of(job).as_posix(), state, text)
