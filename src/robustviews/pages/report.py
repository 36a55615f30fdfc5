"""The report: all results of a study on one HTML page, without scripts or requests."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from robustviews import sanity
from robustviews.pages import audit, pictures
from robustviews.pages.graph import graph
from robustviews.pages.overview import overview
from robustviews.pages.rendering import environment
from robustviews.reporting.claims import LEGEND
from robustviews.reporting.tables import CellValue, Evidence, TableData
from robustviews.reporting.tables.writers import cell_text, minutes, number
from robustviews.study import plan
from robustviews.study.differences import leaves, plain
from robustviews.study.jobs import Job, Key, jobs

if TYPE_CHECKING:
    from robustviews.artifacts import Record
    from robustviews.provenance.audit import Audit
    from robustviews.provenance.findings import State
    from robustviews.reporting.outcomes import Outcome
    from robustviews.reporting.results import Result
    from robustviews.study.columns import Column
    from robustviews.study.schema import Study


@dataclass(frozen=True)
class Entry:
    """One run or imported encoder: its options, and its jobs, one per data set and seed."""

    name: str
    label: str
    summary: str
    options: list[tuple[str, str]]
    jobs: list[dict[str, str]]


@dataclass(frozen=True)
class Audited:
    """Result of the audit for a cell or for all cells, with a link to its full text."""

    state: State
    text: str
    href: str
    study_option: str = ""  # by which commands find the study

    @property
    def mark(self) -> str:
        """A sign, for readers who do not see the colour."""
        return audit.mark(self.state)


def render(
    study: Study,
    frame: list[Result],
    *,
    tables: Mapping[str, TableData],
    figures: Mapping[str, bytes],
    records: Mapping[str, Record],
    audited: Audit,
    claims: Sequence[Outcome] = (),
    gaps: bytes | None = None,
    curves: bytes | None = None,
    adversarial: Mapping[str, bytes] | None = None,
    examples: bytes | None = None,
) -> str:
    """Render the report.

    Args:
        study: the study to report.
        frame: its results.
        tables: by name, in the order in which they appear.
        figures: SVG or PNG of each figure of the study, by name.
        records: of all jobs, by path relative to the project, from `results.records`.
        audited: audit of all cells.
        claims: outcomes of the claims of the study.
        gaps: SVG or PNG of the advantages of the rows that claims compare.
        curves: SVG or PNG of the training curves.
        adversarial: SVG or PNG of the adversarial images of each task.
        examples: SVG or PNG of the example views.

    Returns:
        HTML for results/<study>/report.html; its links are relative to this path.
    """
    pages, every = environment(study), jobs(study)
    pages.filters |= {
        "cell_text": cell_text,
        "evidence": _evidence_text,
        "hover": _hover,
        "minus": lambda text: text.replace("-", "\N{MINUS SIGN}"),
    }
    return pages.get_template("report.html.j2").render(
        study=study,
        audit=Audited(
            audited.state, audit.summary(audited), audit.NAME, audit.study_option(study.file)
        ),
        audits=_audits(study, audited),
        facts=_facts(every, frame, records),
        overview=overview(study, tables, claims),
        graph=graph(study, every, records),
        tables=tables,
        claims=claims,
        claims_legend=LEGEND,
        gaps=gaps and pictures.single("gaps", gaps),
        figures=[pictures.of_figure(study, name, data) for name, data in figures.items()],
        curves=curves and pictures.single("curves", curves),
        adversarial=[
            pictures.adversarial(study, task, data) for task, data in (adversarial or {}).items()
        ],
        examples=examples and pictures.single("examples", examples),
        examined=_examined(study, every, records),
        entries=_entries(study, every, records),
        protocols=_protocols(every.values()),
        environments=_environments(records),
    )


def _audits(study: Study, audited: Audit) -> dict[tuple[str, str, int], Audited]:
    """Return the result of the audit for each cell, by table, row and number of the column."""
    return {
        (address.table, address.row, study.tables[address.table].columns.index(address.column)): (
            Audited(audited.state_of(address), str(audited.state_of(address)), audit.href(address))
        )
        for address in audited.cells
    }


def _facts(
    planned: Iterable[Key], frame: list[Result], records: Mapping[str, Record]
) -> dict[str, str]:
    """Return the size of the study in a few numbers."""
    stages = [record.stage for record in records.values()]
    devices = sorted({result["device"] for result in frame})
    seconds = sum(record.seconds or 0 for record in records.values())
    rules = [rule for rule, _ in planned]
    counts = {
        "Pretrainings": "pretrain",
        "Encoders imported": "encoder",
        "Probes trained": "probe",
        "Attacks run": "attack",
    }
    return {
        **{
            text: f"{stages.count(rule)} of {rules.count(rule)}"
            for text, rule in counts.items()
            if rule in rules
        },
        "Work": f"{seconds / 3600:.1f} hours"
        if seconds >= 3600
        else f"{minutes(seconds / 60)} minutes",
        **({"Pretrained on": "; ".join(devices) or "nothing yet"} if "pretrain" in rules else {}),
    }


def _examined(
    study: Study, every: Mapping[Key, Job], records: Mapping[str, Record]
) -> list[tuple[str, dict[str, str]]]:
    """Return, for each checked head, how many images attacks leave and which checks it fails."""
    lines = []
    for job in every.values():
        record = records.get(job.record.as_posix()) if job.rule == "sanity" else None
        for probe, head in record.result.items() if record else ():
            left = sanity.described(head["measures"], study.sanity)
            faults = ", ".join(head["failed"]) or "none"
            lines.append((f"{job.name} / {probe}", left | {"failed checks": faults}))
    return lines


def _entries(study: Study, every: Mapping[Key, Job], records: Mapping[str, Record]) -> list[Entry]:
    groups: dict[str, list[Job]] = {}
    for pretraining in plan.pretrainings(study).values():
        job = every["pretrain", pretraining.name]
        groups.setdefault(pretraining.entry, []).append(job)
    groups |= {name: [every["encoder", name]] for name in plan.encoders(study)}
    return [
        Entry(
            name=name,
            label=plan.label(study, name),
            summary=_summary(made_by),
            options=_flat(made_by[0].spec["run" if name in study.runs else "imported"]),
            jobs=[_job(job, records) for job in made_by],
        )
        for name, made_by in groups.items()
    ]


def _summary(trainings: list[Job]) -> str:
    """Return what made an encoder, in a few words."""
    run = trainings[0].spec.get("run")
    if run is None:
        return "imported"
    count = f"{len(trainings)} training{'s' if len(trainings) > 1 else ''}"
    return f"{run['method']['kind']}, {run['regime']['kind']}, {run['epochs']} epochs, {count}"


def _job(job: Job, records: Mapping[str, Record]) -> dict[str, str]:
    path, seed = job.record.as_posix(), str(job.spec.get("seed", ""))
    record = records.get(path)
    if record is None:
        return {"name": job.name, "seed": seed, "record": ""}
    loss = record.result.get("loss")
    code = record.code
    commit = (code.commit or "no commit")[:7] + (" (changed)" if code.dirty else "")
    return {
        "name": job.name,
        "seed": seed,
        "record": path,
        "minutes": minutes((record.seconds or 0) / 60),
        "loss": f"{loss:.4g}" if isinstance(loss, int | float) else "",
        "device": record.environment.get("device") or "unknown",
        "started": record.started or "unknown",
        "resumed": "unknown" if record.resumed is None else str(record.resumed),
        "code": f"{code.digest}, {commit}",
    }


def _protocols(every: Iterable[Job]) -> dict[str, list[tuple[str, str]]]:
    """Return the options of each probe, attack and data set that some job used."""
    titles = {"probe": "Probe", "attack": "Attack", "data": "Data set"}
    options: dict[str, list[tuple[str, str]]] = {}
    for job in every:
        if job.rule in titles:
            part = "dataset" if job.rule == "data" else job.rule
            name = job.name.rpartition("-")[0] if job.rule == "data" else job.parts[-1]
            options.setdefault(f"{titles[job.rule]} {name}", _flat(job.spec[part]))
    return options


def _environments(records: Mapping[str, Record]) -> list[tuple[int, list[tuple[str, str]]]]:
    """Return the number of jobs and the options of each environment."""
    counts = Counter(json.dumps(one.environment, sort_keys=True) for one in records.values())
    return [(count, _flat(json.loads(key))) for key, count in counts.items()]


def _flat(options: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return nested options as (dotted name, value)."""
    return [(".".join(names), plain(value)) for names, value in leaves(options)]


def _evidence_text(evidence: Evidence, column: Column) -> str:
    """Return the result of one run in one line."""
    if evidence.low is None or evidence.high is None:
        return f"{minutes(evidence.value)} minutes on {evidence.device}"
    value, low, high = (
        number(column, end) for end in (evidence.value, evidence.low, evidence.high)
    )
    return f"{value} {column.unit} ({low} to {high}), n = {evidence.n:,}, {evidence.device}"


def _hover(cell: CellValue) -> str:
    return "\n".join(f"{one.run}: {_evidence_text(one, cell.column)}" for one in cell.evidence)
