"""Orphaned files: files in the folders of a study's jobs that no job of the study writes.

Studies share prepared data, which are orphaned once no study file names them. Files of other
studies, hidden files, and other files that people keep in these folders are not orphaned.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from robustviews.study import StudyError, folders, load_study
from robustviews.study import jobs as study_jobs
from robustviews.study.jobs import REPORTING, Job
from robustviews.study.schema import Study
from robustviews.workflow import locks, metadata

_SNAKEMAKE_LOCKS = Path(".snakemake/locks")
# Folders of a study's results.
_WRITTEN = "pretrain|probe|attack|sanity|tables|figures|training|examples"


class OrphanError(ValueError):
    """Orphaned files cannot be found, or cannot be removed now; the message says why."""


def find(study: Study) -> list[Path]:
    """Return the orphaned files of the project in the working directory, Snakemake metadata last.

    Data that the study, params.yaml or studies/*.yaml use are not orphaned.

    Raises:
        OrphanError: a study file does not load, so the data that it uses are unknown.
    """
    kept = set(_kept(study))
    around = {parent for path in kept for parent in path.parents}
    name, state = re.escape(study.study), re.escape(f"{folders.STATE}/{study.study}")
    ours = re.compile(
        rf"(results/{name}/({_WRITTEN})|{state}|logs/{name}/({_WRITTEN}|report)|logs/data"
        r"|data(?=/[^/]+-[0-9a-f]{8}(/|$)))(/[^./][^/]*)+"
    )

    def is_orphan(path: Path) -> bool:
        if path in around or not ours.fullmatch(path.as_posix()):
            return False
        return kept.isdisjoint((path, *path.parents))

    files = [path for path in sorted(_files(study)) if is_orphan(path)]
    entries = [(path, metadata.output_of(path)) for path in sorted(_walk(metadata.FOLDER))]
    return files + [path for path, output in entries if output and is_orphan(output)]


def remove(study: Study, orphans: Iterable[Path]) -> None:
    """Remove orphaned files and the folders that this empties; of a link only the link itself.

    Raises:
        OrphanError: Snakemake or a job of the study runs; nothing was removed.
    """
    owners = ", ".join(map(str, locks.owners(study)))
    if owners:
        raise OrphanError(
            f"{study.study}: nothing was removed: {owners} runs; wait, then try again"
        )
    if _SNAKEMAKE_LOCKS.is_dir() and any(_SNAKEMAKE_LOCKS.iterdir()):
        raise OrphanError(
            f"{_SNAKEMAKE_LOCKS}: nothing was removed: Snakemake runs here, or was killed; wait, "
            "or if it does not run, type: snakemake --unlock"
        )
    for path in orphans:
        path.unlink(missing_ok=True)
        for folder in path.parents:
            if folder == Path() or folder.is_symlink() or any(folder.iterdir()):
                break
            folder.rmdir()


def _kept(study: Study) -> Iterator[Path]:
    """Yield what is not orphaned: files and logs of jobs, states of pending jobs, data in use."""
    for job in study_jobs.jobs(study).values():
        yield from job.writes
        yield _log(study, job)
    for _, name in study_jobs.pending(study):
        prefix = name.replace("/", "-")
        yield from (folders.STATE / study.study).glob(f"{prefix}-{16 * '[0-9a-f]'}")
    for data in _data_in_use(study.file):
        yield data
        yield Path("logs/data") / f"{data.name}.log"


def _log(study: Study, job: Job) -> Path:
    """Return the log of a job, as the rules of the workflow name it."""
    logs = Path("logs") / study.study
    if job.rule in REPORTING:
        return logs / "report" / f"{'-'.join(filter(None, job.key))}.log"
    return logs / job.rule / f"{job.name}.log"


def _data_in_use(file: str) -> Iterator[Path]:
    """Yield the data folders that the study files of the project name."""
    for path in {Path(file), Path("params.yaml"), *Path("studies").glob("*.yaml")}:
        if not path.is_file():
            continue
        try:
            study = load_study(path)
        except StudyError as error:
            raise OrphanError(
                f"{error}\nNothing was removed: a study file that does not load may use any data; "
                "fix it, then try again."
            ) from None
        yield from (folders.data_folder(study, name) for name in study.datasets)


def _files(study: Study) -> Iterator[Path]:
    """Yield the files in the folders where orphans may lie."""
    logs, states = Path("logs"), folders.STATE / study.study
    prepared = Path("data").glob("*-????????")  # not data/raw, which may hold millions of files
    results = folders.results_folder(study)
    for folder in (results, states, logs / study.study, logs / "data", *prepared):
        yield from _walk(folder)


def _walk(folder: Path) -> Iterator[Path]:
    """Yield the files and links below a folder; links are not followed."""
    for path in (folder, *folder.rglob("*")):
        if path.is_symlink() or path.is_file():
            yield path
