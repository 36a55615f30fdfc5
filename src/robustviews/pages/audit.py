"""The audit as a page: each cell of each table with the jobs behind it, and what was seen of them.

One page without script or request, beside the report, whose cells link to their entries here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from robustviews import commands
from robustviews.artifacts import ArtifactError
from robustviews.machine.humanize import duration
from robustviews.pages.rendering import environment
from robustviews.provenance.audit import Audit
from robustviews.provenance.disk import Disk, record_of
from robustviews.provenance.findings import Finding, State
from robustviews.reporting.tables.writers import minutes, percent
from robustviews.study import cells as cells_of_tables
from robustviews.study.cells import Address
from robustviews.study.jobs import Job, Key
from robustviews.study.plan import Cell
from robustviews.study.schema import Study

NAME = "audit.html"
UNKNOWN = "unknown"
_SHOWN = 12  # hexadecimal digits that tell a hash from others
_COMMIT = 7


@dataclass(frozen=True)
class File:
    """A file and its hash in hexadecimal."""

    path: str
    hash: str

    @property
    def name(self) -> str:
        """Its name without folders."""
        return self.path.rpartition("/")[2]

    @property
    def short(self) -> str:
        """Enough of the hash to tell it from others."""
        return self.hash[:_SHOWN]


@dataclass(frozen=True)
class JobEntry:
    """One job, as the page shows it; what no record says is `unknown`.

    Attributes:
        key: rule and name.
        anchor: id of its entry.
        state: what the audit came to.
        record: path of its record; empty where there is none.
        seed: of its randomness; empty for data, which have none.
        device: that it ran on; empty for data.
        commit: of the code, in full.
        changed: said where sources differed from the commit, or may have.
        digest: of the code that decides it.
        started: when.
        took: for how long, and how often it was resumed.
        inputs: files that it read.
        outputs: files that it wrote.
        findings: of the audit.
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

    @property
    def short_commit(self) -> str:
        """Enough of the commit to tell it from others."""
        return self.commit if self.commit == UNKNOWN else self.commit[:_COMMIT]


@dataclass(frozen=True)
class Problem:
    """What is not verified, and of how many jobs or files it was seen."""

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
    asked: str
    value: str
    state: State
    jobs: tuple[JobEntry, ...]
    findings: tuple[Finding, ...]
    problems: tuple[Problem, ...]


def render(study: Study, seen: Audit, *, root: Path = Path()) -> str:
    """Write the page of an audit.

    Args:
        study: that was audited.
        seen: what the audit saw, of all cells.
        root: project folder, whose records are shown.

    Returns:
        HTML, to be written to results/<study>/audit.html, where its relative links lead somewhere.
    """
    disk = Disk(study, root)
    jobs = {key: _job(disk, seen, disk.jobs[key]) for key in seen.jobs}
    entries = [_cell(seen, jobs, *each) for each in cells_of_tables.every(study)]
    return (
        environment(study)
        .get_template("audit.html.j2")
        .render(
            study=study,
            state_of_all=seen.state,
            said=summary(seen),
            tables={
                name: [entry for entry in entries if entry.address.table == name]
                for name in study.tables
            },
            troubled=[entry for entry in entries if entry.state is not State.VERIFIED],
            jobs=list(jobs.values()),
            problems=_problems(seen.findings),
            sound=sum(finding.state is State.VERIFIED for finding in seen.findings),
            remarks=seen.remarks,
            mark=mark,
            own=naming(study.file),
        )
    )


def anchor(address: Address) -> str:
    """Return the id of a cell's entry; the names in an address hold nothing that an id may not."""
    return str(address)


def href(address: Address) -> str:
    """Return the link from the report to a cell's entry."""
    return f"{NAME}#{quote(anchor(address), safe=':/')}"


def naming(file: str) -> str:
    """Return what commands need to find a study; of a path of this machine nothing is told."""
    return (
        "" if Path(file).is_absolute() else commands.robustviews(file).removeprefix("robustviews")
    )


def mark(state: State) -> str:
    """Return the sign that stands before a state, so that colour does not tell it alone."""
    return {State.VERIFIED: "✓", State.UNKNOWN: "?", State.FAILED: "✗"}[state]


def summary(seen: Audit) -> str:
    """Say what an audit came to: `40 of 45 cells verified, 5 unknown`."""
    counts = Counter(seen.state_of(address) for address in seen.cells)
    others = [
        f"{counts[state]} {state}" for state in (State.UNKNOWN, State.FAILED) if counts[state]
    ]
    first = f"{counts[State.VERIFIED]} of {len(seen.cells)} cells verified"
    return ", ".join([first, *others])


def _cell(seen: Audit, jobs: dict[Key, JobEntry], address: Address, cell: Cell) -> CellEntry:
    found = seen.cells[address]
    chain = tuple(jobs[key] for key in found.jobs)
    told = (finding for job in chain for finding in job.findings)
    return CellEntry(
        address=address,
        anchor=anchor(address),
        label=cell.label,
        asked=cell.measure.label,
        value=_value(cell, found.value),
        state=seen.state_of(address),
        jobs=chain,
        findings=tuple(each for each in found.findings if each.state is State.VERIFIED),
        problems=_problems((*found.findings, *told)),
    )


def _value(cell: Cell, value: float | None) -> str:
    if value is None:
        return UNKNOWN
    return f"{minutes(value)} minutes" if cell.attack is None else f"{percent(value)} %"


def _problems(findings: Iterable[Finding]) -> tuple[Problem, ...]:
    """Return what is not verified, the worst first; what was seen of many files once."""
    grouped: dict[tuple[State, str, str], list[str]] = {}
    for finding in findings:
        if finding.state is not State.VERIFIED:
            key = finding.state, finding.check, finding.text
            grouped.setdefault(key, []).append(finding.subject)
    found = [Problem(*key, tuple(dict.fromkeys(names))) for key, names in grouped.items()]
    return tuple(sorted(found, key=lambda problem: -problem.state))


def _job(disk: Disk, seen: Audit, job: Job) -> JobEntry:
    record = disk.record(job)
    there = not isinstance(record, ArtifactError)
    code, surroundings = disk.section(job, "code"), disk.section(job, "environment")
    said = {} if isinstance(record, ArtifactError) else record
    data = job.rule == "data"
    folder = record_of(job).parent.as_posix()
    return JobEntry(
        key=job.key,
        anchor=f"job-{job.rule}/{job.name}",
        state=seen.jobs[job.key].state,
        record=record_of(job).as_posix() if there else "",
        seed="" if data else _said(said.get("seed")),
        device="" if data else _said(surroundings.get("device")),
        commit=_said(code.get("commit")),
        changed=_changed(code.get("commit"), code.get("dirty")),
        digest=_said(code.get("digest")),
        started=_said(said.get("started")),
        took=_took(said.get("seconds"), said.get("resumed")),
        inputs=tuple(_files(disk.section(job, "inputs"), "")),
        outputs=tuple(_files(disk.section(job, "outputs"), f"{folder}/")),
        findings=seen.jobs[job.key].findings,
    )


def _files(hashes: dict[str, object], folder: str) -> Iterator[File]:
    for name, digest in sorted(hashes.items()):
        yield File(folder + name, str(digest).removeprefix("sha256:"))


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


def _said(value: object) -> str:
    return UNKNOWN if value is None else str(value)
