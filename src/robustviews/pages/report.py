"""The report: all results of a study on one HTML page, without scripts or requests."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from robustviews import sanity
from robustviews.pages import audit
from robustviews.pages.graph import graph
from robustviews.pages.overview import overview
from robustviews.pages.rendering import environment
from robustviews.reporting.claims import LEGEND
from robustviews.reporting.tables import CellValue, Evidence, TableData
from robustviews.reporting.tables.writers import cell_text, distinct, minutes, number
from robustviews.study import folders, plan
from robustviews.study.jobs import Job, Key, jobs

if TYPE_CHECKING:
    from robustviews.artifacts import Record
    from robustviews.provenance.audit import Audit
    from robustviews.provenance.findings import State
    from robustviews.reporting.outcomes import Outcome
    from robustviews.reporting.results import Result
    from robustviews.study.columns import Column
    from robustviews.study.schema import Study

PNG = b"\x89PNG"


@dataclass(frozen=True)
class Picture:
    """An image of the page.

    Attributes:
        uri: the image itself, as a data URI.
        alt: description for people who do not see it.
        title: what a screen reader calls it; sighted readers see it in the picture or above.
        text: caption.
        href: file of the same drawing, relative to the report; empty if there is none.
    """

    uri: str
    alt: str
    title: str
    text: str
    href: str = ""


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
        figures=[_figure(study, name, data) for name, data in figures.items()],
        curves=curves and _curves(curves),
        adversarial=[_adversarial(study, task, data) for task, data in (adversarial or {}).items()],
        examples=examples and _examples(examples),
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
    counts: dict[str, int] = {}
    for record in records.values():
        key = json.dumps(record.environment, sort_keys=True)
        counts[key] = counts.get(key, 0) + 1
    return [(count, _flat(json.loads(key))) for key, count in counts.items()]


def _flat(options: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Return nested options as (dotted name, value)."""
    lines = []
    for name, value in options.items():
        if isinstance(value, Mapping):
            lines += _flat(value, f"{prefix}{name}.")
        else:
            lines.append((prefix + name, value if isinstance(value, str) else json.dumps(value)))
    return lines


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


_CLASSIFIED = (
    "Two test images for each row of the main table (first seed): clean, adversarial, and the "
    "perturbation times 10 on grey. Above each image: the predicted class and its probability; "
    "a cross marks a wrong prediction."
)
_DENSE = (
    "Two test images for each row of the task's first table (first seed): the image with its "
    "labels, the network's answer, the attacked image, and the answer about it. Boxes have a score "
    "of .3 or more."
)


def _figure(study: Study, name: str, data: bytes) -> Picture:
    figure = study.figures[name]
    rows = ", ".join(row.label or plan.label(study, row.run) for row in figure.rows.values())
    alt = f"{figure.kind} of {', '.join(figure.columns)} for {rows}; the numbers are in frame.csv"
    text = " ".join(
        filter(None, (figure.source and f"Corresponds to {figure.source}.", figure.note))
    )
    return Picture(_uri(data), alt, figure.title, text, f"figures/{name}.svg")


def _curves(data: bytes) -> Picture:
    text = (
        "Training loss of every run. One panel per method, because losses of different methods are "
        "not comparable."
    )
    return Picture(
        _uri(data),
        "loss over epochs, one panel per method and one line per run, from their training.jsonl",
        "Training loss of every run",
        text,
    )


def _adversarial(study: Study, task: str, data: bytes) -> Picture:
    rows = ", ".join(distinct(plan.examples(study)[task]))
    dense = task != "classification"
    what = "answers about them" if dense else "perturbations"
    return Picture(
        _uri(data),
        f"clean test images, adversarial images and {what}, one line per network: {rows}",
        f"Adversarial images of {task}" if dense else "Adversarial images",
        _DENSE if dense else _CLASSIFIED,
        f"{folders.pictures(task)}.svg",
    )


def _examples(data: bytes) -> Picture:
    return Picture(
        _uri(data),
        "images, their views, the views after an attack, and the perturbation amplified on grey",
        "Views that an encoder sees",
        "An image, its views, the views after an attack, and the perturbation, amplified.",
        "examples/views.png",
    )


def _uri(data: bytes) -> str:
    kind = "png" if data.startswith(PNG) else "svg+xml"
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
