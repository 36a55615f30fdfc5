"""What a job ran with, as far as its record says: lock, packages, device, determinism."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from robustviews import artifacts
from robustviews.pending import Job
from robustviews.provenance.checks import mend
from robustviews.provenance.disk import Disk, record_of, short
from robustviews.provenance.findings import Finding, State

LOCK = Path("requirements.lock")
_PIN = re.compile(r"^([A-Za-z0-9._-]+)==([^\s;\\]+)", re.MULTILINE)
_RUN = "its record does not say"


def check(disk: Disk, job: Job) -> list[Finding]:
    """Check a finished job's environment against the lock and the study, and say what it was.

    Args:
        disk: files of the study.
        job: a computing one, with a record.
    """
    environment = disk.section(job, "environment")
    return [
        *_lock(disk, job, environment),
        *_packages(disk, job, environment),
        *_machine(disk, job, environment),
    ]


def _lock(disk: Disk, job: Job, environment: dict[str, Any]) -> Iterator[Finding]:
    recorded, here = environment.get("lock"), _lock_here(disk)
    if recorded is None:
        text = f"unknown: {_RUN} which {LOCK} it was installed from"
        yield _finding("lock", job, State.UNKNOWN, f"{text}; make setup && {mend(job)}")
    elif here is None:
        text = f"no {LOCK} here to compare with {short(recorded)}; get it: git checkout {LOCK}"
        yield _finding("lock", job, State.UNKNOWN, text)
    elif recorded != here:
        text = f"ran with {short(recorded)}, {LOCK} here is {short(here)}; "
        text += f"if that was edited: git checkout {LOCK}; else: make setup && {mend(job)}"
        yield _finding("lock", job, State.FAILED, text)
    else:
        yield _finding("lock", job, State.VERIFIED, f"{LOCK} is the one here, {short(here)}")


def _packages(disk: Disk, job: Job, environment: dict[str, Any]) -> Iterator[Finding]:
    recorded = environment.get("packages")
    if not isinstance(recorded, dict) or not recorded:
        text = f"unknown: {_RUN} which versions of which packages it ran with"
        yield _finding("packages", job, State.UNKNOWN, text)
        return
    versions = {name: {str(version)} for name, version in recorded.items()}
    if "torch" in environment:
        versions.setdefault("torch", set()).add(str(environment["torch"]))
    pins = _pins(disk.root)
    wrong = [
        f"{name} {version}, {LOCK} pins {' or '.join(sorted(pins[name]))}"
        for name, found in versions.items()
        for version in sorted(found)
        if name in pins and version.partition("+")[0] not in pins[name]
    ]
    for text in wrong:
        way_out = f"make setup && {mend(job)}"
        yield _finding("packages", job, State.FAILED, f"ran with {text}; {way_out}")
    if not pins:
        text = f"cannot be compared: no {LOCK} here; get it: git checkout {LOCK}"
        yield _finding("packages", job, State.UNKNOWN, text)
    elif not wrong:
        named = ", ".join(f"{name} {recorded[name]}" for name in sorted(recorded))
        yield _finding("packages", job, State.VERIFIED, f"as pinned: {named}")


def _machine(disk: Disk, job: Job, environment: dict[str, Any]) -> Iterator[Finding]:
    """Say what computed, and how reproducibly."""
    keys = ["python"]
    if job.rule != "data":
        keys += ["device", "threads", "deterministic"]
        on_gpu = str(environment.get("device")).startswith("cuda")
        keys += ["cuda", "driver"] if on_gpu else ["cpu_capability"]
    said = {key: environment.get(key) for key in keys}
    image = environment.get("image")
    text = ", ".join(f"{key} {_word(value)}" for key, value in said.items())
    text += f", image {image}" if image else ", no image"
    unknown = [key for key, value in said.items() if value is None]
    if "deterministic" in said and said["deterministic"] not in (
        None,
        disk.study.runtime.deterministic,
    ):
        asked = disk.study.runtime.deterministic
        text = f"ran with deterministic {said['deterministic']}, the study asks for {asked}; "
        yield _finding("environment", job, State.FAILED, text + mend(job))
    elif unknown:
        yield _finding("environment", job, State.UNKNOWN, text)
    else:
        yield _finding("environment", job, State.VERIFIED, text)


def _word(value: object) -> str:
    return "unknown" if value is None else str(value)


def _lock_here(disk: Disk) -> str | None:
    return disk.sha256(LOCK) if disk.exists(LOCK) else _beside_sources()


def _beside_sources() -> str | None:
    path = artifacts.lock_file()
    return artifacts.sha256(path) if path else None


def _pins(root: Path) -> dict[str, set[str]]:
    path = root / LOCK if (root / LOCK).is_file() else artifacts.lock_file()
    return _read_pins(path, path.stat().st_mtime_ns) if path else {}


@cache
def _read_pins(path: Path, changed: int) -> dict[str, set[str]]:  # noqa: ARG001  # part of the key
    """Return the versions that a lock allows of each package: several where platforms differ."""
    pins: dict[str, set[str]] = {}
    for name, version in _PIN.findall(path.read_text(encoding="utf-8")):
        normal = re.sub(r"[-_.]+", "-", name).lower()
        pins.setdefault(normal, set()).add(version.partition("+")[0])
    return pins


def _finding(check_name: str, job: Job, state: State, text: str) -> Finding:
    return Finding(check_name, record_of(job).as_posix(), state, text)
