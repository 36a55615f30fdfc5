"""What DVC locked: the bytes of the chain against dvc.lock, and DVC's cache against its own names.

`dvc status` takes an object of the cache for what its name says. So lock and cache are read here
without DVC, and every object that stands for a file of the chain is hashed.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from robustviews.provenance.disk import Disk, files
from robustviews.provenance.findings import Finding, State
from robustviews.study.jobs import Job, Key
from robustviews.workflow import dvc

_SHOWN = 8  # hexadecimal digits that tell a hash from others


@dataclass
class Locked:
    """What dvc.lock says of a project's files.

    Attributes:
        md5: of each file that it names, by path relative to the project.
        folders: md5 of each folder that it names as a whole, by path.
        problems: what is wrong with the lock, or with the lists of folders that it refers to.
    """

    md5: dict[str, str] = field(default_factory=dict)
    folders: dict[str, str] = field(default_factory=dict)
    problems: list[Finding] = field(default_factory=list)


def locked(disk: Disk) -> Locked | None:
    """Read dvc.lock and the lists of the folders that it names; None where DVC was never used."""
    if not disk.exists(dvc.LOCK):
        return None
    found = Locked()
    try:
        outs = dvc.outs((disk.root / dvc.LOCK).read_bytes())
    except (OSError, dvc.LockError) as error:
        text = f"{error}; restore it: git checkout dvc.lock"
        found.problems.append(_finding(dvc.LOCK, State.FAILED, text))
        return found
    for path, md5 in outs.items():
        if md5.endswith(".dir"):
            found.folders[path] = md5
            _open_folder(disk, path, md5, found)
        else:
            found.md5[path] = md5
    return found


def check(disk: Disk, lock: Locked, jobs: Iterable[Job]) -> dict[Key, list[Finding]]:
    """Check the files of some jobs against dvc.lock, and the cache's copies against their names.

    Args:
        disk: files of the study.
        lock: what `locked` returned.
        jobs: whose files.

    Returns:
        Findings by job; none of a job of which dvc.lock names no file.
    """
    seen = {}
    for job in jobs:
        found = [finding for path in files(job) for finding in _file(disk, lock, path)]
        named = sum(path.as_posix() in lock.md5 for path in files(job))
        if named and not found:
            text = f"{named} files have the md5 that dvc.lock states"
            found = [_finding(files(job)[-1], State.VERIFIED, text)]
        if found:
            seen[job.key] = found
    return seen


def covers(disk: Disk, lock: Locked) -> bool:
    """Return whether dvc.lock names any file of the study."""
    return any(name in lock.md5 or _folder(lock, Path(name)) for name in disk.owners)


def _open_folder(disk: Disk, path: str, md5: str, found: Locked) -> None:
    """Learn the files of a folder, from the list in the cache or else from what lies there."""
    listing, expected = dvc.path_of(disk.root, md5), md5.removesuffix(".dir")
    try:
        data = listing.read_bytes()
    except OSError:
        _open_here(disk, path, expected, found)
        return
    if dvc.md5(data) != expected:
        text = f"changed bytes in DVC's cache: its name says md5 {md5}, found {dvc.md5(data)}; "
        text += f"remove it, then {_refill(path)}"
        found.problems.append(_finding(_cached(disk, listing), State.FAILED, text))
        return
    found.md5 |= {f"{path}/{name}": each for name, each in dvc.files(data).items()}


def _open_here(disk: Disk, path: str, expected: str, found: Locked) -> None:
    """Make the list of a folder that the cache lacks, as DVC would, and compare its hash."""
    below = sorted(disk.root.joinpath(path).rglob("*"))
    inner = [file.relative_to(disk.root) for file in below if file.is_file()]
    # .dvcignore leaves out what is hidden.
    every = [file.as_posix() for file in inner if not any(part[0] == "." for part in file.parts)]
    ours = [name for name in every if name in disk.owners]
    for names in (every, ours):
        listed = {name: str(disk.md5(Path(name))) for name in names}
        entries = [{"md5": md5, "relpath": name[len(path) + 1 :]} for name, md5 in listed.items()]
        entries.sort(key=lambda entry: entry["relpath"])
        if dvc.md5(json.dumps(entries, sort_keys=True).encode()) == expected:
            found.md5 |= listed
            return
    state = State.FAILED if every == ours else State.UNKNOWN
    text = f"not what dvc.lock states as a whole (md5 {expected[:_SHOWN]}), and DVC's cache here "
    text += "does not say which file differs; see: dvc pull, then dvc status"
    found.problems.append(_finding(Path(path), state, text))


def _file(disk: Disk, lock: Locked, path: Path) -> Iterator[Finding]:
    stated = lock.md5.get(path.as_posix())
    if stated is None:
        folder = _folder(lock, path)
        listed = folder and any(name.startswith(f"{folder}/") for name in lock.md5)
        if listed and disk.exists(path):
            text = f"dvc.lock does not know it, though it has {folder}; run: dvc repro"
            yield _finding(path, State.FAILED, text)
        return
    found = disk.md5(path)
    if found is None:
        text = f"missing, dvc.lock has it; get it with: dvc checkout {path}, or dvc pull"
        yield _finding(path, State.FAILED, text)
    elif found != stated:
        text = (
            f"dvc.lock states md5 {stated[:_SHOWN]}, here lies {found[:_SHOWN]}; for the bytes of "
        )
        text += f"the lock: dvc checkout --force {path}; to lock what the study says now: dvc repro"
        yield _finding(path, State.FAILED, text)
    yield from _object(disk, path, dvc.path_of(disk.root, stated))


def _object(disk: Disk, path: Path, copy: Path) -> Iterator[Finding]:
    """Check the cache's copy of a file, if it has one of its own."""
    here = disk.root / path
    if not copy.is_file() or (here.exists() and copy.samefile(here)):
        return
    name = copy.parent.name + copy.name
    found = dvc.md5_of(copy)
    if found != name:
        text = f"changed bytes in DVC's cache, its copy of {path}: its name says md5 "
        text += f"{name[:_SHOWN]}, found {found[:_SHOWN]}; remove it, then {_refill(path)}"
        yield Finding("cache", _cached(disk, copy).as_posix(), State.FAILED, text)


def _refill(path: Path | str) -> str:
    """Return how DVC's cache comes to have a file's right bytes again."""
    return (
        f"dvc fetch {path} && dvc checkout {path}; where no remote has it: "
        "robustviews verify && dvc commit --force STAGE (the stage of dvc.yaml that makes it)"
    )


def _folder(lock: Locked, path: Path) -> str | None:
    """Return the folder of dvc.lock that holds a file."""
    return next((str(each) for each in path.parents if each.as_posix() in lock.folders), None)


def _cached(disk: Disk, path: Path) -> Path:
    """Return how to name a file of the cache, which may lie outside of the project."""
    root, folder = disk.root.absolute(), dvc.folder(disk.root).absolute()
    if path.absolute().is_relative_to(root):
        return path.absolute().relative_to(root)
    return Path("DVC's cache") / path.absolute().relative_to(folder)


def _finding(subject: Path, state: State, text: str) -> Finding:
    return Finding("dvc", subject.as_posix(), state, text)
