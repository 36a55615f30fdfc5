"""The study's graph of jobs for the report: one line per run, one box per stage, with durations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from robustviews.machine.humanize import duration
from robustviews.study import networks, plan

if TYPE_CHECKING:
    from robustviews.artifacts import Record
    from robustviews.study.jobs import Job, Key
    from robustviews.study.schema import Study

STAGES = ("pretrain", "probe", "attack", "sanity")


@dataclass(frozen=True)
class Box:
    """The jobs of one run in one stage.

    Attributes:
        done: finished jobs.
        planned: all jobs; 0 if the run has none in this stage.
        took: their time together, such as `2.5 s`; empty if none is finished.
        share: that time as a share of the longest box of the study.
    """

    done: int
    planned: int
    took: str
    share: float

    @property
    def text(self) -> str:
        """Number of jobs and their time."""
        jobs = f"{self.planned} job{'s' if self.planned != 1 else ''}"
        done = "" if self.done == self.planned else f", {self.done} done"
        return f"{jobs}{done}{f', {self.took}' if self.took else ''}"


@dataclass(frozen=True)
class Graph:
    """The graph of a study.

    Attributes:
        stages: from left to right.
        lines: boxes of each run, by its label.
        data: jobs that prepare data sets.
        reporting: jobs that write tables, figures and pages.
    """

    stages: tuple[str, ...]
    lines: tuple[tuple[str, tuple[Box, ...]], ...]
    data: int
    reporting: int


def graph(study: Study, every: Mapping[Key, Job], records: Mapping[str, Record]) -> Graph:
    """Return the graph of a study, given its jobs and the records of finished ones, by path."""
    groups: dict[tuple[str, str], list[Job]] = {}
    entries = {name: name for name in plan.encoders(study)}
    entries |= {name: one.entry for name, one in plan.pretrainings(study).items()}
    entries |= {name: one.entry for name, one in plan.networks(study).items()}
    for job in every.values():
        stage = "pretrain" if job.rule == "encoder" else job.rule  # a network is there
        if stage in STAGES:
            groups.setdefault((entries[networks.examined(job.name)], stage), []).append(job)
    seconds = {key: _seconds(jobs, records) for key, jobs in groups.items()}
    longest = max((sum(times) for times in seconds.values()), default=0.0)

    def box(entry: str, stage: str) -> Box:
        times = seconds.get((entry, stage), [])
        return Box(
            len(times),
            len(groups.get((entry, stage), [])),
            duration(sum(times)) if times else "",
            min(1.0, sum(times) / longest) if longest else 0.0,
        )

    shown = dict.fromkeys(entries.values())
    return Graph(
        STAGES,
        tuple((plan.label(study, e), tuple(box(e, stage) for stage in STAGES)) for e in shown),
        sum(job.rule == "data" for job in every.values()),
        sum(job.folder is None for job in every.values()),
    )


def _seconds(jobs: list[Job], records: Mapping[str, Record]) -> list[float]:
    """Return the duration of each finished job."""
    found = (records.get(job.record.as_posix()) for job in jobs)
    return [record.seconds or 0.0 for record in found if record is not None]
