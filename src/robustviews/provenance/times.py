"""When jobs ran and for how long: whether records, notes and curves tell the same story."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from robustviews import artifacts
from robustviews.artifacts import ArtifactError
from robustviews.provenance.checks import again
from robustviews.provenance.disk import Disk, record_of
from robustviews.provenance.findings import Finding, State
from robustviews.study.folders import OUTPUTS
from robustviews.study.jobs import Job
from robustviews.workflow.metadata import Notes, Window

SLACK = 60.0  # seconds by which clocks of a cluster's machines may differ
_ROUNDING = 5.0  # seconds that may pass between a training's last pass and its end


def check(disk: Disk, notes: Notes, job: Job) -> list[Finding]:
    """Check a finished job's times against its note, its curve and the jobs before it.

    Args:
        disk: files of the study.
        notes: of Snakemake.
        job: a computing one, with a record.
    """
    record = disk.record(job)
    if isinstance(record, ArtifactError):
        return []
    start, seconds, resumed = started(record), record.get("seconds"), record.get("resumed", 0)
    if start is None or not _number(seconds) or not isinstance(resumed, int) or resumed < 0:
        text = f"no times: started {record.get('started')!r}, seconds {seconds!r}, resumed "
        return [_finding(job, State.FAILED, f"{text}{resumed!r}; {again(disk, job)}")]
    wrong = [*_by_clock(start), *_by_curve(disk, job)]
    by_hand = not wrong and _by_hand(disk, notes, job, start)
    wrong += [] if by_hand else _by_note(disk, notes, job)
    if wrong:
        return [_finding(job, State.FAILED, f"{text}; {again(disk, job)}") for text in wrong]
    if by_hand:
        assert job.folder is not None
        text = "made again by hand with the same bytes; to have it noted: "
        text += disk.make("--forcerun", job.folder / OUTPUTS[job.rule][0])
        return [_finding(job, State.UNKNOWN, text)]
    early = list(_early(disk, notes, job))
    if early:
        return early
    times = "once" if resumed == 1 else f"{resumed} times"
    after = f", resumed {times}" if resumed else ""
    text = f"started {record['started']}, took {seconds:.6g} s{after}"
    return [_finding(job, State.VERIFIED, text)]


def started(record: dict[str, Any]) -> float | None:
    """Return when a job started, in seconds since the epoch, or None where that is no time."""
    try:
        moment = datetime.fromisoformat(record["started"])
    except (KeyError, TypeError, ValueError):
        return None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def _number(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value) and value >= 0


def _by_clock(start: float) -> Iterator[str]:
    if start > time.time() + SLACK:
        yield f"started in the future: {_moment(start)}"


def _by_note(disk: Disk, notes: Notes, job: Job) -> Iterator[str]:
    """Compare a record with when Snakemake saw the job."""
    window, record = _window(notes, job), disk.record(job)
    assert not isinstance(record, ArtifactError)
    start, seconds = started(record), record["seconds"]
    assert start is not None
    if window is None:
        return
    if not window.start - SLACK <= start <= window.end + SLACK:
        yield (
            f"the record says that it started {_moment(start)}, Snakemake saw it from "
            f"{_moment(window.start)} to {_moment(window.end)}"
        )
    elif not record.get("resumed") and seconds > window.end - window.start + SLACK:
        took = window.end - window.start
        yield f"the record says that it took {seconds:.6g} s, Snakemake saw it for {took:.6g} s"


def _by_hand(disk: Disk, notes: Notes, job: Job, start: float) -> bool:
    """Return whether a job ran again after Snakemake saw it, and everything remained as it was."""
    assert job.folder is not None
    note, window = notes.of(job.folder / OUTPUTS[job.rule][0]), _window(notes, job)
    if not isinstance(note, dict) or window is None or start <= window.end + SLACK:
        return False
    stated = disk.section(job, "outputs")
    same = all(disk.sha256(job.folder / name) == stated.get(name) for name in OUTPUTS[job.rule])
    return same and (note.get("input_checksums") or {}) == disk.section(job, "inputs")


def _by_curve(disk: Disk, job: Job) -> Iterator[str]:
    """Compare the seconds of a training with those of its last pass."""
    if job.rule != "pretrain" or job.folder is None:
        return
    try:
        last = artifacts.read_jsonl(disk.root / job.folder / "training.jsonl")[-1]["seconds"]
    except (ArtifactError, LookupError, TypeError):
        return  # its bytes are checked elsewhere
    record = disk.record(job)
    assert not isinstance(record, ArtifactError)
    seconds = record["seconds"]
    if _number(last) and not last - _ROUNDING <= seconds <= last + _ROUNDING:
        yield f"the record says that it took {seconds:.6g} s, its training.jsonl says {last:.6g} s"


def _early(disk: Disk, notes: Notes, job: Job) -> Iterator[Finding]:
    """Look for inputs that were made only after the job had begun.

    That is right when they were lost and made again, with the same bytes; then Snakemake saw it.
    """
    record = disk.record(job)
    assert not isinstance(record, ArtifactError)
    start = started(record)
    assert start is not None
    for need in job.needs:
        before = disk.record(disk.jobs[need])
        end = None if isinstance(before, ArtifactError) else _end(before)
        if end is None or end <= start + SLACK:
            continue
        path = record_of(disk.jobs[need])
        text = f"started {_moment(start)}, but its input was made until {_moment(end)} ({path})"
        if _window(notes, job) and _window(notes, disk.jobs[need]):
            text += ": as Snakemake saw it, made again later with the same bytes"
            yield _finding(job, State.VERIFIED, text)
        else:
            text += ": made again later, or edited; no note of Snakemake tells which; "
            yield _finding(job, State.UNKNOWN, text + again(disk, job))


def _end(record: dict[str, Any]) -> float | None:
    """Return the earliest moment at which a job can have ended."""
    start, seconds = started(record), record.get("seconds")
    if start is None or not isinstance(seconds, int | float):
        return None
    return start if record.get("resumed") else start + seconds


def _window(notes: Notes, job: Job) -> Window | None:
    assert job.folder is not None
    return notes.window(job.folder / OUTPUTS[job.rule][0])


def _moment(seconds: float) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%SZ}"


def _finding(job: Job, state: State, text: str) -> Finding:
    return Finding("times", record_of(job).as_posix(), state, text)
