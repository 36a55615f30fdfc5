"""Check of Snakemake metadata: what it states about each output, compared with the files on disk.

Snakemake compares an input's content only if the input is newer than the output, and never reads
an output's own content. So `snakemake -n` accepts a wrong file with an old time; this check does
not. It reads the metadata without Snakemake.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Iterable, Iterator
from pathlib import Path

from robustviews.artifacts import ArtifactError
from robustviews.provenance.disk import Disk, removal, short
from robustviews.provenance.findings import Finding, failed, unknown, verified
from robustviews.study import differences, specs
from robustviews.study.jobs import Job, Key
from robustviews.workflow.metadata import MetadataEntry, ProjectMetadata

_BLOCKS = ("table", "figure")  # rules of which each job shows one block of the study


def check(disk: Disk, metadata: ProjectMetadata, jobs: Iterable[Job]) -> dict[Key, list[Finding]]:
    """Check the metadata of all outputs of some jobs.

    Returns:
        Findings by the job that owns the file in question: if the metadata of a table contradicts
        a record, the finding belongs to the job that wrote the record.
    """
    findings: dict[Key, list[Finding]] = {}
    readers: dict[tuple[str, str], list[Path]] = {}  # outputs by (input, its stated checksum)
    for job in jobs:
        problems = list(_of_job(disk, metadata, job))
        findings.setdefault(job.key, []).extend(problems)
        for output in job.writes:
            for name, checksum in _checksums(metadata.of(output)).items():
                readers.setdefault((name, checksum), []).append(output)
        if not problems and all(metadata.of(output) for output in job.writes):
            text = f"the metadata of {len(job.writes)} outputs is as expected"
            findings[job.key].append(verified("metadata", job.writes[-1], text))
    for (name, checksum), outputs in readers.items():
        problem = _input(disk, name, checksum, outputs)
        if problem:
            owner = disk.owners.get(name, disk.owners[outputs[0].as_posix()])
            findings.setdefault(owner, []).append(problem)
    return findings


def covered(metadata: ProjectMetadata, jobs: Iterable[Job]) -> set[str]:
    """Return the files that the metadata of some jobs' outputs covers with a checksum."""
    outputs = (output for job in jobs for output in job.writes)
    return {name for output in outputs for name in _checksums(metadata.of(output))}


def _of_job(disk: Disk, metadata: ProjectMetadata, job: Job) -> Iterator[Finding]:
    existing = [output for output in job.writes if disk.exists(output)]
    lacking = [output for output in existing if metadata.of(output) is None]
    if lacking:
        names = ", ".join(path.name for path in lacking)
        text = f"no Snakemake metadata of {names}, so nothing states what it was made from; "
        yield unknown("metadata", lacking[0], text + disk.remake(lacking[0]))
    problems: dict[str, list[Path]] = {}
    for output in existing:
        entry = metadata.of(output)
        if isinstance(entry, ArtifactError):
            text = f"its metadata {metadata.path(output)} is damaged; {disk.remake(output)}"
            yield failed("metadata", output, text)
        elif entry is not None:
            for text in _problems(disk, job, entry):
                problems.setdefault(text, []).append(output)
            yield from _unchecked(disk, output, entry)
        if metadata.unfinished(output):
            text = f"Snakemake was interrupted while it made this file; {disk.remake(output)}"
            yield failed("metadata", output, text)
    for text, outputs in problems.items():
        others = ", ".join(output.name for output in outputs[1:])
        more = f"; the same for {others}" if others else ""
        yield failed("metadata", outputs[0], f"{text}{more}")


def _problems(disk: Disk, job: Job, entry: MetadataEntry) -> Iterator[str]:
    """Yield how metadata differs from the study, or from the record beside the output."""
    output = job.writes[0]
    if entry.get("rule") != job.snakemake_rule:
        text = f"its metadata names the rule {entry.get('rule')!r}, expected {job.snakemake_rule!r}"
        yield f"{text}; {disk.remake(output)}"
    if entry.get("incomplete"):
        yield f"its metadata marks it as incomplete; {disk.remake(output)}"
    yield from _wrong_parameters(disk, job, entry)
    if job.folder is not None:
        stated, expected = set(_inputs(entry)), {path.as_posix() for path in job.reads}
        if stated != expected:
            names = ", ".join(sorted(stated ^ expected))
            yield f"its metadata names other inputs than expected: {names}; {disk.remake(output)}"


def _wrong_parameters(disk: Disk, job: Job, entry: MetadataEntry) -> Iterator[str]:
    if job.folder is not None and not disk.is_readable(job):
        return  # the check of records reports it
    output = job.writes[0]
    stated = [spec for spec in _parameters(entry) if isinstance(spec, dict)]
    if job.folder is None:
        expected: object = specs.report_spec(
            disk.study, job.name if job.rule in _BLOCKS else "", rule=job.rule
        )
        source, fix = "the study now says", f"run: {disk.make(output)}"
    else:  # the check `spec` compares the record with the study
        expected = disk.stated(job).spec
        source, fix = "its record says", disk.remake(output)
    if not stated:
        yield f"its metadata has no parameters; {disk.remake(output)}"
    elif expected not in stated:
        key, was, now = differences.differences(stated[0], expected)[0]
        yield f"its metadata has other parameters: {key} was {was}, {source} {now}; {fix}"


def _parameters(entry: MetadataEntry) -> Iterator[object]:
    """Yield the parameters that are JSON; Snakemake stores each parameter as Python's repr."""
    parameters = entry.get("params")
    for text in parameters if isinstance(parameters, list) else ():
        try:
            yield json.loads(ast.literal_eval(text))
        except (ValueError, SyntaxError, TypeError):
            continue


def _inputs(entry: MetadataEntry) -> list[str]:
    names = entry.get("input")
    return [str(name) for name in names] if isinstance(names, list) else []


def _checksums(entry: MetadataEntry | ArtifactError | None) -> dict[str, str]:
    checksums = entry.get("input_checksums") if isinstance(entry, dict) else None
    if not isinstance(checksums, dict):
        return {}
    return {name: str(checksum) for name, checksum in checksums.items()}


def _unchecked(disk: Disk, output: Path, entry: MetadataEntry) -> Iterator[Finding]:
    """Report the inputs of which metadata holds no checksum."""
    lacking = sorted(set(_inputs(entry)) - set(_checksums(entry)))
    if lacking:
        text = (
            f"its metadata has no checksum of {', '.join(lacking)}; take max-checksum-file-size "
            f"from workflow/profiles/default, then {disk.remake(output)}"
        )
        yield unknown("metadata", output, text)


def _input(disk: Disk, name: str, checksum: str, outputs: list[Path]) -> Finding | None:
    """Compare an input with the checksum that the metadata of some outputs states."""
    path, first = Path(name), outputs[0]
    actual = disk.sha256(path)
    if actual == checksum:
        return None
    more = f" and {len(outputs) - 1} more" if len(outputs) > 1 else ""
    subject = f"{first}{more} {'were' if more else 'was'} made from"
    if actual is None:
        text = f"missing, though {subject} it; {disk.restore(path)}make it again: {disk.make(path)}"
        return failed("metadata", path, text)
    text = (
        f"differs from Snakemake metadata: {subject} {short(checksum)}, found {short(actual)}; "
        f"if {path.name} was changed: {disk.restore(path)}{removal(path)} && {disk.make(path)}; "
        f"else: {removal(first)} && {disk.make(first)}"
    )
    return failed("metadata", path, text)
