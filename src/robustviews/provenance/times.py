"""When jobs ran and for how long, by their records and by Snakemake's own window of each job."""

from __future__ import annotations

import math
from collections.abc import Iterator
from datetime import UTC, datetime

from robustviews.artifacts import ArtifactError, Record
from robustviews.provenance.checks import again
from robustviews.provenance.disk import Disk, record_of
from robustviews.provenance.findings import Finding, State
from robustviews.study.folders import OUTPUTS
from robustviews.study.jobs import Job
from robustviews.workflow.metadata import Notes, Window

SLACK = 60.0  # seconds by which clocks of a cluster's machines may differ


def check(disk: Disk, notes: Notes, job: Job) -> list[Finding]:
    """Check that a finished job ran in Snakemake's window of it, and after the jobs that it needs.

    Args:
        disk: files of the study.
        notes: Snakemake metadata.
        job: a computing one, with a record.
    """
    record = disk.record(job)
    if isinstance(record, ArtifactError):
        return []
    start, seconds, resumed = _started(record), record.get("seconds"), record.get("resumed", 0)
    if start is None or not _is_duration(seconds) or not _is_duration(resumed):
        text = f"no times: started {record.get('started')!r}, seconds {seconds!r}, resumed "
        return [_finding(job, State.FAILED, f"{text}{resumed!r}; {again(disk, job)}")]
    outside = _outside(_window(notes, job), start, None if resumed else record["seconds"])
    wrong = [(State.FAILED, text) for text in outside]
    wrong += [(State.UNKNOWN, text) for text in _early(disk, notes, job, start)]
    if wrong:
        return [_finding(job, state, f"{text}; {again(disk, job)}") for state, text in wrong]
    after = f", resumed {resumed} times" if resumed else ""
    text = f"started {record['started']}, took {seconds:.6g} s{after}"
    return [_finding(job, State.VERIFIED, text)]


def _outside(window: Window | None, start: float, seconds: float | None) -> Iterator[str]:
    """Yield how a job ran outside of its window; without `seconds` only its start counts."""
    if window is None:
        return
    if not window.start - SLACK <= start <= window.end + SLACK:
        saw = f"from {_moment(window.start)} to {_moment(window.end)}"
        yield f"the record says that it started {_moment(start)}, Snakemake saw it {saw}"
    elif seconds is not None and seconds > window.end - window.start + SLACK:
        took = window.end - window.start
        yield f"the record says that it took {seconds:.6g} s, Snakemake saw it for {took:.6g} s"


def _early(disk: Disk, notes: Notes, job: Job, start: float) -> Iterator[str]:
    """Yield the inputs that were made only after a job had started.

    Of an input that was lost and made again later with the same bytes Snakemake has a window.
    """
    for need in job.needs:
        before = disk.record(disk.jobs[need])
        made = None if isinstance(before, ArtifactError) else _started(before)
        if made is None or made <= start + SLACK or _window(notes, disk.jobs[need]):
            continue
        path = record_of(disk.jobs[need])
        yield f"it started {_moment(start)}, before its input, {_moment(made)} ({path})"


def _started(record: Record) -> float | None:
    """Return when a job started, in seconds since the epoch, or None where that is no time."""
    try:
        moment = datetime.fromisoformat(record["started"])
    except (KeyError, TypeError, ValueError):
        return None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def _is_duration(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value) and value >= 0


def _window(notes: Notes, job: Job) -> Window | None:
    assert job.folder is not None
    return notes.window(job.folder / OUTPUTS[job.rule][0])


def _moment(seconds: float) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%SZ}"


def _finding(job: Job, state: State, text: str) -> Finding:
    return Finding("times", record_of(job).as_posix(), state, text)
