"""What git knows: whether a record's commit exists, and whether its code gives the digest."""

from __future__ import annotations

import io
import os
import re
import shutil
import subprocess
import tarfile
import tempfile
import weakref
from functools import cached_property
from pathlib import Path
from typing import Any, TypeGuard

from robustviews.provenance.checks import again
from robustviews.provenance.disk import Disk, record_of
from robustviews.provenance.findings import Finding, State
from robustviews.provenance.times import SLACK
from robustviews.study import folders, specs
from robustviews.study.fingerprint import SOURCE
from robustviews.study.folders import OUTPUTS
from robustviews.study.jobs import Job
from robustviews.study.specs import Spec
from robustviews.workflow.metadata import Notes

PACKAGE = "src/robustviews"
TRACKED = ("dvc.lock", ".snakemake/metadata")  # what runs change and git keeps
_NAME = re.compile(r"[0-9a-f]{7,64}")
_SHORT = 7
_SHOWN = 6  # names of files that a line lists before it only counts them


class History:
    """The repository that a project lies in, asked each question once.

    Attributes:
        root: project folder.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._times: dict[str, float | None] = {}
        self._changed: dict[str, list[str] | None] = {}
        self._texts: dict[tuple[str, Path], bytes | None] = {}
        self._sources: dict[str, Path | None] = {}

    @cached_property
    def head(self) -> str | None:
        """Return the commit that is checked out; None where git does not track the package."""
        if not self._text("ls-files", "--", PACKAGE):
            return None  # no repository, or one that the project merely lies in
        text = self._text("rev-parse", "--verify", "HEAD")
        return text.strip() if text else None

    def is_name(self, commit: object) -> TypeGuard[str]:
        """Return whether a record's commit can be the name of one."""
        return isinstance(commit, str) and _NAME.fullmatch(commit) is not None

    def time(self, commit: str) -> float | None:
        """Return when a commit was made, in seconds since the epoch; None where it is unknown."""
        if commit not in self._times:
            text = self._text("show", "--no-patch", "--format=%ct", f"{commit}^{{commit}}")
            self._times[commit] = float(text) if text else None
        return self._times[commit]

    def changed(self, commit: str) -> list[str] | None:
        """Return which files of the package differ from a commit, or are new; None if unknown."""
        if commit not in self._changed:
            text = self._plain("diff", "--name-only", "--relative", commit, "--", PACKAGE)
            new = self._plain("ls-files", "--others", "--exclude-standard", "--", PACKAGE)
            unknown = text is None or new is None
            self._changed[commit] = None if unknown else f"{text}{new}".splitlines()
        return self._changed[commit]

    def file(self, commit: str, path: Path) -> bytes | None:
        """Return a file as it was at a commit, by its path in the project; None without it."""
        if (commit, path) not in self._texts:
            found = self._bytes("show", f"{commit}:./{path.as_posix()}")
            self._texts[commit, path] = found
        return self._texts[commit, path]

    def sources(self, commit: str) -> Path | None:
        """Return a folder with the package as it was at a commit; None where git has it not."""
        if commit not in self._sources:
            self._sources[commit] = self._extract(commit)
        return self._sources[commit]

    def remarks(self) -> list[str]:
        """Say what differs from the commit that is checked out."""
        if self.head is None:
            return ["no git repository here: what was committed is not compared"]
        remarks = [f"git: at {self.head[:_SHORT]}"]
        edited = self._status(PACKAGE)
        if edited:
            remarks.append(
                f"git: sources differ from it: {_some(edited)}; the digest of code decides"
            )
        for path in TRACKED:
            if self._status(path):
                remarks.append(f"git: {path} differs from it; when all is well: git add {path}")
        return remarks

    def _status(self, path: str) -> list[str]:
        text = self._plain("status", "--porcelain", "--", path) or ""
        return [line[3:] for line in text.splitlines()]

    def _extract(self, commit: str) -> Path | None:
        data = self._bytes("archive", "--format=tar", commit, PACKAGE)
        if not data:
            return None
        folder = tempfile.mkdtemp(prefix="robustviews-")
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        with tarfile.open(fileobj=io.BytesIO(data)) as tar:
            tar.extractall(folder, filter="data")
        return Path(folder) / PACKAGE

    def _text(self, *arguments: str) -> str | None:
        found = self._bytes(*arguments)
        return None if found is None else found.decode(errors="replace")

    def _plain(self, *arguments: str) -> str | None:
        """Return what git says with an index of its own, where no file is told to be unchanged."""
        found = self._bytes(*arguments, index=self._index) if self._index else None
        return None if found is None else found.decode(errors="replace")

    @cached_property
    def _index(self) -> str | None:
        folder = tempfile.mkdtemp(prefix="robustviews-")
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        index = str(Path(folder) / "index")
        return None if self._bytes("read-tree", "HEAD", index=index) is None else index

    def _bytes(self, *arguments: str, index: str = "") -> bytes | None:
        command = ["git", "-C", str(self.root), *arguments]
        environment = {**os.environ, "GIT_INDEX_FILE": index} if index else None
        try:
            done = subprocess.run(
                command, capture_output=True, timeout=60, check=True, env=environment
            )
        except (OSError, subprocess.SubprocessError):
            return None
        return done.stdout


