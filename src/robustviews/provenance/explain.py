"""How a cell was made, in words: data, training, probe, attack, and how the number comes of them.

What no record says is called unknown.
"""

from __future__ import annotations

import dataclasses
import json
import textwrap
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from robustviews import commands as command_lines
from robustviews.artifacts import ArtifactError, Record
from robustviews.artifacts import records as record_shape
from robustviews.machine.humanize import duration
from robustviews.provenance.disk import Disk, record_of
from robustviews.provenance.remaking import Commands, commands
from robustviews.reporting import results
from robustviews.reporting.tables.values import CellValue, row_values
from robustviews.reporting.tables.writers import minutes, percent
from robustviews.study import cells, differences, folders
from robustviews.study.cells import Address
from robustviews.study.jobs import Job, Key
from robustviews.study.plan import Cell
from robustviews.study.schema import Study

UNKNOWN = "unknown"
_TITLES = {
    "data": "The data set is prepared",
    "pretrain": "The encoder is pretrained",
    "probe": "A head is trained on the frozen encoder",
    "attack": "The classifier is attacked",
}
_WIDTH, _LINE = 12, 100  # characters of a name, of a line


def explain(study: Study, text: str, *, file: str, root: Path = Path()) -> str:
    """Tell how a cell was made, and how to make it again.

    Args:
        study: that the cell belongs to.
        text: TABLE:ROW:COLUMN.
        file: the study's, as people name it.
        root: project folder.

    Returns:
        Lines for people.

    Raises:
        CellError: there is no such cell.
        ArtifactError: a record is none.
    """
    address, cell = cells.find(study, text)
    chain = cells.chain(study, cell)
    records = dict(_records(study, chain, root))
    lines = [str(address)]
    for line in _value(study, address, cell, file=file, root=root):
        lines += _wrapped(line, indent=3)
    for number, (jobs, options) in enumerate(_steps(chain), start=1):
        lines += ["", f"{number}. {_TITLES[jobs[0].rule]}"]
        for name, said in options:
            lines += _wrapped(f"   {name:{_WIDTH}} {said}", indent=4 + _WIDTH)
        for job in jobs:
            lines += [f"   {line}" for line in _job(job, records.get(job.key))]
    made = commands(study, address, cell, records=records, file=file, root=root)
    return "\n".join([*lines, *_commands(made, address, file), ""])


def _records(study: Study, chain: list[Job], root: Path) -> Iterator[tuple[Key, Record]]:
    disk = Disk(study, root)
    for job in chain:
        record = disk.record(job)
        if not isinstance(record, ArtifactError):
            yield job.key, record_shape.require(record, record_of(job), whole=False)


def _value(study: Study, address: Address, cell: Cell, *, file: str, root: Path) -> Iterator[str]:
    """Say what the cell is, and how its number comes of its runs."""
    of = "minutes of pretraining" if cell.attack is None else f"accuracy, {_asked(cell)}"
    yield f"{cell.label}: {of}, on {cell.dataset}, {_seeds(cell)}"
    table = study.tables[address.table]
    alone = dataclasses.replace(table, rows={address.row: table.rows[address.row]})
    try:
        frame = results.frame(study, root, blocks=[alone], partial=True)
    except ArtifactError as error:
        yield f"Value: {UNKNOWN}: {error.told(file)}"
        return
    found = row_values(study, alone, frame)[0].cells[table.columns.index(address.column)]
    yield f"Value: {_number(found)}"
    yield f"How: {_how(cell, found)}"
    if cell.published is not None:
        yield f"Published: {cell.published}"


def _asked(cell: Cell) -> str:
    if cell.eps is None:
        return "clean images"
    return f"attack {cell.metric} at {cell.eps:g}/255"


def _seeds(cell: Cell) -> str:
    return f"seed{'s' if len(cell.seeds) > 1 else ''} {', '.join(map(str, cell.seeds))}"


def _number(found: CellValue) -> str:
    if found.ours is None or found.low is None or found.high is None:
        return f"{UNKNOWN}: not run yet, or not as the study now stands"
    if found.column.is_minutes:
        return f"{minutes(found.ours)} minutes"
    ends = f"{percent(found.low)} to {percent(found.high)}"
    return f"{percent(found.ours)} %, 95 % interval {ends} %"


def _how(cell: Cell, found: CellValue) -> str:
    """Say how a number is computed over images and seeds."""
    done = len(found.evidence)
    over = f"mean over {done} of {found.planned} runs" if found.planned > 1 else "one run"
    if cell.attack is None:
        return f"`seconds` in the record of the pretraining / 60; {over}"
    flags = "clean" if cell.eps is None else f"eps_{cell.eps:g}"
    images = " or ".join(f"{n:,}" for n in sorted({each.n for each in found.evidence}))
    share = f"share of ones among `{flags}` in {folders.FLAGS} of {cell.attack}"
    kind = "Student's t over seeds" if done > 1 else "Wilson's over test images"
    return f"{share}, {images or UNKNOWN} test images; {over}; interval: {kind}"


