"""Whether the results on disk belong to the commit that is checked out.

Git tracks Snakemake's metadata, DVC tracks the results. After `git checkout` without `dvc checkout`
the metadata describes other results than those on disk; Snakemake never reads results and would
find nothing to be done. Records describe the results, so the comparison needs no hashing.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from robustviews import artifacts
from robustviews.artifacts import RECORD, ArtifactError, Record
from robustviews.study import differences, enough, evaluation_sets, folders, jobs, plan, specs
from robustviews.workflow import dvc, locks
from robustviews.workflow.metadata import FOLDER, MetadataEntry, ProjectMetadata

if TYPE_CHECKING:
    from robustviews.study.schema import Study

_SHOWN = 3  # folders that a message names before it only counts them


class CheckoutError(ArtifactError):
    """Results are not those of Snakemake's metadata; the message suggests a command."""


def check(study: Study, *, dry_run: bool = False) -> None:
    """Refuse results of another commit, and encoders whose files are missing.

    Args:
        study: study of the results.
        dry_run: whether nothing will run, so that files may be missing; `hints` names them.

    Raises:
        CheckoutError: by its metadata Snakemake takes results for up to date, but their records
            state other options or other inputs. Or a checkpoint to import is missing.
    """
    _refuse_other_users(study)
    missing = [f"  {line}" for line in _missing_files(study)]
    if missing and not dry_run:
        text = "Save these files there, or change the paths; docs/import.md names their sources"
        raise CheckoutError("\n".join([f"{study.file}: missing files:", *missing, text]))
    foreign = dict(_foreign(study))
    if not foreign:
        return
    shown = [f"  {folder}: {text}" for folder, text in list(foreign.items())[:_SHOWN]]
    if len(foreign) > _SHOWN:
        shown.append(f"  ... and {len(foreign) - _SHOWN} more")
    folders = " ".join(map(str, foreign))
    raise CheckoutError(
        "\n".join(
            [
                "Results here are not those of Snakemake's metadata, which git tracks:",
                *shown,
                "After git checkout, pull or reset, type: dvc checkout",
                f"or, to compute them again: rm -r {folders}",
            ]
        )
    )


def repair(study: Study) -> list[str]:
    """Let Snakemake repeat the jobs whose metadata is damaged; it would take them for up to date.

    Snakemake does not sync metadata, so that a power cut may leave it empty beside complete files.
    Call this only if no Snakemake runs here: it may be writing metadata.

    Returns:
        A line that says so; none if all metadata is sound.
    """
    metadata = ProjectMetadata(Path())
    outputs = [output for job in jobs.jobs(study).values() for output in job.writes]
    torn = [output for output in outputs if isinstance(metadata.of(output), ArtifactError)]
    for output in torn:
        artifacts.write_json(metadata.path(output, "incomplete"), {"external_jobid": None})
        metadata.path(output).unlink()
    if not torn:
        return []
    return [
        f"{torn[0]}: Snakemake's metadata of {len(torn)} files was damaged; their jobs run again"
    ]


def _refuse_other_users(study: Study) -> None:
    """Refuse a project of another user: Snakemake writes metadata that only its user can read."""
    paths = sorted(FOLDER.rglob("*"))
    unreadable = next((path for path in paths if not os.access(path, os.R_OK)), None)
    if unreadable is not None:
        number = unreadable.stat().st_uid
        text = (
            f"{unreadable}: only user {number}, who ran Snakemake here, can read it. "
            f"Work in a folder of your own: git clone {Path.cwd()} FOLDER"
        )
        raise CheckoutError("\n".join([text, *locks.notice(study).splitlines()]))


def _missing_files(study: Study) -> list[str]:
    return [
        f"encoders.{name}.file: {study.encoders[name].file}"
        for name in plan.encoders(study)
        if not Path(study.encoders[name].file).is_file()
        and not (folders.job_folder(study, "encoder", name) / RECORD).is_file()
    ]


