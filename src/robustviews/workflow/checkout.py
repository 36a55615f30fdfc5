"""Whether the results here are those of the commit that is checked out.

Git keeps Snakemake metadata, DVC keeps results. After `git checkout` without `dvc checkout` the
metadata describes other results than those on disk, and Snakemake, which does not read results,
would have nothing to do. Comparing metadata with records finds this without hashing.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from robustviews import artifacts
from robustviews.artifacts import RECORD, ArtifactError, records
from robustviews.study import differences, folders, jobs, plan, specs
from robustviews.workflow import dvc
from robustviews.workflow.metadata import MetadataEntry, ProjectMetadata

if TYPE_CHECKING:
    from robustviews.study.schema import Study

_SHOWN = 3  # folders that a message names before it only counts them


class CheckoutError(ArtifactError):
    """Results differ from Snakemake metadata; the message says what to type."""


def check(study: Study, root: Path = Path()) -> None:
    """Refuse results of another commit.

    Args:
        study: whose results.
        root: project folder.

    Raises:
        CheckoutError: Snakemake takes results for finished, with what the study now says, that
            were made with other options or from other inputs.
    """
    foreign = dict(_foreign(study, root))
    if not foreign:
        return
    shown = [f"  {folder}: {text}" for folder, text in list(foreign.items())[:_SHOWN]]
    if len(foreign) > _SHOWN:
        shown.append(f"  ... and {len(foreign) - _SHOWN} more")
    folders = " ".join(map(str, foreign))
    raise CheckoutError(
        "\n".join(
            [
                "Results here differ from the Snakemake metadata that git keeps:",
                *shown,
                "After git checkout, pull or reset type: dvc checkout",
                f"or, to have them made again: rm -r {folders}",
            ]
        )
    )


def hints(study: Study, root: Path = Path()) -> list[str]:
    """Say what to type before Snakemake makes results again that need not be made."""
    metadata, folder = ProjectMetadata(root), folders.results_folder(study)
    trained = [folders.pretrain_folder(study, run) / RECORD for run in plan.pretrainings(study)]
    was_run = any(metadata.of(record) is not None for record in trained)
    if was_run and not (root / folder / "pretrain").is_dir() and _is_locked(root, trained[0]):
        return [f"{folder} is not here, but dvc.lock names it; to get it type: dvc pull"]
    whole = [
        job.folder
        for job in jobs.jobs(study).values()
        if job.folder is not None
        and metadata.unfinished(job.folder / RECORD)
        and _is_whole(root / job.folder, job.spec or {})
    ]
    if not whole:
        return []
    return [
        f"An interrupted run marked results as unfinished, but {whole[0]} is whole; to keep it, "
        "and not have it made again, type: rm -r .snakemake/incomplete"
    ]


def _is_locked(root: Path, path: Path) -> bool:
    """Return whether an output that dvc.lock names is a file, or a folder around it."""
    try:
        outs = dvc.outs((root / dvc.LOCK).read_bytes())
    except (OSError, dvc.LockError):
        return False  # for DVC, which says what is wrong with it
    return any(path.is_relative_to(out) for out in outs)


def _is_whole(folder: Path, spec: specs.Spec) -> bool:
    """Return whether a record has the spec, and the checksum of each file beside it."""
    try:
        record = artifacts.read_json(folder / RECORD)
        return bool(record["spec"] == spec) and all(
            artifacts.sha256(folder / name) == stated for name, stated in record["outputs"].items()
        )
    except (ArtifactError, KeyError, TypeError, AttributeError):
        return False


def _foreign(study: Study, root: Path) -> Iterator[tuple[Path, str]]:
    """Yield the folders of jobs whose record differs from the metadata, with the difference."""
    metadata = ProjectMetadata(root)
    for job in jobs.jobs(study).values():
        if job.folder is None or not (root / job.folder / RECORD).is_file():
            continue
        path, spec = job.folder / RECORD, job.spec or {}
        entry = metadata.of(path)
        if isinstance(entry, dict) and _is_current(entry, spec) and not metadata.unfinished(path):
            text = _difference(root / path, entry, spec)
            if text:
                yield job.folder, text


def _is_current(entry: MetadataEntry, expected: specs.Spec) -> bool:
    """Return whether Snakemake regards the options of a job as unchanged."""
    # Snakemake stores a parameter as Python's repr.
    return repr(specs.to_json(expected)) in (entry.get("params") or ())


def _difference(path: Path, entry: MetadataEntry, expected: specs.Spec) -> str:
    try:
        record = records.require(artifacts.read_json(path), path, whole=False)
        spec, inputs = record["spec"], record["inputs"]
    except ArtifactError:
        return ""  # `robustviews verify` reports it
    changed = differences.differences(spec, expected)
    if changed:
        key, was, now = changed[0]
        return f"{key} was {was}, the metadata says {now}"
    checksums = entry.get("input_checksums") or {}
    others = [name for name in inputs if checksums.get(name, inputs[name]) != inputs[name]]
    return f"made from another {others[0]}" if others else ""
