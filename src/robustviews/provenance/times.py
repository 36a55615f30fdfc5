"""Checks of when jobs ran and for how long, by their records and by Snakemake metadata."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

from robustviews.provenance.checks import force_rerun
from robustviews.provenance.disk import Disk
from robustviews.provenance.findings import Finding, failed, unknown, verified
from robustviews.study.jobs import Job
from robustviews.workflow.metadata import ProjectMetadata, Window

SLACK = 60.0  # seconds by which the clocks of a cluster's machines may differ


def check(disk: Disk, metadata: ProjectMetadata, job: Job) -> list[Finding]:
    """Check that a job with a record ran when its metadata says, and after the jobs it needs."""
    record = disk.stated(job)
    start, resumed = record.start, record.resumed or 0
    assert start is not None
    assert record.seconds is not None
    window = metadata.window(job.writes[0])
    outside = _outside(window, start, None if resumed else record.seconds)
    path, fix = job.record, force_rerun(disk, job)
    problems = [failed("times", path, f"{text}; {fix}") for text in outside]
    early = _early(disk, metadata, job, start)
    problems += [unknown("times", path, f"{text}; {fix}") for text in early]
    after = f", resumed {resumed} times" if resumed else ""
    text = f"started {record.started}, took {record.seconds:.6g} s{after}"
    return problems or [verified("times", path, text)]


def _outside(window: Window | None, start: float, seconds: float | None) -> Iterator[str]:
    """Yield how a job ran outside its window; without `seconds` only the start counts."""
    if window is None:
        return
    if not window.start - SLACK <= start <= window.end + SLACK:
        period = f"from {_moment(window.start)} to {_moment(window.end)}"
        yield f"its record says it started {_moment(start)}, Snakemake metadata says {period}"
    elif seconds is not None and seconds > window.end - window.start + SLACK:
        limit = f"{window.end - window.start:.6g} s"
        yield f"its record says it took {seconds:.6g} s, Snakemake metadata says {limit}"


def _early(disk: Disk, metadata: ProjectMetadata, job: Job, start: float) -> Iterator[str]:
    """Yield the inputs that were made after a job had started.

    An input with a window is allowed: it may have been lost and made again with the same bytes.
    """
    for need in job.needs:
        upstream = disk.jobs[need]
        started = disk.stated(upstream).start
        if started is None or started <= start + SLACK or metadata.window(upstream.writes[0]):
            continue
        yield (
            f"it started {_moment(start)}, before its input, {_moment(started)} ({upstream.record})"
        )


def _moment(seconds: float) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%SZ}"
