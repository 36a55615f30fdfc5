"""Remaking a cell: the exact commands, with Snakemake and without."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from robustviews.artifacts import Record
from robustviews.commands import DEFAULT_STUDY
from robustviews.provenance.history import History
from robustviews.study import cells, folders
from robustviews.study.cells import Address
from robustviews.study.jobs import Job, Key
from robustviews.study.plan import Cell
from robustviews.study.schema import Study

_FLAGS = {
    "data": ("dataset",),
    "pretrain": ("run",),
    "probe": ("run", "probe"),
    "attack": ("run", "probe", "attack"),
}


@dataclass(frozen=True)
class Commands:
    """What to type to make a cell again.

    Attributes:
        snakemake: with Snakemake.
        by_hand: without; lines that begin with `#` explain the next one.
        notes: what is unknown, or what else to know.
    """

    snakemake: tuple[str, ...]
    by_hand: tuple[str, ...]
    notes: tuple[str, ...]


def commands(
    study: Study,
    address: Address,
    cell: Cell,
    *,
    records: Mapping[Key, Record],
    file: str,
    root: Path = Path(),
) -> Commands:
    """Return what to type to make a cell again.

    Args:
        study: that the cell belongs to.
        address: of the cell.
        cell: itself.
        records: of the jobs behind it that were run.
        file: the study's, as people name it.
        root: project folder.
    """
    chain, here = cells.chain(study, cell), History(root).head
    commits = {job.key: _code(records, job).get("commit") for job in chain if job.key in records}
    named = dict.fromkeys(commit for commit in commits.values() if commit)
    last = list(named)[-1:] if here else []
    before = [f"git checkout {commit}" for commit in last if commit != here]
    own = [] if file == DEFAULT_STUDY else ["--study", file]
    table = ["robustviews", "table", "--table", address.table, "--partial", *own]
    return Commands(
        snakemake=(*before, *_snakemake(study, address, cell, chain, records, file)),
        by_hand=(*_by_hand(study, chain, records, commits, here, own), shlex.join(table)),
        notes=tuple(_notes(chain, records, list(named), here)),
    )


def _snakemake(
    study: Study,
    address: Address,
    cell: Cell,
    chain: list[Job],
    records: Mapping[Key, Record],
    file: str,
) -> list[str]:
    """Return commands that make the jobs behind a cell again, then the table that holds it."""
    config = [] if file == DEFAULT_STUDY else [f"study={file}"]
    devices = {_device(records, job) for job in chain if job.rule != "data"}
    if len(devices) == 1 and None not in devices:
        config.append(f"device={devices.pop()}")
    # Snakemake takes all that follows --config for settings, so it comes last.
    end = ["--config", *config] if config else []
    made = [
        folders.attack_folder(study, run, cell.probe, cell.attack) / folders.FLAGS
        if cell.attack
        else folders.pretrain_folder(study, run) / folders.ENCODER
        for run in cell.runs
    ]
    targets = [path.as_posix() for path in made]
    table = (folders.results_folder(study) / "tables" / f"{address.table}.md").as_posix()
    return [
        shlex.join(["snakemake", "--forceall", *targets, *end]),
        shlex.join(["snakemake", table, *end]),
    ]


def _by_hand(
    study: Study,
    chain: list[Job],
    records: Mapping[Key, Record],
    commits: Mapping[Key, str | None],
    here: str | None,
    own: list[str],
) -> Iterator[str]:
    """Yield the verb of each job in order, with the checkouts between them."""
    at = here
    for job in chain:
        commit = commits.get(job.key)
        if commit and here and commit != at:
            at = commit
            yield f"git checkout {commit}"
        parts = [_dataset(study, job)] if job.rule == "data" else job.parts
        words = ["robustviews", job.rule]
        for flag, value in zip(_FLAGS[job.rule], parts, strict=True):
            words += [f"--{flag}", value]
        yield shlex.join([*words, *own, *_machine(study, records, job)])


def _machine(study: Study, records: Mapping[Key, Record], job: Job) -> list[str]:
    """Return the options by which a job runs on the device and threads that it once ran on."""
    device = _device(records, job)
    threads = _environment(records, job).get("threads")
    words = ["--device", device] if device else []
    if threads and threads != study.runtime.threads:
        words += ["--threads", str(threads)]
    return words


def _notes(
    chain: list[Job], records: Mapping[Key, Record], commits: list[str], here: str | None
) -> Iterator[str]:
    ran = [job for job in chain if job.key in records]
    codes = [_code(records, job) for job in ran]
    if any(code.get("commit") is None for code in codes):
        yield "The commit of some jobs is unknown: their records name none."
    if any(code.get("dirty") for code in codes):
        yield "Some jobs ran on sources with changes that no commit holds: those are unknown."
    if commits and here is None:
        yield f"No git repository is here to check {' and '.join(commits)} out from."
    elif len(commits) > 1:
        yield "Several commits made it: by hand below follows each, Snakemake takes the last."
    same = all(records[job.key]["spec"].get("code") == (job.spec or {}).get("code") for job in ran)
    if same and here and any(commit != here for commit in commits):
        yield "The code that is here has the same digests: without the checkout it is as good."
    devices = {_device(records, job) for job in ran if job.rule != "data"}
    if len(devices) > 1:
        yield "The jobs ran on different devices: by hand below follows each."


def _dataset(study: Study, job: Job) -> str:
    return next(name for name in study.datasets if folders.data_folder(study, name) == job.folder)


def _device(records: Mapping[Key, Record], job: Job) -> str | None:
    """Return `cpu` or `cuda`; None where no record says, and for data, which take none."""
    device = _environment(records, job).get("device")
    return str(device).partition(":")[0] if device else None


def _environment(records: Mapping[Key, Record], job: Job) -> dict[str, Any]:
    return dict(records.get(job.key, {}).get("environment") or {})


def _code(records: Mapping[Key, Record], job: Job) -> dict[str, Any]:
    return dict(records.get(job.key, {}).get("code") or {})
