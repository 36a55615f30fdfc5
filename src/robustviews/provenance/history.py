"""What git knows: whether a record's commit exists, and whether its code gives the digest."""

from __future__ import annotations

import io
import re
import shutil
import subprocess
import tarfile
import tempfile
import weakref
from functools import cached_property
from pathlib import Path
from typing import Any

from robustviews import plan
from robustviews.fingerprint import SOURCE
from robustviews.pending import Job
from robustviews.plan import Spec
from robustviews.provenance.disk import OUTPUTS, Disk, record_of
from robustviews.provenance.findings import Finding, State
from robustviews.provenance.notes import Notes
from robustviews.provenance.times import SLACK

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
        self._changed: dict[str, list[str]] = {}
        self._sources: dict[str, Path | None] = {}

    @cached_property
    def head(self) -> str | None:
        """Return the commit that is checked out; None where git does not track the package."""
        if not self._text("ls-files", "--", PACKAGE):
            return None  # no repository, or one that the project merely lies in
        text = self._text("rev-parse", "--verify", "HEAD")
        return text.strip() if text else None

    def time(self, commit: str) -> float | None:
        """Return when a commit was made, in seconds since the epoch; None where it is unknown."""
        if commit not in self._times:
            text = self._text("show", "--no-patch", "--format=%ct", f"{commit}^{{commit}}")
            self._times[commit] = float(text) if text else None
        return self._times[commit]

    def changed(self, commit: str) -> list[str]:
        """Return which files of the package differ from a commit, or are new."""
        if commit not in self._changed:
            text = self._text("diff", "--name-only", "--relative", commit, "--", PACKAGE) or ""
            new = self._text("ls-files", "--others", "--exclude-standard", "--", PACKAGE) or ""
            self._changed[commit] = [*text.splitlines(), *new.splitlines()]
        return self._changed[commit]

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
        text = self._text("status", "--porcelain", "--", path) or ""
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

    def _bytes(self, *arguments: str) -> bytes | None:
        command = ["git", "-C", str(self.root), *arguments]
        try:
            done = subprocess.run(command, capture_output=True, timeout=60, check=True)
        except (OSError, subprocess.SubprocessError):
            return None
        return done.stdout


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
    if not isinstance(commit, str) or not _NAME.fullmatch(commit):
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
    """Compare the code of a known, clean commit with the digest that the record states."""
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
    here = disk.root / PACKAGE
    # Without a change the digest of the code that runs here is that of the commit.
    same = not changed and here.exists() and SOURCE.samefile(here)
    then = job.spec["code"] if same else _digest(disk, history, commit, job)
    if then == digest:
        since = f"; since then changed, but not what it uses: {_some(changed)}" if changed else ""
        return State.VERIFIED, f"from the clean commit {commit[:_SHORT]}{since}"
    if digest != job.spec["code"]:
        text = f"{commit[:_SHORT]} cannot be compared: which code counts has changed since"
        return State.UNKNOWN, text
    text = (
        f"the code of {commit[:_SHORT]} has digest {then}, the record states {digest}: it did not "
    )
    text += f"run from that commit, clean; remove {job.folder} and run it again"
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
            name for name in study.datasets if plan.data_folder(study, name).name == job.name
        )
        return plan.data_spec(study, dataset, source=source)
    if job.rule == "pretrain":
        return plan.pretrain_spec(study, job.name, source=source)
    if job.rule == "probe":
        run, probe = job.parts
        return plan.probe_spec(study, run, probe, source=source)
    run, probe, attack = job.parts
    return plan.attack_spec(study, run, probe, attack, source=source)


def _some(names: list[str]) -> str:
    shown = ", ".join(names[:_SHOWN])
    return shown if len(names) <= _SHOWN else f"{shown} and {len(names) - _SHOWN} more"
