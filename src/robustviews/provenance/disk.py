"""Files on disk: each hashed once, each record read once, and which job owns which file."""

from __future__ import annotations

import hashlib
import shlex
from functools import cached_property
from pathlib import Path

from robustviews import artifacts, commands
from robustviews.artifacts import ArtifactError, Record
from robustviews.study import folders, jobs
from robustviews.study.jobs import Job, Key
from robustviews.study.schema import Study
from robustviews.workflow import dvc

_SHOWN = 19  # characters of a hash that messages show: `sha256:` and twelve digits


class Disk:
    """A study's files below a project folder; paths are relative to the folder.

    Attributes:
        study: whose files.
        root: project folder.
        jobs: of the study, each after the jobs that it needs.
    """

    def __init__(self, study: Study, root: Path) -> None:
        self.study, self.root = study, root
        self.jobs: dict[Key, Job] = jobs.jobs(study)
        self._hashes: dict[Path, str | None] = {}
        self._md5: dict[Path, str | None] = {}
        self._records: dict[Path, Record | ArtifactError] = {}

    @cached_property
    def owners(self) -> dict[str, Key]:
        """Return the job that writes each file of the study, records included."""
        jobs = self.jobs.values()
        return {path.as_posix(): job.key for job in jobs for path in self.files(job)}

    def files(self, job: Job) -> tuple[Path, ...]:
        """Return the files that a job writes, its record last, with all images of a data set."""
        return *(path for path in job.writes[:-1]), *self.further(job), job.writes[-1]

    def further(self, job: Job) -> dict[Path, str]:
        """Return the checksums of the images that fill more than one file, by path."""
        if job.folder is None:
            return {}
        stated = folders.further(self.root / job.folder)
        return {job.folder / name: checksum for name, checksum in stated.items()}

    def sha256(self, path: Path) -> str | None:
        """Return `sha256:<hex>` of a file; None if it cannot be read."""
        if path not in self._hashes:
            try:
                self._hashes[path] = artifacts.sha256(self.root / path)
            except ArtifactError:
                self._hashes[path] = None
        return self._hashes[path]

    def md5(self, path: Path) -> str | None:
        """Return the md5 of a file in hexadecimal, as DVC writes it; None if it cannot be read."""
        if path not in self._md5:
            try:
                self._md5[path] = dvc.md5_of(self.root / path)
            except OSError:
                self._md5[path] = None
        return self._md5[path]

    def exists(self, path: Path) -> bool:
        """Return whether a file exists; a broken link does not."""
        return (self.root / path).is_file()

    def record(self, job: Job) -> Record | ArtifactError:
        """Return a job's record, or the error of reading it."""
        path = job.record
        if path not in self._records:
            try:
                json = artifacts.read_json(self.root / path)
                self._records[path] = Record.parse(json, path)
            except ArtifactError as error:
                self._records[path] = error
        return self._records[path]

    def is_readable(self, job: Job) -> bool:
        """Return whether a job has a record with all sections."""
        return not isinstance(self.record(job), ArtifactError)

    def stated(self, job: Job) -> Record:
        """Return a job's record; an empty one, which knows nothing, if it cannot be read."""
        record = self.record(job)
        return Record() if isinstance(record, ArtifactError) else record

    def data_of(self, job: Job) -> Job:
        """Return the job that prepared the data which a job reads."""
        return next(self.jobs[need] for need in job.needs if need[0] == "data")

    def make(self, *arguments: object) -> str:
        """Return the command by which Snakemake makes files of this study."""
        return commands.snakemake(self.study.file, *arguments)

    def remake(self, path: Path) -> str:
        """Return the suggested command for one wrong file: restore it, or make it again."""
        text = f"remove it and make it again: {removal(path)} && {self.make(path)}"
        return f"{self.restore(path)}{text}"

    def restore(self, path: Path) -> str:
        """Return the command that restores the locked bytes, and ` or `; empty without DVC."""
        if not self.exists(dvc.LOCK):
            return ""
        return f"restore it: dvc checkout --force {shlex.quote(path.as_posix())}; or else "


def removal(path: Path, *options: str) -> str:
    """Return the command that removes a file, or with `-r` a folder."""
    return shlex.join(["rm", *options, path.as_posix()])


def sha256_of(data: bytes) -> str:
    """Return `sha256:<hex>` of bytes."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def short(value: object) -> str:
    """Return the first characters of a hash, for messages."""
    return "nothing" if value is None else str(value)[:_SHOWN]