def package(root: Path) -> list[Finding]:
    """Check that the package that runs is the project's own, where the project has one.

    Args:
        root: project folder.

    Returns:
        Nothing where it is, or where it has the same files; else what to type to run the right one.
    """
    here = root / PACKAGE
    if not here.is_dir() or here.samefile(SOURCE) or _files(here) == _files(SOURCE):
        return []
    text = (
        "the sources here are not those of the robustviews that runs, so digests of code and "
        "parameters would be those of others; run it from here: .venv/bin/robustviews, or "
        f"PYTHONPATH={Path(PACKAGE).parent} python -m robustviews"
    )
    return [Finding("package", PACKAGE, State.FAILED, text)]


def _files(folder: Path) -> dict[Path, bytes]:
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*.py")}


def check(disk: Disk, history: History, notes: Notes, job: Job) -> Finding:
    """Check the commit that a finished job's record names, and whether it was clean.

    Args:
        disk: files of the study.
        history: of the project.
        notes: of Snakemake, which know when a job ended.
        job: a computing one, with a record.
    """
    code = disk.section(job, "code")
    commit, dirty = code.get("commit"), code.get("dirty")
    state, text = _commit(history, commit, dirty)
    if state is State.VERIFIED:
        state, text = _content(disk, history, notes, job)
    return Finding("commit", record_of(job).as_posix(), state, text)


def _commit(history: History, commit: object, dirty: object) -> tuple[State, str]:
    if commit is None:
        text = "unknown: its record names no commit; run it from a clone to have one"
        return State.UNKNOWN, text
    if not history.is_name(commit):
        return State.FAILED, f"{commit!r} is no name of a commit; expected hexadecimal digits"
    if history.head is None:
        text = f"cannot be compared: no git repository here to look {commit[:_SHORT]} up in"
        return State.UNKNOWN, text
    if history.time(commit) is None:
        text = (
            f"{commit[:_SHORT]} is not in this repository; look for it: git fetch origin {commit}"
        )
        return State.UNKNOWN, text
    if dirty is not False:
        said = "had uncommitted changes" if dirty else "may have had uncommitted changes"
        text = (
            f"at {commit[:_SHORT]}, but sources {said}: which is unknown; commit, and run it again"
        )
        return State.UNKNOWN, text
    return State.VERIFIED, ""


def _content(disk: Disk, history: History, notes: Notes, job: Job) -> tuple[State, str]:
    """Compare the code of a known commit, read from git, with the digest that a record states."""
    assert job.folder is not None
    code = disk.section(job, "code")
    commit, digest = str(code["commit"]), code.get("digest")
    window = notes.window(job.folder / OUTPUTS[job.rule][0])
    made = history.time(commit)
    if window and made is not None and made > window.end + SLACK:
        text = (
            f"{commit[:_SHORT]} was made only after the job had ended: not the commit it ran from"
        )
        return State.FAILED, text
    changed = history.changed(commit)
    assert job.spec is not None
    then = _digest(disk, history, commit, job)
    if then == digest:
        since = f"; since then changed, but not what it uses: {_some(changed)}" if changed else ""
        if digest != job.spec["code"]:
            since = f"; since then changed: {_some(changed)}" if changed else ""
        if changed is None:
            since = "; git does not tell what changed since"
        return State.VERIFIED, f"from the clean commit {commit[:_SHORT]}{since}"
    if digest != job.spec["code"]:
        text = f"{commit[:_SHORT]} cannot be compared: which code counts has changed since"
        return State.UNKNOWN, text
    text = (
        f"the code of {commit[:_SHORT]} has digest {then}, the record states {digest}: it did not "
    )
    text += f"run from that commit, clean; {again(disk, job)}"
    return State.FAILED, text


def _digest(disk: Disk, history: History, commit: str, job: Job) -> str | None:
    """Return the digest of a job's code at a commit; None where that code could not be followed."""
    source = history.sources(commit)
    if source is None:
        return None
    try:
        digest: Any = _spec_at(disk, job, source)["code"]
    except (LookupError, SyntaxError):
        return None
    return str(digest)


def _spec_at(disk: Disk, job: Job, source: Path) -> Spec:
    study = disk.study
    if job.rule == "data":
        dataset = next(
            name for name in study.datasets if folders.data_folder(study, name).name == job.name
        )
        return specs.data_spec(study, dataset, source=source)
    if job.rule == "pretrain":
        return specs.pretrain_spec(study, job.name, source=source)
    if job.rule == "probe":
        run, probe = job.parts
        return specs.probe_spec(study, run, probe, source=source)
    run, probe, attack = job.parts
    return specs.attack_spec(study, run, probe, attack, source=source)


def _some(names: list[str]) -> str:
    shown = ", ".join(names[:_SHOWN])
    return shown if len(names) <= _SHOWN else f"{shown} and {len(names) - _SHOWN} more"
