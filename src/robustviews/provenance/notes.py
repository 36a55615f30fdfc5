"""Snakemake's notes: what it wrote down about each output, against what lies there now.

Snakemake compares an input's content only when the input is newer than the output, and never looks
at an output's own content. So a wrong file with an old time passes `snakemake -n`; it does not pass
here. The notes are JSON files in .snakemake/metadata, one an output, whose names are the outputs'
paths in URL-safe base64; they are read without Snakemake.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Iterable, Iterator
from pathlib import Path

from robustviews.artifacts import ArtifactError
from robustviews.provenance.disk import Disk, files, inputs, removal, short
from robustviews.provenance.findings import Finding, State
from robustviews.study import differences, specs
from robustviews.study.jobs import Job, Key
from robustviews.workflow.metadata import Note, Notes

_BLOCKS = ("table", "figure")  # rules of which each job shows one block of the study


def check(disk: Disk, notes: Notes, jobs: Iterable[Job]) -> dict[Key, list[Finding]]:
    """Check the notes of all outputs of some jobs.

    Args:
        disk: files of the study.
        notes: of the project.
        jobs: whose outputs.

    Returns:
        Findings by the job that owns the file which they are about: what a table's note says of a
        record is told of the job that left the record.
    """
    seen: dict[Key, list[Finding]] = {}
    stated: dict[tuple[str, str], list[Path]] = {}
    for job in jobs:
        found = list(_of_job(disk, notes, job))
        seen.setdefault(job.key, []).extend(found)
        for output in files(job):
            for name, checksum in _checksums(notes.of(output)).items():
                stated.setdefault((name, checksum), []).append(output)
        if not found and all(notes.of(output) for output in files(job)):
            text = f"Snakemake noted {len(files(job))} outputs as made so"
            seen[job.key].append(_finding("note", files(job)[-1], State.VERIFIED, text))
    for (name, checksum), outputs in stated.items():
        problem = _input(disk, name, checksum, outputs)
        if problem:
            owner = disk.owners.get(name, _maker(disk, outputs[0]))
            seen.setdefault(owner, []).append(problem)
    return seen


def vouched_for(notes: Notes, jobs: Iterable[Job]) -> set[str]:
    """Return the files of which the notes of some jobs' outputs hold a checksum."""
    outputs = (output for job in jobs for output in files(job))
    return {name for output in outputs for name in _checksums(notes.of(output))}


def _maker(disk: Disk, output: Path) -> Key:
    return disk.owners[output.as_posix()]


def _of_job(disk: Disk, notes: Notes, job: Job) -> Iterator[Finding]:
    there = [output for output in files(job) if disk.exists(output)]
    lacking = [output for output in there if notes.of(output) is None]
    if lacking:
        names = ", ".join(path.name for path in lacking)
        text = f"no note of Snakemake about {names}, so that nobody saw from what it was made; "
        yield _finding("note", lacking[0], State.UNKNOWN, text + disk.remake(lacking[0]))
    told: dict[str, list[Path]] = {}
    for output in there:
        note = notes.of(output)
        if isinstance(note, ArtifactError):
            text = f"its note {notes.path(output)} is damaged; {disk.remake(output)}"
            yield _finding("note", output, State.FAILED, text)
        elif note is not None:
            for text in _wrong(disk, job, note):
                told.setdefault(text, []).append(output)
            yield from _unchecked(disk, output, note)
        if notes.unfinished(output):
            text = f"Snakemake was interrupted while it made this; {disk.remake(output)}"
            yield _finding("note", output, State.FAILED, text)
    for text, outputs in told.items():
        others = ", ".join(output.name for output in outputs[1:])
        more = f"; so {others}" if others else ""
        yield _finding("note", outputs[0], State.FAILED, f"{text}{more}")


def _wrong(disk: Disk, job: Job, note: Note) -> Iterator[str]:
    """Say what in a note is not as the study, or the record beside the output, wants it."""
    output = files(job)[0]
    if note.get("rule") != job.rule:
        said = f"its note is of rule {note.get('rule')!r}, expected {job.rule!r}"
        yield f"{said}; {disk.remake(output)}"
    if note.get("incomplete"):
        yield f"its note says that it was left unfinished; {disk.remake(output)}"
    yield from _wrong_parameters(disk, job, note)
    if job.folder is not None:
        noted, expected = set(_names(note)), set(inputs(disk, job))
        if noted != expected:
            names = ", ".join(sorted(noted ^ expected))
            yield f"its note has other inputs than it should: {names}; {disk.remake(output)}"


def _wrong_parameters(disk: Disk, job: Job, note: Note) -> Iterator[str]:
    if job.folder is not None and isinstance(disk.record(job), ArtifactError):
        return  # told where records are checked
    output = files(job)[0]
    noted = [spec for spec in _parameters(note) if isinstance(spec, dict)]
    if job.folder is None:
        wanted: object = specs.report_spec(
            disk.study, job.name if job.rule in _BLOCKS else "", rule=job.rule
        )
        who, way_out = "the study now says", f"run: {disk.make(output)}"
    else:  # whether the record is of the study as it now stands is another question
        wanted = disk.section(job, "spec")
        who, way_out = "its record says", disk.remake(output)
    if not noted:
        yield f"its note has no parameters; {disk.remake(output)}"
    elif wanted not in noted:
        key, was, now = differences.differences(noted[0], wanted)[0]
        yield f"its note has other parameters: {key} was {was}, {who} {now}; {way_out}"


def _parameters(note: Note) -> Iterator[object]:
    """Yield the parameters of a note that are JSON; Snakemake writes each as Python does."""
    listed = note.get("params")
    for text in listed if isinstance(listed, list) else ():
        try:
            yield json.loads(ast.literal_eval(text))
        except (ValueError, SyntaxError, TypeError):
            continue


def _names(note: Note) -> list[str]:
    listed = note.get("input")
    return [str(name) for name in listed] if isinstance(listed, list) else []


def _checksums(note: Note | ArtifactError | None) -> dict[str, str]:
    stated = note.get("input_checksums") if isinstance(note, dict) else None
    if not isinstance(stated, dict):
        return {}
    return {name: str(checksum) for name, checksum in stated.items()}


def _unchecked(disk: Disk, output: Path, note: Note) -> Iterator[Finding]:
    """Say of which inputs a note holds no checksum."""
    lacking = sorted(set(_names(note)) - set(_checksums(note)))
    if lacking:
        text = (
            f"its note has no checksum of {', '.join(lacking)}; take max-checksum-file-size from "
            f"workflow/profiles/default, then {disk.remake(output)}"
        )
        yield _finding("note", output, State.UNKNOWN, text)


def _input(disk: Disk, name: str, checksum: str, outputs: list[Path]) -> Finding | None:
    """Compare what notes say of an input with its bytes."""
    path, first = Path(name), outputs[0]
    found = disk.sha256(path)
    if found == checksum:
        return None
    more = f" and {len(outputs) - 1} more" if len(outputs) > 1 else ""
    made = f"{first}{more} {'were' if more else 'was'} made from"
    if found is None:
        text = f"missing, though {made} it; {disk.restore(path)}make it again: {disk.make(path)}"
        return _finding("note", path, State.FAILED, text)
    text = (
        f"not what Snakemake noted: {made} {short(checksum)}, here lies {short(found)}; "
        f"if it was changed: {disk.restore(path)}{removal(path)} && {disk.make(path)}; "
        f"else: {removal(first)} && {disk.make(first)}"
    )
    return _finding("note", path, State.FAILED, text)


def _finding(check: str, subject: Path, state: State, text: str) -> Finding:
    return Finding(check, subject.as_posix(), state, text)