def _steps(chain: list[Job]) -> Iterator[tuple[list[Job], list[tuple[str, str]]]]:
    """Yield the jobs of a chain that differ in their seed or run alone, with what they share."""
    steps: dict[str, list[Job]] = {}
    for job in chain:
        spec = {name: value for name, value in (job.spec or {}).items() if name != "seed"}
        steps.setdefault(job.rule + json.dumps(spec, sort_keys=True), []).append(job)
    for jobs in steps.values():
        yield jobs, list(_options(jobs[0]))


def _options(job: Job) -> Iterator[tuple[str, str]]:
    """Yield what decides a job, in words, with every default."""
    spec = job.spec or {}
    if job.rule != "pretrain":
        for name in ("dataset", "attack", "probe", "views"):
            if name in spec:
                yield name, _said(spec[name])
        if "batch" in spec:
            yield "batch", f"{spec['batch']} images at a time"
        return
    run = spec["run"]
    blocks = [name for name in run if isinstance(run[name], Mapping)]
    for name in sorted(blocks, key=_place):
        yield name, _said(run[name])
    yield "training", _said({name: run[name] for name in run if name not in blocks})


def _place(name: str) -> tuple[int, str]:
    order = ("method", "views", "regime", "encoder", "optimizer")
    return (order.index(name) if name in order else len(order)), name


def _said(options: Mapping[str, Any]) -> str:
    """Write options in a line: `free (replays 3, eps 8.0)`."""
    words = [
        f"{name} {value if isinstance(value, str) else json.dumps(value)}"
        for name, value in options.items()
        if name != "kind"
    ]
    kind = options.get("kind")
    return f"{kind} ({', '.join(words)})" if kind and words else str(kind or ", ".join(words))


def _job(job: Job, record: Record | None) -> Iterator[str]:
    """Say when and where a job ran, of which seed and code, and what came out."""
    assert job.folder is not None
    if record is None:
        yield f"{job.name}: {UNKNOWN}: not run yet ({job.record} is not there)"
        return
    seed = "" if job.rule == "data" else f"seed {_or_unknown(record.get('seed'))}, "
    seconds, resumed = record.get("seconds"), record.get("resumed")
    took = UNKNOWN if seconds is None else duration(float(seconds))
    often = "once" if resumed == 1 else f"{_or_unknown(resumed)} times"
    again = "" if resumed == 0 else f", resumed {often}"
    yield f"{job.name}: {seed}started {_or_unknown(record.get('started'))}, took {took}{again}"
    for key, was, now in differences.differences(record["spec"], job.spec):
        what = "the code that is here is" if key.rpartition(".")[2] == "code" else "the study says"
        yield f"   stale: {key} was {was}, {what} {now}"
    yield f"   on {_machine(record, job)}"
    yield f"   by {_code(record)}"
    came = _outcome(record)
    if came:
        yield f"   gave {came}"
    yield f"   record {job.record.as_posix()}"


def _machine(record: Record, job: Job) -> str:
    environment = record.get("environment") or {}
    words = [
        f"{name.replace('_', ' ')} {_plain(environment.get(name))}"
        for name in ("torch", "python", "threads", "deterministic", "driver", "image", "lock")
        if job.rule != "data" or name not in ("torch", "threads", "deterministic", "driver")
        if name != "driver" or str(environment.get("device")).startswith("cuda")
    ]
    device = "" if job.rule == "data" else f"{_or_unknown(environment.get('device'))}, "
    return device + ", ".join(words)


def _code(record: Record) -> str:
    code = record.get("code") or {}
    clean = {True: "sources had changes that no commit holds", False: "sources as in it"}
    dirty = code.get("dirty")
    commit = f"commit {_or_unknown(code.get('commit'))}"
    if code.get("commit"):
        commit += f" ({f'changes {UNKNOWN}' if dirty is None else clean[bool(dirty)]})"
    return f"code of digest {_or_unknown(code.get('digest'))}, {commit}"


def _outcome(record: Record) -> str:
    """Say what a job found, as far as its record says it in single numbers."""
    return ", ".join(
        f"{name} {value:.6g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in (record.get("result") or {}).items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    )


def _plain(value: object) -> str:
    if value is None:
        return UNKNOWN
    return value if isinstance(value, str) else json.dumps(value)


def _or_unknown(value: object) -> str:
    return UNKNOWN if value is None else str(value)


def _commands(made: Commands, address: Address, file: str) -> Iterator[str]:
    yield from ("", "To make it again with Snakemake:")
    yield from _indented(made.snakemake)
    yield from (
        "",
        "Or by hand, in this order (Snakemake notes none of it; to have it noted: --forcerun):",
    )
    yield from _indented(made.by_hand)
    for note in made.notes:
        yield from ("", note)
    check = command_lines.robustviews(file, "audit", "--cell", address)
    yield from ("", f"To check it: {check}")


def _wrapped(line: str, *, indent: int) -> list[str]:
    return textwrap.wrap(
        line,
        _LINE,
        subsequent_indent=" " * indent,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _indented(lines: Iterable[str]) -> Iterator[str]:
    for line in lines:
        yield f"  {line}"
