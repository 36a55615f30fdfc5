"""The audit as a page: each cell of each table with the jobs behind it, and their findings.

One HTML page beside the report, without scripts or requests. Each cell of the report links here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from robustviews import commands
from robustviews.machine.humanize import duration
from robustviews.pages.rendering import environment
from robustviews.provenance.audit import Audit
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
class File:
    """A file and its hash in hexadecimal."""

    path: str
    hash: str


@dataclass(frozen=True)
class JobEntry:
    """One job, as the page shows it; a value that no record states is `unknown`.

    Attributes:
        key: rule and name.
        anchor: id of its entry.
        state: result of its audit.
        record: path of its record; empty if there is none.
        seed: seed of the job; empty for data, which have none.
        device: device that it ran on; empty for data.
        commit: commit of the code, in full.
        changed: text if sources differed from the commit, or may have; else empty.
        digest: digest of the code that decides its result.
        started: start time.
        took: duration, and how often it was resumed.
        inputs: files that it read.
        outputs: files that it wrote.
        findings: findings of the audit.
    """

    key: Key
    anchor: str
    state: State
    record: str
    seed: str
    device: str
    commit: str
    changed: str
    digest: str
    started: str
    took: str
    inputs: tuple[File, ...]
    outputs: tuple[File, ...]
    findings: tuple[Finding, ...]


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
    anchor: str
    label: str
    column: str
    value: str
    state: State
    jobs: tuple[JobEntry, ...]
    findings: tuple[Finding, ...]
    problems: tuple[Problem, ...]


def render(study: Study, result: Audit, *, root: Path = Path()) -> str:
    """Render the page of an audit.

    Args:
        study: the audited study.
        result: audit of all cells.
        root: project folder, which holds the records.

    Returns:
        HTML for results/<study>/audit.html; its links are relative to this path.
    """
    disk = Disk(study, root)
    jobs = {key: _job(disk, result, disk.jobs[key]) for key in result.jobs}
    entries = [_cell(result, jobs, address, cell) for address, cell in cells_of_tables.every(study)]
    return (
        environment(study)
        .get_template("audit.html.j2")
        .render(
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
    )


def anchor(address: Address) -> str:
    """Return the id of a cell's entry; an address holds only characters that an id may hold."""
    return str(address)


def href(address: Address) -> str:
    """Return the link from the report to a cell's entry."""
    return f"{NAME}#{quote(anchor(address), safe=':/')}"


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
    of_jobs = (finding for job in chain for finding in job.findings)
    return CellEntry(
        address=address,
        anchor=anchor(address),
        label=cell.label,
        column=cell.measure.label,
        value=_value(cell, audited.value),
        state=result.state_of(address),
        jobs=chain,
        findings=tuple(finding for finding in audited.findings if finding.state is State.VERIFIED),
        problems=_problems((*audited.findings, *of_jobs)),
    )


def _value(cell: Cell, value: float | None) -> str:
    if value is None:
        return UNKNOWN
    return f"{number(cell.measure, value)} {cell.measure.unit}"


def _problems(findings: Iterable[Finding]) -> tuple[Problem, ...]:
    """Return what is not verified, the worst first; one problem for many files with one finding."""
    grouped: dict[tuple[State, str, str], list[str]] = {}
    for finding in findings:
        if finding.state is not State.VERIFIED:
            key = finding.state, finding.check, finding.text
            grouped.setdefault(key, []).append(finding.subject)
    problems = [Problem(*key, tuple(dict.fromkeys(names))) for key, names in grouped.items()]
    return tuple(sorted(problems, key=lambda problem: -problem.state))


def _job(disk: Disk, result: Audit, job: Job) -> JobEntry:
    record = disk.stated(job)
    code = record.code
    is_data = job.rule == "data"
    folder = job.record.parent.as_posix()
    return JobEntry(
        key=job.key,
        anchor=f"job-{job.rule}/{job.name}",
        state=result.jobs[job.key].state,
        record=job.record.as_posix() if record.stage else "",
        seed="" if is_data else _text(record.seed),
        device="" if is_data else _text(record.environment.get("device")),
        commit=_text(code.commit),
        changed=_changed(code.commit, code.dirty),
        digest=_text(code.digest),
        started=_text(record.started),
        took=_took(record.seconds, record.resumed),
        inputs=tuple(_files(record.inputs, "")),
        outputs=tuple(_files(record.outputs, f"{folder}/")),
        findings=result.jobs[job.key].findings,
    )


def _files(hashes: dict[str, str], folder: str) -> Iterator[File]:
    for name, digest in sorted(hashes.items()):
        yield File(folder + name, digest.removeprefix("sha256:"))


def _changed(commit: object, dirty: object) -> str:
    if commit is None or dirty is False:
        return ""
    return "with uncommitted changes" if dirty else "changes unknown"


def _took(seconds: object, resumed: object) -> str:
    if not isinstance(seconds, int | float):
        return UNKNOWN
    if not isinstance(resumed, int):
        return f"{duration(seconds)}, resumes {UNKNOWN}"
    return duration(seconds) + (f", resumed {resumed} times" if resumed else "")


def _text(value: object) -> str:
    return UNKNOWN if value is None else str(value)
