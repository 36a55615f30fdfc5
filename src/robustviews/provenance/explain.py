"""How a cell was made and how it compares: jobs, options, findings, verdict, commands to repeat."""

from __future__ import annotations

import json
import shlex
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from robustviews import commands, sanity
from robustviews.artifacts import ArtifactError, Record
from robustviews.provenance.audit import audit
from robustviews.provenance.disk import Disk
from robustviews.provenance.findings import State
from robustviews.provenance.history import History
from robustviews.reporting import results
from robustviews.reporting.tables import words
from robustviews.study import cells, folders
from robustviews.study.cells import Address
from robustviews.study.differences import plain
from robustviews.study.jobs import Job
from robustviews.study.plan import Cell
from robustviews.study.schema import Study
from robustviews.tasks.classification import CLASSIFICATION

_TITLES = {
    "data": "The data set is prepared",
    "encoder": "The encoder is imported",
    "pretrain": "The encoder is pretrained",
    "probe": "A head is trained on the frozen encoder",
    "tune": "The encoder is trained further, with a head",
    "attack": "The classifier is attacked",
    "sanity": "The attack is checked",
}
_SHOWN = ("seed", "code", "commit", "environment", "lock", "times")  # checks shown if verified too
_LINE = 100  # characters


def explain(study: Study, text: str, *, root: Path = Path()) -> str:
    """Explain how TABLE:ROW:COLUMN was made, how it compares, and how to make it again.

    Raises:
        CellError: there is no such cell.
    """
    address, cell = cells.find(study, text)
    result = audit(study, root, cells=[address])
    disk, chain = Disk(study, root), cells.chain(study, cell)
    value = result.cells[address].findings[0].text
    lines = [f"{address}: {result.state_of(address)}", *_wrapped(_cell(study, cell, value))]
    for jobs in _steps(chain):
        lines += ["", _TITLES[jobs[0].snakemake_rule]]
        for name, options in _options(jobs[0].spec, jobs[0].rule):
            lines += _wrapped(f"{name}: {options}")
        for job in jobs:
            lines += _wrapped(f"{' '.join(job.key)}: {result.jobs[job.key].state}")
            lines += _wrapped(_withstood(study, cell, disk.stated(job), job))
            for finding in result.jobs[job.key].findings:
                if finding.check in _SHOWN or finding.state is not State.VERIFIED:
                    lines += _wrapped(f"  {finding.check}: {finding.text}")
    lines += ["", "How it compares with the paper"]
    for line in _compared(study, address, cell, root):
        lines += _wrapped(line)
    head = History(root).head
    lines += ["", "To make it again with Snakemake:"]
    lines += [f"  {line}" for line in _by_snakemake(disk, address, chain, head)]
    lines += ["", "Or by hand, which writes no Snakemake metadata:"]
    lines += [f"  {line}" for line in _by_hand(disk, address, chain, head)]
    check = commands.robustviews(study.file, "audit", "--cell", address)
    return "\n".join([*lines, "", f"To check it: {check}", ""])


def _cell(study: Study, cell: Cell, value: str) -> str:
    """Describe a cell, and how its number follows from its runs."""
    source = f"`{cell.measure.flag}` in {folders.FLAGS}"
    by_class = study.datasets[cell.dataset].accuracy == "mean_per_class"
    share = "the mean over classes of the share" if by_class else "the share"
    quantity = f"accuracy, {share} of ones in {source} of {cell.attack}"
    task = study.probes[cell.probe].task
    if task is not CLASSIFICATION:
        quantity = f"{cell.measure.score or task.metrics[0]} of {source} of {cell.attack}"
    if cell.measure.statistic:
        quantity = f"{cell.measure.statistic}, of all `eps_...` in {folders.FLAGS} of {cell.attack}"
    if cell.attack is None:
        quantity = "minutes of pretraining, `seconds` of its record / 60"
    seeds = f"mean over seeds {list(cell.seeds)}"
    return f"{cell.label} on {cell.dataset}: {quantity}; {seeds}: {value}"


