"""The audit as a page: each cell of each table with the jobs behind it, and their findings.

One HTML page beside the report, without scripts or requests. Each cell of the report links here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from robustviews import commands
from robustviews.artifacts import Record
from robustviews.machine.humanize import duration
from robustviews.pages.rendering import environment
from robustviews.provenance.audit import Audit, JobAudit
from robustviews.provenance.disk import Disk
from robustviews.provenance.findings import Finding, State
from robustviews.reporting.tables.writers import number
from robustviews.study import cells as cells_of_tables
from robustviews.study.cells import Address
from robustviews.study.jobs import Job, Key
from robustviews.study.plan import Cell
from robustviews.study.schema import Study

NAME = "audit.html"
UNKNOWN = "unknown"


@dataclass(frozen=True)
class JobEntry:
    """One job, what its record states, and what the audit found."""

    job: Job
    record: Record
    audit: JobAudit

    @property
    def anchor(self) -> str:
        """The id of its entry."""
        return f"job-{self.job.rule}/{self.job.name}"

    @property
    def changed(self) -> str:
        """Whether sources differed from the commit, or may have; empty if they did not."""
        code = self.record.code
        if code.commit is None or code.dirty is False:
            return ""
        return "with uncommitted changes" if code.dirty else "changes unknown"

    @property
    def took(self) -> str:
        """Its duration, and how often it was resumed."""
        seconds, resumed = self.record.seconds, self.record.resumed
        if seconds is None:
            return UNKNOWN
        if resumed is None:
            return f"{duration(seconds)}, resumes {UNKNOWN}"
        return duration(seconds) + (f", resumed {resumed} times" if resumed else "")


@dataclass(frozen=True)
class Problem:
    """A finding that is not verified, and all jobs or files with this finding."""

    state: State
    check: str
    text: str
    subjects: tuple[str, ...]


@dataclass(frozen=True)
class CellEntry:
    """One cell, as the page shows it."""

    address: Address
    cell: Cell
    value: str
    state: State
    jobs: tuple[JobEntry, ...]
    findings: tuple[Finding, ...]
    problems: tuple[Problem, ...]


def render(study: Study, result: Audit, *, root: Path = Path()) -> str:
    """Return the page of an audit of all cells, given the project folder with the records.

    Its links are relative to results/<study>/audit.html.
    """
    disk = Disk(study, root)
    jobs = {
        key: JobEntry(disk.jobs[key], disk.stated(disk.jobs[key]), audit)
        for key, audit in result.jobs.items()
    }
    entries = [_cell(result, jobs, address, cell) for address, cell in cells_of_tables.every(study)]
    pages = environment(study)
    pages.filters["known"] = lambda value: UNKNOWN if value is None else value
    return pages.get_template("audit.html.j2").render(
        study=study,
        state_of_all=result.state,
        summary=summary(result),
        tables={
            name: [entry for entry in entries if entry.address.table == name]
            for name in study.tables
        },
        not_verified=[entry for entry in entries if entry.state is not State.VERIFIED],
        jobs=list(jobs.values()),
        problems=_problems(result.findings),
        verified=sum(finding.state is State.VERIFIED for finding in result.findings),
        remarks=result.remarks,
        mark=mark,
        study_option=study_option(study.file),
    )


def href(address: Address) -> str:
    """Return the link from the report to a cell's entry, whose id is the address."""
    return f"{NAME}#{quote(str(address), safe=':/')}"


def study_option(file: str) -> str:
    """Return the option by which commands find a study; empty for a path outside the project."""
    return (
        "" if Path(file).is_absolute() else commands.robustviews(file).removeprefix("robustviews")
    )


def mark(state: State) -> str:
    """Return the sign before a state, for readers who do not see its colour."""
    return {State.VERIFIED: "✓", State.UNKNOWN: "?", State.DOUBT: "?!", State.FAILED: "✗"}[state]


def summary(result: Audit) -> str:
    """Return the counts of an audit: `40 of 45 cells verified, 5 unknown`, and of the study."""
    counts = Counter(result.state_of(address) for address in result.cells)
    others = [f"{counts[state]} {state}" for state in State if state and counts[state]]
    verified = f"{counts[State.VERIFIED]} of {len(result.cells)} cells verified"
    general = Counter(finding.state for finding in result.findings)
    of_study = [f"{general[state]} {state}" for state in State if state and general[state]]
    cells = ", ".join([verified, *others])
    return f"{cells}; of the study as a whole: {', '.join(of_study)}" if of_study else cells


def _cell(result: Audit, jobs: dict[Key, JobEntry], address: Address, cell: Cell) -> CellEntry:
    audited = result.cells[address]
    chain = tuple(jobs[key] for key in audited.jobs)
    of_jobs = (finding for entry in chain for finding in entry.audit.findings)
    value = audited.value
    return CellEntry(
        address=address,
        cell=cell,
        value=UNKNOWN if value is None else f"{number(cell.measure, value)} {cell.measure.unit}",
        state=result.state_of(address),
        jobs=chain,
        findings=tuple(finding for finding in audited.findings if finding.state is State.VERIFIED),
        problems=_problems((*audited.findings, *of_jobs)),
    )


def _problems(findings: Iterable[Finding]) -> tuple[Problem, ...]:
    """Return what is not verified, the worst first; one problem for many files with one finding."""
    grouped: dict[tuple[State, str, str], list[str]] = {}
    for finding in findings:
        if finding.state is not State.VERIFIED:
            key = finding.state, finding.check, finding.text
            grouped.setdefault(key, []).append(finding.subject)
    problems = [Problem(*key, tuple(dict.fromkeys(names))) for key, names in grouped.items()]
    return tuple(sorted(problems, key=lambda problem: -problem.state))
