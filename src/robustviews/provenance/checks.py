"""Checks of one job: its record compared with the study, the bytes on disk, and earlier records."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from robustviews.artifacts import RECORD, ArtifactError, Record
from robustviews.provenance.disk import Disk, removal, short
from robustviews.provenance.findings import Finding, State
from robustviews.study import differences, evaluation_sets, folders
from robustviews.study.jobs import Job


def of_job(disk: Disk, job: Job) -> list[Finding]:
    """Check a finished job: record, spec, code, seed, bytes and inputs.

    Args:
        disk: files of the study.
        job: a computing job.

    Returns:
        One finding per check that passed, and one per problem.
    """
    record = disk.record(job)
    if isinstance(record, ArtifactError):
        return [_unreadable(disk, job, record)]
    return [
        *_spec(disk, job, record),
        *_seed(disk, job, record),
        *_outputs(disk, job, record),
        *_inputs(disk, job, record),
    ]


def is_readable(disk: Disk, job: Job) -> bool:
    """Return whether a job has a record with all sections."""
    return not isinstance(disk.record(job), ArtifactError)


def remake(disk: Disk, job: Job) -> str:
    """Return the suggested command for wrong files of a job: restore them, or make them again."""
    assert job.folder is not None
    return f"{disk.restore(job.folder)}{removal(job.folder, '-r')} && {_snakemake(disk, job)}"


def rerun(disk: Disk, job: Job) -> str:
    """Return the suggested command for a job that Snakemake itself knows to be out of date."""
    return f"run it again: {_snakemake(disk, job)}"


def force_rerun(disk: Disk, job: Job) -> str:
    """Return the suggested command for a wrong statement in a record; the files may be right."""
    assert job.folder is not None
    return f"{disk.restore(job.folder)}run it again: {_snakemake(disk, job, '--force')}"


def _snakemake(disk: Disk, job: Job, *options: str) -> str:
    assert job.folder is not None
    return disk.make(*options, job.folder / job.outputs[0])


def _unreadable(disk: Disk, job: Job, error: ArtifactError) -> Finding:
    path = job.record
    if disk.exists(path):
        return _failed("record", path, f"{error}; {remake(disk, job)}")
    assert job.folder is not None
    if any(disk.exists(job.folder / name) for name in job.outputs):
        return _failed("record", path, f"missing, though outputs exist; {remake(disk, job)}")
    text = f"no record and no outputs: not run yet, or removed; run: {_snakemake(disk, job)}"
    return Finding("record", path.as_posix(), State.UNKNOWN, text)


def _spec(disk: Disk, job: Job, record: Record) -> Iterator[Finding]:
    """Check that a record belongs to this job, with the options and the code of the study now."""
    found = differences.of_record(record, job, disk.study.study)
    problems: dict[str, list[str]] = {"foreign": [], "options": [], "code": []}
    for difference in found:
        problems[difference.kind].append(str(difference))
    digest = record.spec.get("code")
    if record.code.digest != digest:
        text = f"edited: code.digest is {record.code.digest}, but spec.code is {digest}"
        problems["code"].append(text)
    again = rerun(disk, job)
    right = "the record belongs to this job"
    yield from _result("record", job, problems["foreign"], right, fix=remake(disk, job))
    right = "every parameter is as in the study now"
    yield from _result("spec", job, problems["options"], right, fix=again)
    right = f"made by the code as it is now, digest {digest}"
    yield from _result("code", job, problems["code"], right, fix=again)


def _seed(disk: Disk, job: Job, record: Record) -> Iterator[Finding]:
    assert job.spec is not None
    seed, expected = record.seed, job.spec.get("seed")
    problems = []
    if expected is not None and seed is None:
        problems.append(f"missing seed, expected {expected}")
    elif seed != expected:
        problems.append(f"seed is {seed}, expected {expected}")
    elif record.spec.get("seed") != seed:
        problems.append(f"seed is {seed}, but its spec says {record.spec.get('seed')}")
    right = "needs no seed" if seed is None else f"seed {seed}"
    yield from _result("seed", job, problems, right, fix=force_rerun(disk, job))


def _outputs(disk: Disk, job: Job, record: Record) -> Iterator[Finding]:
    """Check that a folder holds the files that its record names, unchanged, and no other files."""
    assert job.folder is not None
    stated, verified = record.outputs, 0
    further = {path.name: checksum for path, checksum in disk.further(job).items()}
    outputs = {*job.outputs, *further}
    for name in sorted({*outputs, *stated}):
        path = job.folder / name
        if name not in stated:
            yield _failed("bytes", path, f"its record does not name it; {remake(disk, job)}")
        elif name not in outputs:
            yield _failed("bytes", path, f"named by the record, but not an output of {job.rule}")
        elif not disk.exists(path):
            again = remake(disk, job) if name in further else f"make it again: {disk.make(path)}"
            yield _failed("bytes", path, f"missing; {disk.restore(path)}{again}")
        elif further.get(name, stated[name]) != stated[name]:
            text = f"its record states {short(stated[name])}, {folders.SUMMARY} beside it "
            yield _failed("bytes", path, f"{text}{short(further[name])}; {remake(disk, job)}")
        elif disk.sha256(path) != stated[name]:
            yield _changed(disk, path, stated[name], remake(disk, job))
        else:
            verified += 1
    for path in _extra_files(disk.root, job.folder, {*outputs, *stated, RECORD}):
        text = f"extra file that the record does not name; inspect and remove it: {removal(path)}"
        yield _failed("bytes", path, text)
    if verified == len(outputs):
        files = "1 output has" if verified == 1 else f"{verified} outputs have"
        yield _verified("bytes", job, f"{files} the bytes that the record states")


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
    expected, stated, verified = {path.as_posix() for path in job.reads}, record.inputs, 0
    for name in sorted({*expected, *stated}):
        if name not in expected:
            yield _failed("inputs", name, f"{job.record} says it was read, but it should not be")
        elif name not in stated:
            text = f"{job.record} does not say that it was read; {remake(disk, job)}"
            yield _failed("inputs", name, text)
        else:
            problem = _input(disk, job, Path(name))
            verified += problem is None
            if problem:
                yield problem
    changed = evaluation_sets.changed_labels(job.arguments.get("dataset"), disk.root / job.record)
    if changed:
        yield _failed("inputs", *changed)
    elif verified == len(expected):
        text = f"{verified} inputs have the bytes that are on disk and in the records upstream"
        yield _verified("inputs", job, text if verified else "reads no file of another job")


def _input(disk: Disk, job: Job, path: Path) -> Finding | None:
    stated, upstream = disk.stated(job).inputs[path.as_posix()], disk.jobs[job.reads[path]]
    written = disk.stated(upstream).outputs.get(path.name)
    if written is not None and written != stated:
        text = (
            f"{job.record} was made from {short(stated)}, {upstream.record} says that "
            f"{short(written)} was written; {remake(disk, job)}"
        )
        return _failed("upstream", path, text)
    actual = disk.sha256(path)
    if actual is None:
        return _failed(
            "inputs", path, f"missing; {disk.restore(path)}make it again: {disk.make(path)}"
        )
    if actual != stated:
        text = f"{job.record} was made from {short(stated)}, found {short(actual)}"
        return _failed("inputs", path, f"{text}; {remake(disk, upstream)}")
    return None


def _changed(disk: Disk, path: Path, stated: object, fix: str) -> Finding:
    text = f"changed bytes: its record states {short(stated)}, found {short(disk.sha256(path))}"
    return _failed("bytes", path, f"{text}; {fix}")


def _result(
    check: str, job: Job, problems: list[str], right: str, *, fix: str
) -> Iterator[Finding]:
    for text in problems:
        yield _failed(check, job.record, f"{text}; {fix}")
    if not problems:
        yield _verified(check, job, right)


def _verified(check: str, job: Job, text: str) -> Finding:
    return Finding(check, job.record.as_posix(), State.VERIFIED, text)


def _failed(check: str, subject: Path | str, text: str) -> Finding:
    name = subject if isinstance(subject, str) else subject.as_posix()
    return Finding(check, name, State.FAILED, text)
