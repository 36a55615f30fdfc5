"""Leftovers: what runs once made and no job of the study has any more.

Only what lies under this study's own names is looked at, and prepared data, which studies share:
those are left alone as long as any study file names them.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import re
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from robustviews.artifacts import ArtifactError
from robustviews.artifacts.resume import Resume
from robustviews.provenance.disk import Disk, inputs
from robustviews.study import StudyError, folders, load_study
from robustviews.study import jobs as pending
from robustviews.study.jobs import Job
from robustviews.study.schema import Study
from robustviews.workflow import locks as running

_STAGES = ("pretrain", "probe", "attack")
_BLOCKS = ("tables", "figures")
_PREPARED = re.compile(r".+-[0-9a-f]{8}")  # data/raw and whatever else lies there is no leftover
_STATE = re.compile(r"(.+)-[0-9a-f]{16}")
_NOTES = Path(".snakemake/metadata")
_LOCKS = Path(".snakemake/locks")


class LeftoverError(ValueError):
    """What is a leftover cannot be told, or cannot be removed now; the message says why."""


@dataclass(frozen=True)
class Leftover:
    """Something that no job has any more.

    Attributes:
        path: relative to the project; a file or a folder.
        why: what it was.
        size: bytes, those of all files below it.
        parts: what is to be removed of it; all when empty.
    """

    path: Path
    why: str
    size: int
    parts: tuple[Path, ...] = ()


def find(study: Study, file: str, *, states: Path, root: Path = Path()) -> list[Leftover]:
    """Return what no job has any more.

    Args:
        study: whose results.
        file: the study's, whose data count beside those of params.yaml and studies/*.yaml.
        states: folder of interrupted jobs, relative to the project.
        root: project folder.

    Raises:
        LeftoverError: a study file does not load, so that nobody knows which data it uses.
    """
    found = {path: "results of no job" for path in _results(study, root)}
    found |= {path: "table or figure of no job" for path in _blocks(study, root)}
    found |= {path: "log of no job" for path in _logs(study, root)}
    found |= {path: "state of no interrupted job" for path in _states(study, states, root)}
    used, files = _data_in_use(file, root)
    data = list(_others(root, Path("data"), used, only=_PREPARED))
    found |= {path: f"data that no study uses: not {', '.join(files)}" for path in data}
    found |= {path: "log of no job" for path in _data_logs(data, root)}
    leftovers = [Leftover(path, why, _size(root / path)) for path, why in found.items()]
    notes = tuple(_notes(study, used, root))
    if notes:
        why = f"{len(notes)} notes of Snakemake on files of no job"
        size = sum(_size(root / note) for note in notes)
        leftovers.append(Leftover(_NOTES, why, size, notes))
    return leftovers


def refuse_busy(study: Study, root: Path = Path()) -> None:
    """Raise LeftoverError while a job writes data, or below the results of a study.

    Args:
        study: whose results, also those of jobs that it has no more.
        root: project folder.
    """
    held = running.owners(study, root)
    if held:
        raise LeftoverError(
            f"{study.study}: still at work: {', '.join(map(str, held))}; nothing was removed. "
            "Wait for it, then prune again."
        )


def remove(leftovers: Iterable[Leftover], root: Path = Path()) -> None:
    """Remove leftovers; of links the link alone.

    Raises:
        LeftoverError: Snakemake is at work here.
    """
    locks = root / _LOCKS
    if locks.is_dir() and any(locks.iterdir()):
        raise LeftoverError(
            f"{_LOCKS}: Snakemake is at work here, or was killed; nothing was removed. Wait for "
            "it, or if none runs any more type: snakemake --unlock"
        )
    paths = [path for leftover in leftovers for path in leftover.parts or (leftover.path,)]
    for path in (root / each for each in paths):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
        _remove_empty(path.parent, root)


def _results(study: Study, root: Path) -> Iterator[Path]:
    for stage in _STAGES:
        yield from _others(root, folders.results_folder(study) / stage, _kept(study))


def _blocks(study: Study, root: Path) -> Iterator[Path]:
    for block in _BLOCKS:
        yield from _others(root, folders.results_folder(study) / block, _kept(study))


def _kept(study: Study) -> set[Path]:
    """Return folders and files that jobs of a study leave."""
    jobs = pending.jobs(study).values()
    folders = {job.folder for job in jobs if job.folder is not None}
    return folders | {file for job in jobs for file in job.outputs}


def _logs(study: Study, root: Path) -> Iterator[Path]:
    """Yield logs and benchmarks of jobs; those of rules with one job have no name to be told by."""
    logs = Path("logs") / study.study
    jobs = pending.jobs(study).values()
    keep = [
        logs / job.rule / f"{job.name}.{end}"
        for job in jobs
        for end in ("log", "tsv")
        if job.rule in _STAGES
    ]
    keep += [logs / "report" / f"{job.rule}-{job.name}.log" for job in jobs if job.name]
    for stage in _STAGES:
        yield from _others(root, logs / stage, keep)
    yield from _others(root, logs / "report", keep, only=re.compile(r"(table|figure)-.*"))


def _states(study: Study, states: Path, root: Path) -> Iterator[Path]:
    """Yield states from which no job of the study would go on."""
    disk = Disk(study, root)
    jobs = [job for job in disk.jobs.values() if job.rule in _STAGES]
    for path in _others(root, states / study.study, ()):
        found = _STATE.fullmatch(path.name)
        name = found[1] if found else ""
        named = [job for job in jobs if job.name.replace("/", "-") == name]
        if not any(_state(disk, job, path.with_name(name)) in (None, path) for job in named):
            yield path


def _state(disk: Disk, job: Job, begin: Path) -> Path | None:
    """Return where a job would look for its state; None where its inputs are not here."""
    assert job.spec is not None
    read = [disk.root / path for path in inputs(disk, job)]
    try:
        return Resume(begin, job.spec, read, 0).folder
    except ArtifactError:
        return None


def _data_in_use(file: str, root: Path) -> tuple[list[Path], list[str]]:
    """Return the data folders that some study file names, and the study files."""
    paths = [root / "params.yaml", *sorted((root / "studies").glob("*.yaml"))]
    if (root / file).absolute() not in [path.absolute() for path in paths]:
        paths.append(root / file)
    paths = [path for path in paths if path.is_file()]
    used: dict[Path, None] = {}
    for path in paths:
        try:
            study = load_study(path)
        except StudyError as error:
            raise LeftoverError(
                f"{error}\nWhile a study file does not load nobody knows which data it uses: "
                "mend it, then prune again. Nothing was removed."
            ) from None
        used |= {folders.data_folder(study, name): None for name in study.datasets}
    return list(used), [_named(path, root) for path in paths]


def _named(path: Path, root: Path) -> str:
    """Return a path as people know it: below the project without the project, else as it is."""
    with contextlib.suppress(ValueError):
        path = path.absolute().relative_to(root.absolute())
    return path.as_posix()


def _data_logs(data: Iterable[Path], root: Path) -> Iterator[Path]:
    for folder in data:
        for end in ("log", "tsv"):
            path = Path("logs/data") / f"{folder.name}.{end}"
            if (root / path).exists():
                yield path


def _notes(study: Study, used: list[Path], root: Path) -> Iterator[Path]:
    """Yield Snakemake's notes on files that no job has, whether those are still there or not."""
    kept = _kept(study) | set(used)
    ours = [folders.results_folder(study) / name for name in (*_STAGES, *_BLOCKS)]
    for path in sorted((root / _NOTES).rglob("*")):
        note = path.relative_to(root)
        output = _noted(note)
        if output is None or kept & {output, *output.parents}:
            continue
        data = output.parts[0] == "data" and _PREPARED.fullmatch(output.parent.name)
        if data or any(output.is_relative_to(folder) for folder in ours):
            yield note


