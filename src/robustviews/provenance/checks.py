"""Checks of one job: its record against the study, the bytes on disk, and the records before it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from robustviews.artifacts import RECORD, ArtifactError, Record
from robustviews.provenance.disk import Disk, inputs, record_of, removal, short
from robustviews.provenance.findings import Finding, State
from robustviews.study import differences
from robustviews.study.folders import OUTPUTS
from robustviews.study.jobs import Job

_SECTIONS = ("spec", "inputs", "outputs", "code", "environment")
_NAMES = ("stage", "name", "study", "seed", "started", "seconds")


def of_job(disk: Disk, job: Job) -> list[Finding]:
    """Check a finished job: bytes, record, spec, seed, code, and what it was made from.

    Args:
        disk: files of the study.
        job: a computing one.

    Returns:
        One finding a check, and one for each thing that is wrong.
    """
    record = disk.record(job)
    if isinstance(record, ArtifactError):
        return [_unreadable(disk, job, record)]
    broken = _broken(record)
    if broken:
        return [_failed("record", record_of(job), f"{broken}; {mend(disk, job)}")]
    return [
        *_whose(disk, job, record),
        *_spec(disk, job, record),
        *_code(disk, job, record),
        *_seed(disk, job, record),
        *_outputs(disk, job, record),
        *_inputs(disk, job, record),
    ]


def is_readable(disk: Disk, job: Job) -> bool:
    """Return whether a job left a record of which more can be asked."""
    record = disk.record(job)
    return not isinstance(record, ArtifactError) and not _broken(record)


def mend(disk: Disk, job: Job) -> str:
    """Return what to type to have a job's files right again, whatever lies there now."""
    assert job.folder is not None
    return f"{disk.restore(job.folder)}{removal(job.folder, '-r')} && {_snakemake(disk, job)}"


def rerun(disk: Disk, job: Job) -> str:
    """Return what to type to have a job done again where Snakemake itself sees that it must."""
    return f"run it again: {_snakemake(disk, job)}"


def again(disk: Disk, job: Job) -> str:
    """Return what to type where only what a record says is wrong, and its files may be right."""
    assert job.folder is not None
    return f"{disk.restore(job.folder)}run it again: {_snakemake(disk, job, '--force')}"


def _snakemake(disk: Disk, job: Job, *options: str) -> str:
    assert job.folder is not None
    return disk.make(*options, job.folder / OUTPUTS[job.rule][0])


def _unreadable(disk: Disk, job: Job, error: ArtifactError) -> Finding:
    path = record_of(job)
    if disk.exists(path):
        return _failed("record", path, f"{error}; {mend(disk, job)}")
    assert job.folder is not None
    if any(disk.exists(job.folder / name) for name in OUTPUTS[job.rule]):
        return _failed("record", path, f"missing, though outputs are there; {mend(disk, job)}")
    text = f"no record and no outputs: not run yet, or removed; {_snakemake(disk, job)}"
    return Finding("record", path.as_posix(), State.UNKNOWN, text)


def _broken(record: Record) -> str:
    """Say in which way a file is no record of a job, or nothing when it is one."""
    lacking = [name for name in (*_NAMES, *_SECTIONS) if name not in record]
    if lacking:
        return f"no record of a job, it lacks {', '.join(lacking)}"
    wrong = [name for name in _SECTIONS if not isinstance(record[name], dict)]
    if wrong:
        return f"no record of a job: expected a mapping as {', '.join(wrong)}"
    return ""


def _whose(disk: Disk, job: Job, record: Record) -> Iterator[Finding]:
    """Check that a record is this job's, and not one of another job or study."""
    wanted = {"stage": job.rule, "name": job.name, "study": disk.study.study}
    if job.rule == "data":
        del wanted["study"]  # studies share prepared data
    wrong = [
        f"foreign record: {key} is {record[key]!r}, expected {value!r}"
        for key, value in wanted.items()
        if record[key] != value
    ]
    yield from _result(
        "record", job, wrong, "the record is this job's own", way_out=mend(disk, job)
    )


def _spec(disk: Disk, job: Job, record: Record) -> Iterator[Finding]:
    wrong = [
        f"stale: {key} was {was}, the study now says {now}"
        for key, was, now in differences.differences(record["spec"], job.spec)
        if not _is_code(key)
    ]
    right = "every parameter is what the study resolves to now"
    yield from _result("spec", job, wrong, right, way_out=rerun(disk, job))


def _code(disk: Disk, job: Job, record: Record) -> Iterator[Finding]:
    wrong = [
        f"the code that decides it has changed since: its digest ({key}) was {was}, now it is {now}"
        for key, was, now in differences.differences(record["spec"], job.spec)
        if _is_code(key)
    ]
    stated, digest = record["code"].get("digest"), record["spec"].get("code")
    if stated != digest:
        wrong.append(f"edited: code.digest is {stated}, but spec.code is {digest}")
    right = f"made by the code that is here, digest {digest}"
    yield from _result("code", job, wrong, right, way_out=rerun(disk, job))


