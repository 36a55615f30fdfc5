"""Checks with git: whether a record's commit exists, and whether its code gives the digest."""

from __future__ import annotations

import io
import re
import shutil
import tarfile
import tempfile
import weakref
from functools import cached_property
from pathlib import Path
from typing import TypeGuard

from robustviews import artifacts
from robustviews.machine.humanize import some
from robustviews.provenance.checks import force_rerun
from robustviews.provenance.disk import Disk
from robustviews.provenance.findings import Finding, State, failed
from robustviews.provenance.times import SLACK
from robustviews.study import specs
from robustviews.study.fingerprint import SOURCE
from robustviews.study.jobs import Job
from robustviews.workflow.metadata import ProjectMetadata

PACKAGE = "src/robustviews"
TRACKED = ("dvc.lock", ".snakemake/metadata")  # paths in git that every run changes
_NAME = re.compile(r"[0-9a-f]{7,64}")
_SHORT = 7
NAMED = 6  # files that a line names; it counts the others


class History:
    """The git repository of a project; runs each command of git once."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._outputs: dict[tuple[str, ...], bytes | None] = {}
        self._sources: dict[str, Path | None] = {}

    @cached_property
    def head(self) -> str | None:
        """Return the commit that is checked out; None if git does not track the package."""
        if not self._text("ls-files", "--", PACKAGE):
            return None  # no repository, or another project's
        text = self._text("rev-parse", "--verify", "HEAD")
        return text.strip() if text else None

    def is_name(self, commit: object) -> TypeGuard[str]:
        """Return whether a record's commit has the form of a commit hash."""
        return isinstance(commit, str) and _NAME.fullmatch(commit) is not None

    def time(self, commit: str) -> float | None:
        """Return when a commit was made, in seconds since the epoch; None if it is unknown."""
        text = self._text("show", "--no-patch", "--format=%ct", f"{commit}^{{commit}}")
        return float(text) if text else None

    def changed(self, commit: str) -> list[str] | None:
        """Return the files of the package that differ from a commit or are new; None if unknown."""
        text = self._fresh(
            "diff", "--name-only", "--no-ext-diff", "--relative", commit, "--", PACKAGE
        )
        new = self._fresh("ls-files", "--others", "--exclude-standard", "--", PACKAGE)
        return None if text is None or new is None else f"{text}{new}".splitlines()

    def file(self, commit: str, path: Path) -> bytes | None:
        """Return the bytes of a file of the project at a commit; None if it did not exist."""
        return self._bytes("cat-file", "blob", f"{commit}:./{path.as_posix()}")

    def sources(self, commit: str) -> Path | None:
        """Return a folder with the package as it was at a commit; None if git does not have it."""
        if commit not in self._sources:
            self._sources[commit] = self._extract(commit)
        return self._sources[commit]

    def remarks(self) -> list[str]:
        """Return a line for each difference from the commit that is checked out."""
        if self.head is None:
            why = "git cannot read the repository here" if (self.root / ".git").exists() else ""
            see = "; see: robustviews doctor" if why else ""
            return [f"{why or 'no git repository here'}: nothing is compared with commits{see}"]
        remarks = [f"git: at {self.head[:_SHORT]}"]
        edited = self._status(PACKAGE)
        if edited:
            names = some(edited, NAMED)
            remarks.append(f"git: sources differ from it: {names}; the digest of the code decides")
        for path in TRACKED:
            if self._status(path):
                remarks.append(f"git: {path} differs from it; if all is verified: git add {path}")
        return remarks

    def _status(self, path: str) -> list[str]:
        text = self._fresh("status", "--porcelain", "--", path) or ""
        return [line[3:] for line in text.splitlines()]

    def _extract(self, commit: str) -> Path | None:
        data = artifacts.git(self.root, "archive", "--format=tar", commit, PACKAGE)
        if not data:
            return None
        folder = self._folder()
        with tarfile.open(fileobj=io.BytesIO(data)) as tar:
            tar.extractall(folder, filter="data")
        return folder / PACKAGE

    def _folder(self) -> Path:
        """Return a new folder, which lives as long as this object."""
        folder = tempfile.mkdtemp(prefix="robustviews-")
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        return Path(folder)

    def _fresh(self, *arguments: str) -> str | None:
        """Return the output of git with a new index, in which no file is assumed unchanged."""
        return self._text(*arguments, index=self._index) if self._index else None

    @cached_property
    def _index(self) -> str | None:
        index = str(self._folder() / "index")
        return None if self._bytes("read-tree", "HEAD", index=index) is None else index

    def _text(self, *arguments: str, index: str = "") -> str | None:
        output = self._bytes(*arguments, index=index)
        return None if output is None else output.decode(errors="replace")

    def _bytes(self, *arguments: str, index: str = "") -> bytes | None:
        key = (*arguments, index)
        if key not in self._outputs:
            self._outputs[key] = artifacts.git(self.root, *arguments, index=index)
        return self._outputs[key]