def _noted(note: Path) -> Path | None:
    """Return the output that a note is about: its name in base64, cut where it is too long."""
    text = "".join(part.removeprefix("@") for part in note.relative_to(_NOTES).parts)
    if note.name.startswith("@"):
        return None
    try:
        return Path(base64.urlsafe_b64decode(text).decode())
    except (binascii.Error, UnicodeDecodeError, ValueError):
        return None


def _others(
    root: Path, base: Path, keep: Iterable[Path], *, only: re.Pattern[str] | None = None
) -> Iterator[Path]:
    """Yield what lies in a folder and neither is kept nor holds something that is.

    Hidden names are locks and unfinished files of jobs, which their jobs remove.
    """
    kept = set(keep)
    around = {parent for path in kept for parent in path.parents}
    if not (root / base).is_dir():
        return
    for entry in sorted((root / base).iterdir()):
        path = base / entry.name
        if entry.name.startswith("."):
            continue
        if path in kept or (only and not only.fullmatch(entry.name)):
            continue
        if path in around:
            yield from _others(root, path, kept)
        else:
            yield path


def _size(path: Path) -> int:
    if path.is_symlink() or path.is_file():
        return path.lstat().st_size
    return sum(file.lstat().st_size for file in path.rglob("*") if not file.is_dir())


def _remove_empty(folder: Path, root: Path) -> None:
    """Remove a folder that a removal left empty, and those above it that this left empty."""
    while folder != root and folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()
        folder = folder.parent