def _is_code(key: str) -> bool:
    return key.rpartition(".")[2] == "code"


def _seed(disk: Disk, job: Job, record: Record) -> Iterator[Finding]:
    assert job.spec is not None
    seed, wanted = record["seed"], job.spec.get("seed")
    wrong = []
    if wanted is not None and seed is None:
        wrong.append(f"missing seed, expected {wanted}")
    elif seed != wanted:
        wrong.append(f"seed is {seed}, expected {wanted}")
    elif record["spec"].get("seed") != seed:
        wrong.append(f"seed is {seed}, but its spec says {record['spec'].get('seed')}")
    right = "needs no seed" if seed is None else f"seed {seed}"
    yield from _result("seed", job, wrong, right, way_out=again(disk, job))


def _outputs(disk: Disk, job: Job, record: Record) -> Iterator[Finding]:
    """Check that a folder holds the files that its record names, those bytes, and no others."""
    assert job.folder is not None
    stated, found = record["outputs"], 0
    for name in sorted({*OUTPUTS[job.rule], *stated}):
        path = job.folder / name
        if name not in stated:
            yield _failed("bytes", path, f"its record does not name it; {mend(disk, job)}")
        elif name not in OUTPUTS[job.rule]:
            yield _failed("bytes", path, f"named by the record, but no output of {job.rule}")
        elif not disk.exists(path):
            yield _failed(
                "bytes", path, f"missing; {disk.restore(path)}make it again: {disk.make(path)}"
            )
        elif disk.sha256(path) != stated[name]:
            yield _changed(disk, path, stated[name], mend(disk, job))
        else:
            found += 1
    for path in _others(disk.root, job.folder, {*OUTPUTS[job.rule], *stated, RECORD}):
        text = (
            f"extra file that the record does not name; look at it, then remove it: {removal(path)}"
        )
        yield _failed("bytes", path, text)
    if found == len(OUTPUTS[job.rule]):
        files = "1 output has" if found == 1 else f"{found} outputs have"
        yield _verified("bytes", job, f"{files} the bytes that the record states")


def _others(root: Path, folder: Path, known: set[str]) -> list[Path]:
    """Return what else lies in a folder; files whose name begins with a dot are nobody's."""
    below = sorted(path.relative_to(root / folder) for path in (root / folder).rglob("*"))
    return [
        folder / path
        for path in below
        if path.as_posix() not in known
        and not any(part.startswith(".") for part in path.parts)
        and not (root / folder / path).is_dir()
    ]


def _inputs(disk: Disk, job: Job, record: Record) -> Iterator[Finding]:
    """Check that a job read what it should: the bytes that are here, as upstream wrote them."""
    expected, stated, right = inputs(disk, job), record["inputs"], 0
    for name in sorted({*expected, *stated}):
        if name not in expected:
            yield _failed("inputs", name, f"{record_of(job)} says it was read, but it should not")
        elif name not in stated:
            text = f"{record_of(job)} does not say that it was read; {mend(disk, job)}"
            yield _failed("inputs", name, text)
        else:
            problem = _input(disk, job, name)
            right += problem is None
            if problem:
                yield problem
    if right == len(expected):
        files = f"{right} inputs are" if right else "needs no inputs: they are"
        text = f"{files} the bytes that are here and that the jobs before it wrote"
        yield _verified("inputs", job, text if right else "reads no file of another job")


def _input(disk: Disk, job: Job, name: str) -> Finding | None:
    stated, path = disk.section(job, "inputs")[name], Path(name)
    upstream = disk.jobs[inputs(disk, job)[name]]
    written = disk.section(upstream, "outputs").get(path.name)
    if written is not None and written != stated:
        text = (
            f"{record_of(job)} was made from {short(stated)}, {record_of(upstream)} says that "
            f"{short(written)} was written; {mend(disk, job)}"
        )
        return _failed("upstream", path, text)
    found = disk.sha256(path)
    if found is None:
        return _failed(
            "inputs", path, f"missing; {disk.restore(path)}make it again: {disk.make(path)}"
        )
    if found != stated:
        text = f"{record_of(job)} was made from {short(stated)}, here lies {short(found)}"
        return _failed("inputs", path, f"{text}; {mend(disk, upstream)}")
    return None


def _changed(disk: Disk, path: Path, stated: object, way_out: str) -> Finding:
    text = f"changed bytes: its record states {short(stated)}, found {short(disk.sha256(path))}"
    return _failed("bytes", path, f"{text}; {way_out}")


def _result(
    check: str, job: Job, wrong: list[str], right: str, *, way_out: str
) -> Iterator[Finding]:
    for text in wrong:
        yield _failed(check, record_of(job), f"{text}; {way_out}")
    if not wrong:
        yield _verified(check, job, right)


def _verified(check: str, job: Job, text: str) -> Finding:
    return Finding(check, record_of(job).as_posix(), State.VERIFIED, text)


def _failed(check: str, subject: Path | str, text: str) -> Finding:
    name = subject if isinstance(subject, str) else subject.as_posix()
    return Finding(check, name, State.FAILED, text)
