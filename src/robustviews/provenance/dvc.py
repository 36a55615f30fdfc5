"""Checks with DVC: files compared with dvc.lock, and cached files compared with their names.

`dvc status` trusts the name of a cached file. So these checks read lock and cache without DVC, and
hash every cached copy of a file of the study.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from robustviews.provenance.disk import Disk
from robustviews.provenance.findings import Finding, State, failed, verified
from robustviews.provenance.history import History
from robustviews.study import folders
from robustviews.study.jobs import Job, Key
from robustviews.workflow import dvc

_SHOWN = 8  # hexadecimal digits of a hash that messages show


@dataclass
class Locked:
    """Content of dvc.lock.

    Attributes:
        md5: of each file that the lock names, by path relative to the project.
        folders: md5 of each folder that the lock names as a whole, by path.
        problems: findings about the lock, or about the file lists of its folders.
    """

    md5: dict[str, str] = field(default_factory=dict)
    folders: dict[str, str] = field(default_factory=dict)
    problems: list[Finding] = field(default_factory=list)


def locked(disk: Disk) -> Locked | None:
    """Read dvc.lock and the file lists of its folders; None if there is no dvc.lock."""
    if not disk.exists(dvc.LOCK):
        return None
    lock = Locked()
    try:
        outs = dvc.outs((disk.root / dvc.LOCK).read_bytes())
    except (OSError, dvc.LockError) as error:
        text = f"{error}; restore it: git checkout dvc.lock"
        lock.problems.append(failed("dvc", dvc.LOCK, text))
        return lock
    for path, md5 in outs.items():
        if md5.endswith(".dir"):
            lock.folders[path] = md5
            _read_list(disk, path, md5, lock)
        else:
            lock.md5[path] = md5
    return lock


def missing(disk: Disk, history: History) -> list[Finding]:
    """Report a dvc.lock that git has, but that is not here: nobody else covers the last files."""
    content = history.file(history.head, dvc.LOCK) if history.head else None
    if content is None or folders.results_folder(disk.study).as_posix().encode() not in content:
        return []  # DVC is not in use for this study
    text = "git has it, but it is not here; restore it: git checkout HEAD -- dvc.lock"
    return [failed("dvc", dvc.LOCK, text)]


def check(disk: Disk, lock: Locked, jobs: Iterable[Job]) -> dict[Key, list[Finding]]:
    """Check the files of some jobs against dvc.lock, and their cached copies against their names.

    Returns:
        Findings by job; none for a job of which dvc.lock names no file.
    """
    result = {}
    for job in jobs:
        files = disk.files(job)
        findings = [finding for path in files for finding in _file(disk, lock, path)]
        locked_files = sum(path.as_posix() in lock.md5 for path in files)
        if locked_files and not findings:
            text = f"{locked_files} files have the md5 that dvc.lock states"
            findings = [verified("dvc", job.writes[-1], text)]
        if findings:
            result[job.key] = findings
    return result


def covers(disk: Disk, lock: Locked) -> bool:
    """Return whether dvc.lock names any file of the study."""
    return any(name in lock.md5 or _folder(lock, Path(name)) for name in disk.owners)


def _read_list(disk: Disk, path: str, md5: str, lock: Locked) -> None:
    """Add the files of a locked folder, by the list in the cache or else by the folder itself."""
    listing, expected = dvc.path_of(disk.root, md5), md5.removesuffix(".dir")
    try:
        data = listing.read_bytes()
    except OSError:
        _rebuild_list(disk, path, expected, lock)
        return
    try:
        if dvc.md5(data) != expected:
            text = f"changed bytes in DVC's cache: its name says md5 {md5}, found {dvc.md5(data)}"
            raise dvc.LockError(text)
        listed = dvc.files(data)
    except dvc.LockError as error:
        text = f"{error}; remove it, then {_refill(path)}"
        lock.problems.append(failed("dvc", _cached(disk, listing), text))
        return
    lock.md5 |= {f"{path}/{name}": file_md5 for name, file_md5 in listed.items()}


def _rebuild_list(disk: Disk, path: str, expected: str, lock: Locked) -> None:
    """Build the list of a folder as DVC does, and add its files if the hash is as expected."""
    below = sorted(disk.root.joinpath(path).rglob("*"))
    inner = [file.relative_to(disk.root) for file in below if file.is_file()]
    # .dvcignore leaves out hidden files.
    every = [file.as_posix() for file in inner if not any(part[0] == "." for part in file.parts)]
    ours = [name for name in every if name in disk.owners]
    for names in (every, ours):
        listed = {name: str(disk.md5(Path(name))) for name in names}
        entries = [{"md5": md5, "relpath": name[len(path) + 1 :]} for name, md5 in listed.items()]
        entries.sort(key=lambda entry: entry["relpath"])
        if dvc.md5(json.dumps(entries, sort_keys=True).encode()) == expected:
            lock.md5 |= listed
            return
    state = State.FAILED if every == ours else State.UNKNOWN
    text = f"differs from dvc.lock as a whole (md5 {expected[:_SHOWN]}), and DVC's cache here "
    text += "does not list its files; to see which differ: dvc pull, then dvc status"
    lock.problems.append(Finding("dvc", path, state, text))


def _file(disk: Disk, lock: Locked, path: Path) -> Iterator[Finding]:
    stated = lock.md5.get(path.as_posix())
    if stated is None:
        folder = _folder(lock, path)
        listed = folder and any(name.startswith(f"{folder}/") for name in lock.md5)
        if listed and disk.exists(path):
            text = f"dvc.lock does not list it, though it lists {folder}; run: dvc repro"
            yield failed("dvc", path, text)
        return
    actual = disk.md5(path)
    if actual is None:
        text = f"missing, but in dvc.lock; restore it: dvc checkout {path}, or dvc pull; if no "
        text += f"remote has it, make it again: {disk.make(path)}"
        yield failed("dvc", path, text)
    elif actual != stated:
        text = (
            f"dvc.lock states md5 {stated[:_SHOWN]}, found {actual[:_SHOWN]}; to restore the "
            f"locked bytes: dvc checkout --force {path}; to lock new results: dvc repro"
        )
        yield failed("dvc", path, text)
    yield from _copy(disk, path, dvc.path_of(disk.root, stated))


def _copy(disk: Disk, path: Path, copy: Path) -> Iterator[Finding]:
    """Check the cached copy of a file, unless the file is a link to it."""
    file = disk.root / path
    if not copy.is_file() or (file.exists() and copy.samefile(file)):
        return
    name = copy.parent.name + copy.name
    actual = dvc.md5_of(copy)
    if actual != name:
        text = f"changed bytes in DVC's cache, its copy of {path}: its name says md5 "
        text += f"{name[:_SHOWN]}, found {actual[:_SHOWN]}; remove it, then {_refill(path)}"
        yield failed("cache", _cached(disk, copy), text)


def _refill(path: Path | str) -> str:
    """Return the commands that put the right bytes of a file back into DVC's cache."""
    return (
        f"dvc fetch {path} && dvc checkout {path}; if no remote has it: "
        "robustviews verify && dvc commit --force STAGE (the stage of dvc.yaml that makes it)"
    )


def _folder(lock: Locked, path: Path) -> str | None:
    """Return the folder of dvc.lock that holds a file."""
    return next((str(parent) for parent in path.parents if parent.as_posix() in lock.folders), None)


def _cached(disk: Disk, path: Path) -> Path:
    """Return how messages name a cached file, which may lie outside the project."""
    root, folder = disk.root.absolute(), dvc.folder(disk.root).absolute()
    if path.absolute().is_relative_to(root):
        return path.absolute().relative_to(root)
    return Path("DVC's cache") / path.absolute().relative_to(folder)