def _withstood(study: Study, cell: Cell, record: Record, job: Job) -> str:
    """Return how much the attacks of the sanity checks leave; empty for other jobs."""
    head = record.result.get(cell.probe) if job.rule == "sanity" else None
    if head is None:
        return ""
    left = sanity.described(head["measures"], study.sanity).items()
    counts = "; ".join(f"{attack}: {count}" for attack, count in left)
    of = "images " if study.probes[cell.probe].task is CLASSIFICATION else ""
    return f"  {of}left at {study.sanity.eps:g}/255: {counts}"


def _compared(study: Study, address: Address, cell: Cell, root: Path) -> Iterator[str]:
    """Yield lines on published value, spread, margin, verdict and switches of a cell."""
    try:
        rows = results.frame(study, root, blocks=[study.tables[address.table]], partial=True)
    except ArtifactError as error:
        yield f"not compared: {str(error).partition(chr(10))[0]}; see the findings above"
        return
    yield from words.describe(study, address.table, cell, rows)


def _steps(chain: list[Job]) -> list[list[Job]]:
    """Return the jobs of a chain, grouped if they differ only in seed or run."""
    steps: dict[str, list[Job]] = {}
    for job in chain:
        spec = {name: value for name, value in job.spec.items() if name != "seed"}
        steps.setdefault(job.rule + json.dumps(spec, sort_keys=True), []).append(job)
    return list(steps.values())


def _options(spec: Mapping[str, Any], name: str) -> Iterator[tuple[str, str]]:
    """Yield the options of a job as (block, text), defaults included."""
    own = [
        f"{key} {plain(value)}"
        for key, value in spec.items()
        if key not in ("seed", "code") and not isinstance(value, Mapping)
    ]
    if own:
        yield name, ", ".join(own)
    for key, value in spec.items():
        if isinstance(value, Mapping):
            yield from _options(value, key)


def _by_snakemake(
    disk: Disk, address: Address, chain: list[Job], head: str | None
) -> Iterator[str]:
    """Yield commands that make the jobs behind a cell again, then the table that holds it."""
    commits = [disk.stated(job).code.commit for job in chain]
    last = next(filter(None, reversed(commits)), None)
    if head and last and last != head:
        yield shlex.join(["git", "checkout", last])
    devices = {_device(disk, job) for job in chain if job.rule != "data"}
    device = devices.pop() if len(devices) == 1 else ""
    needed = {need for job in chain for need in job.needs}
    targets = [job.writes[0] for job in chain if job.key not in needed]
    yield commands.snakemake(disk.study.file, "--forceall", *targets, device=device)
    table = folders.results_folder(disk.study) / "tables" / f"{address.table}.md"
    yield commands.snakemake(disk.study.file, table, device=device)


def _by_hand(disk: Disk, address: Address, chain: list[Job], head: str | None) -> Iterator[str]:
    """Yield the verb of each job in order, on its device, with the checkouts between them."""
    checked_out = head
    for job in chain:
        commit = disk.stated(job).code.commit
        if checked_out and commit and commit != checked_out:
            checked_out = commit
            yield shlex.join(["git", "checkout", commit])
        names = zip(("--run", "--probe", "--attack"), job.parts, strict=False)
        arguments = [argument for pair in names for argument in pair]
        if job.rule == "encoder":
            arguments = ["--encoder", job.name]
        if job.rule == "data":
            arguments = ["--dataset", job.name.rpartition("-")[0]]
        threads = disk.stated(job).environment.get("threads")
        for option, value in (("--device", _device(disk, job)), ("--threads", threads)):
            arguments += [option, str(value)] if value else []
        yield commands.robustviews(disk.study.file, job.rule, *arguments)
    yield commands.robustviews(disk.study.file, "table", "--table", address.table, "--partial")


def _device(disk: Disk, job: Job) -> str:
    """Return `cpu` or `cuda`; empty if no record says, and for data, which have no device."""
    return str(disk.stated(job).environment.get("device") or "").partition(":")[0]


def _wrapped(line: str) -> list[str]:
    indent = " " * (3 + len(line) - len(line.lstrip()))
    return textwrap.wrap(
        line,
        _LINE,
        initial_indent="   ",
        subsequent_indent=f"{indent}   ",
        break_long_words=False,
        break_on_hyphens=False,
    )