def check_data(study: Study) -> None:
    """Refuse prepared data sets that are not whole, or have too little for the study.

    Raises:
        CheckoutError: a job on them would fail, perhaps after hours of training; or would use
            labels that were corrected since.
    """
    lacking = [f"{study.file}: {lack}" for lack in enough.lacks(study, enough.prepared(study))]
    for name, options in study.datasets.items():
        folder = folders.data_folder(study, name)
        lacking += [
            f"{folder / file}: missing; type: dvc checkout   or remove it: rm -r {folder}"
            for file in folders.further(folder)
            if not (folder / file).is_file()
        ]
        changed = evaluation_sets.changed_labels(options, folder / RECORD)
        lacking += [": ".join(changed)] if changed else []
    if lacking:
        raise CheckoutError("\n".join(lacking))


def hints(study: Study) -> list[str]:
    """Return lines on missing files, and commands that spare computing results again."""
    lines = [f"datasets.{name}: {'; '.join(text)}" for name, text in enough.missing(study).items()]
    lines += [f"{line}: no such file" for line in _missing_files(study)]
    return lines + _restorable(study)


def _restorable(study: Study) -> list[str]:
    metadata, folder = ProjectMetadata(Path()), folders.results_folder(study)
    trained = [
        folders.job_folder(study, "pretrain", run) / RECORD for run in plan.pretrainings(study)
    ]
    has_metadata = any(metadata.of(record) is not None for record in trained)
    if has_metadata and not (folder / "pretrain").is_dir() and _is_locked(trained[0]):
        return [f"{folder} is missing, but dvc.lock names it; to get it, type: dvc pull"]
    complete = [
        job.folder
        for job in jobs.jobs(study).values()
        if job.folder is not None
        and metadata.unfinished(job.folder / RECORD)
        and _is_complete(job.folder, job.spec)
    ]
    if not complete:
        return []
    return [
        f"An interrupted run marked results as unfinished, but {complete[0]} is complete; "
        "to keep it, type: rm -r .snakemake/incomplete"
    ]


def _is_locked(path: Path) -> bool:
    """Return whether an output in dvc.lock is this path or a folder that contains it."""
    try:
        outs = dvc.outs(dvc.LOCK.read_bytes())
    except (OSError, dvc.LockError):
        return False  # DVC itself reports what is wrong with its lock
    return any(path.is_relative_to(out) for out in outs)


def _is_complete(folder: Path, spec: specs.Spec) -> bool:
    """Return whether a record has the study's spec, and the files beside it have its checksums."""
    try:
        record = Record.read(folder / RECORD, whole=False)
        return record.spec == spec and all(
            artifacts.sha256(folder / name) == stated for name, stated in record.outputs.items()
        )
    except ArtifactError:
        return False


def _foreign(study: Study) -> Iterator[tuple[Path, str]]:
    """Yield folders of jobs whose record differs from the metadata, with the difference."""
    metadata = ProjectMetadata(Path())
    for job in jobs.jobs(study).values():
        if job.folder is None or not (job.folder / RECORD).is_file():
            continue
        path = job.folder / RECORD
        entry = metadata.of(path)
        if (
            isinstance(entry, dict)
            # Snakemake takes the options for unchanged; it stores the `repr` of a parameter.
            and repr(specs.to_json(job.spec)) in (entry.get("params") or ())
            and not metadata.unfinished(path)
        ):
            text = _difference(path, entry, job.spec)
            if text:
                yield job.folder, text


def _difference(path: Path, entry: MetadataEntry, expected: specs.Spec) -> str:
    try:
        record = Record.read(path, whole=False)
    except ArtifactError:
        return ""  # `verify` reports what is wrong with a record
    differing = differences.differences(record.spec, expected)
    if differing:
        key, was, now = differing[0]
        return f"{key} was {was}, the metadata says {now}"
    checksums = entry.get("input_checksums") or {}
    changed = [name for name, made in record.inputs.items() if checksums.get(name, made) != made]
    return f"made from another {changed[0]}" if changed else ""
