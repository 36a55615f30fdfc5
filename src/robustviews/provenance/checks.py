"""Checks of one job: its record compared with the study, the bytes on disk, and earlier records."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from robustviews.artifacts import RECORD, ArtifactError, Record
from robustviews.provenance.disk import Disk, removal, short
from robustviews.provenance.findings import Finding, failed, judged, unknown, verified
from robustviews.study import differences, evaluation_sets, folders
from robustviews.study.jobs import Job


def of_job(disk: Disk, job: Job) -> list[Finding]:
    """Check a finished job: record, spec, code, seed, bytes and inputs."""
    record = disk.record(job)
    if isinstance(record, ArtifactError):
        return [_unreadable(disk, job, record)]
    return [
        *_spec(disk, job, record),
        *_seed(disk, job, record),
        *_outputs(disk, job, record),
        *_inputs(disk, job, record),
    ]


def remake(disk: Disk, job: Job) -> str:
    """Return the suggested command for wrong files of a job: restore them, or make them again."""
    folder = job.record.parent
    return f"{disk.restore(folder)}{removal(folder, '-r')} && {disk.make(job.writes[0])}"


def rerun(disk: Disk, job: Job) -> str:
    """Return the suggested command for a job that Snakemake itself knows to be out of date."""
    return f"run it again: {disk.make(job.writes[0])}"


def force_rerun(disk: Disk, job: Job) -> str:
    """Return the suggested command for a wrong statement in a record; the files may be right."""
    again = disk.make("--force", job.writes[0])
    return f"{disk.restore(job.record.parent)}run it again: {again}"


def _unreadable(disk: Disk, job: Job, error: ArtifactError) -> Finding:
    path = job.record
    if disk.exists(path):
        return failed("record", path, f"{error}; {remake(disk, job)}")
    if any(map(disk.exists, job.writes)):
        return failed("record", path, f"missing, though outputs exist; {remake(disk, job)}")
    text = f"no record and no outputs: not run yet, or removed; run: {disk.make(job.writes[0])}"
    return unknown("record", path, text)


def _spec(disk: Disk, job: Job, record: Record) -> Iterator[Finding]:
    """Check that a record belongs to this job, with the options and the code of the study now."""
    problems: dict[str, list[str]] = {"foreign": [], "options": [], "code": []}
    for difference in differences.of_record(record, job, disk.study.study):
        problems[difference.kind].append(str(difference))
    digest = record.spec.get("code")
    if record.code.digest != digest:
        text = f"edited: code.digest is {record.code.digest}, but spec.code is {digest}"
        problems["code"].append(text)
    path, again = job.record, rerun(disk, job)
    right = "the record belongs to this job"
    yield from judged("record", path, problems["foreign"], right, fix=remake(disk, job))
    right = "every parameter is as in the study now"
    yield from judged("spec", path, problems["options"], right, fix=again)
    right = f"made by the code as it is now, digest {digest}"
    yield from judged("code", path, problems["code"], right, fix=again)


def _seed(disk: Disk, job: Job, record: Record) -> list[Finding]:
    seed, expected = record.seed, job.spec.get("seed")
    problems = []
    if expected is not None and seed is None:
        problems.append(f"missing seed, expected {expected}")
    elif seed != expected:
        problems.append(f"seed is {seed}, expected {expected}")
    elif record.spec.get("seed") != seed:
        problems.append(f"seed is {seed}, but its spec says {record.spec.get('seed')}")
    right = "needs no seed" if seed is None else f"seed {seed}"
    return judged("seed", job.record, problems, right, fix=force_rerun(disk, job))


def _outputs(disk: Disk, job: Job, record: Record) -> Iterator[Finding]:
    """Check that a folder holds the files that its record names, unchanged, and no other files."""
    folder, stated, right = job.record.parent, record.outputs, 0
    further = {path.name: checksum for path, checksum in disk.further(job).items()}
    outputs = {*job.outputs, *further}
    for name in sorted({*outputs, *stated}):
        path = folder / name
        if name not in stated:
            yield failed("bytes", path, f"its record does not name it; {remake(disk, job)}")
        elif name not in outputs:
            yield failed("bytes", path, f"named by the record, but not an output of {job.rule}")
        elif not disk.exists(path):
            again = remake(disk, job) if name in further else f"make it again: {disk.make(path)}"
            yield failed("bytes", path, f"missing; {disk.restore(path)}{again}")
        elif further.get(name, stated[name]) != stated[name]:
            text = f"its record states {short(stated[name])}, {folders.SUMMARY} beside it "
            yield failed("bytes", path, f"{text}{short(further[name])}; {remake(disk, job)}")
        elif disk.sha256(path) != stated[name]:
            text = f"changed bytes: its record states {short(stated[name])}, found "
            yield failed("bytes", path, f"{text}{short(disk.sha256(path))}; {remake(disk, job)}")
        else:
            right += 1
    for path in _extra_files(disk.root, folder, {*outputs, *stated, RECORD}):
        text = f"extra file that the record does not name; inspect and remove it: {removal(path)}"
        yield failed("bytes", path, text)
    if right == len(outputs):
        files = "1 output has" if right == 1 else f"{right} outputs have"
        yield verified("bytes", job.record, f"{files} the bytes that the record states")


def _extra_files(root: Path, folder: Path, known: set[str]) -> list[Path]:
    """Return the unknown files in a folder; hidden files do not count."""
    below = sorted(path.relative_to(root / folder) for path in (root / folder).rglob("*"))
    return [
        folder / path
        for path in below
        if path.as_posix() not in known
        and not any(part.startswith(".") for part in path.parts)
        and not (root / folder / path).is_dir()
    ]


def _inputs(disk: Disk, job: Job, record: Record) -> Iterator[Finding]:
    """Check that a job read the files it should, with their bytes as on disk and upstream."""
    expected, stated, right = {path.as_posix() for path in job.reads}, record.inputs, 0
    for name in sorted({*expected, *stated}):
        if name not in expected:
            yield failed("inputs", name, f"{job.record} says it was read, but it should not be")
        elif name not in stated:
            text = f"{job.record} does not say that it was read; {remake(disk, job)}"
            yield failed("inputs", name, text)
        else:
            problem = _input(disk, job, Path(name))
            right += problem is None
            if problem:
                yield problem
    changed = evaluation_sets.changed_labels(job.arguments.get("dataset"), disk.root / job.record)
    if changed:
        yield failed("inputs", *changed)
    elif right == len(expected):
        text = f"{right} inputs have the bytes that are on disk and in the records upstream"
        yield verified("inputs", job.record, text if right else "reads no file of another job")


def _input(disk: Disk, job: Job, path: Path) -> Finding | None:
    stated, upstream = disk.stated(job).inputs[path.as_posix()], disk.jobs[job.reads[path]]
    written = disk.stated(upstream).outputs.get(path.name)
    if written is not None and written != stated:
        text = (
            f"{job.record} was made from {short(stated)}, {upstream.record} says that "
            f"{short(written)} was written; {remake(disk, job)}"
        )
        return failed("upstream", path, text)
    actual = disk.sha256(path)
    if actual is None:
        text = f"missing; {disk.restore(path)}make it again: {disk.make(path)}"
        return failed("inputs", path, text)
    if actual != stated:
        text = f"{job.record} was made from {short(stated)}, found {short(actual)}"
        return failed("inputs", path, f"{text}; {remake(disk, upstream)}")
    return None