def package(root: Path) -> list[Finding]:
    """Return a failed finding if a project has sources, and not those of the package that runs."""
    here = root / PACKAGE
    if not here.is_dir() or here.samefile(SOURCE) or _files(here) == _files(SOURCE):
        return []
    text = (
        "the sources here differ from the robustviews that runs, so digests of code and parameters "
        "would be wrong; run the package of this project: .venv/bin/robustviews, or "
        f"PYTHONPATH={Path(PACKAGE).parent} python -m robustviews"
    )
    return [failed("package", PACKAGE, text)]


def _files(folder: Path) -> dict[Path, bytes]:
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*.py")}


def check(disk: Disk, history: History, metadata: ProjectMetadata, job: Job) -> Finding:
    """Check the commit that a job's record names, and whether it was clean.

    Snakemake metadata state when the job ended.
    """
    code = disk.stated(job).code
    state, text = _commit(history, code.commit, code.dirty)
    if state is State.VERIFIED:
        state, text = _content(disk, history, metadata, job)
    return Finding("commit", str(job.record), state, text)


def _commit(history: History, commit: object, dirty: object) -> tuple[State, str]:
    if commit is None:
        text = "unknown: its record names no commit; to record a commit, run it in a git clone"
        return State.UNKNOWN, text
    if not history.is_name(commit):
        return State.FAILED, f"{commit!r} is not a commit; expected hexadecimal digits"
    if history.head is None:
        text = f"cannot be compared: no git repository here that could hold {commit[:_SHORT]}"
        return State.UNKNOWN, text
    if history.time(commit) is None:
        text = f"{commit[:_SHORT]} is not in this repository; get it: git fetch origin {commit}"
        return State.UNKNOWN, text
    if dirty is not False:
        verb = "had" if dirty else "may have had"
        text = f"at {commit[:_SHORT]}, but sources {verb} unknown uncommitted changes; "
        return State.UNKNOWN, f"{text}commit, and run it again"
    return State.VERIFIED, ""


def _content(
    disk: Disk, history: History, metadata: ProjectMetadata, job: Job
) -> tuple[State, str]:
    """Compare the code of a known commit, read from git, with the digest that a record states."""
    code = disk.stated(job).code
    commit, digest = str(code.commit), code.digest
    window = metadata.window(job.writes[0])
    committed = history.time(commit)
    if window and committed is not None and committed > window.end + SLACK:
        text = f"{commit[:_SHORT]} was made after the job had ended, so the job did not run from it"
        return State.FAILED, text
    digest_at_commit = _digest(disk, history, commit, job)
    if digest_at_commit == digest:
        changed, since = history.changed(commit), ""
        if changed is None:
            since = "; git does not report what changed since"
        elif changed:
            unused = ", but not used by the job" if digest == job.spec["code"] else ""
            since = f"; changed since{unused}: {some(changed, NAMED)}"
        return State.VERIFIED, f"from the clean commit {commit[:_SHORT]}{since}"
    if digest != job.spec["code"]:
        text = "cannot be compared: the code that the digest covers has changed since"
        return State.UNKNOWN, f"{commit[:_SHORT]} {text}"
    text = (
        f"the code of {commit[:_SHORT]} has digest {digest_at_commit}, the record states {digest}: "
        f"the job did not run from that clean commit; {force_rerun(disk, job)}"
    )
    return State.FAILED, text


def _digest(disk: Disk, history: History, commit: str, job: Job) -> str | None:
    """Return the digest of a job's code at a commit; None if that code cannot be analysed."""
    source = history.sources(commit)
    if source is None:
        return None
    try:
        return str(specs.spec(disk.study, job.rule, job.name, source=source)["code"])
    except (LookupError, SyntaxError):
        return None
