"""Places that records are read from: a checkout of the project, or a git revision through DVC."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

from robustviews import artifacts
from robustviews.artifacts import RECORD, ArtifactError, Record, records
from robustviews.workflow import dvc


class PlaceError(ValueError):
    """What was typed names no record; the message says what was expected and what to type."""


class Place(Protocol):
    """Where the records of a project can be read."""

    def record(self, folder: PurePosixPath) -> Record:
        """Return the record in a folder, relative to the project.

        Raises:
            ArtifactError: it is not there, or is none.
        """


@dataclass(frozen=True)
class Checkout:
    """A project folder."""

    root: Path

    def record(self, folder: PurePosixPath) -> Record:
        """Return the record in a folder of the project."""
        path = self.root / folder / RECORD
        return _checked(artifacts.read_json(path), str(path))


@dataclass(frozen=True)
class Revision:
    """A project as git and DVC know it at one revision; nothing is checked out.

    Attributes:
        name: of the revision, as typed.
        root: project folder.
    """

    name: str
    root: Path = Path()

    def record(self, folder: PurePosixPath) -> Record:
        """Return a record that git itself tracks, else the one in DVC's cache."""
        path = folder / RECORD
        tracked = self._git("show", "--end-of-options", f"{self.name}:./{path}")
        found = self._cached(path) if tracked is None else _json(tracked, f"{self.name}:{path}")
        return _checked(found, f"{self.name}:{path}")

    def _cached(self, path: PurePosixPath) -> Any:  # noqa: ANN401  # JSON
        if (
            self._git("rev-parse", "--verify", "--end-of-options", f"{self.name}^{{commit}}")
            is None
        ):
            raise PlaceError(
                f"{self.name}:{path}: git knows no revision `{self.name}` here; see: git log --all"
            )
        for out, md5 in self._outs().items():
            if path.is_relative_to(out):
                return self._in_out(out, md5, path)
        raise ArtifactError(
            f"{self.name}:{path}: neither in git nor in dvc.lock of that revision; see what is: "
            f"git show {self.name}:./dvc.lock"
        )

    def _outs(self) -> dict[str, str]:
        """Return the md5 of each output that dvc.lock names, by path."""
        text = self._git("show", "--end-of-options", f"{self.name}:./{dvc.LOCK}")
        try:
            return {} if text is None else dvc.outs(text)
        except dvc.LockError as error:
            raise ArtifactError(f"{self.name}:{dvc.LOCK}: {error}") from None

    def _in_out(self, out: str, md5: str, path: PurePosixPath) -> Any:  # noqa: ANN401  # JSON
        where = f"{self.name}:{path}"
        if md5.endswith(".dir"):
            inner = path.relative_to(out).as_posix()
            files = dvc.files(self._object(md5, out, where))
            if inner not in files:
                raise ArtifactError(
                    f"{where}: {out} of that revision, as DVC keeps it, has no {inner}"
                )
            md5 = files[inner]
        return _json(self._object(md5, out, where), where)

    def _object(self, md5: str, out: str, where: str) -> bytes:
        """Return the bytes that DVC keeps under a hash, checked against it."""
        path, expected = dvc.path_of(self.root, md5), md5.removesuffix(".dir")
        try:
            data = path.read_bytes()
        except OSError:
            raise ArtifactError(
                f"{where}: not in the DVC cache here ({path}); get it with: "
                f"dvc fetch --all-commits {out}"
            ) from None
        found = dvc.md5(data)
        if found != expected:
            raise ArtifactError(
                f"{path}: changed bytes in the DVC cache: expected md5 {expected}, found {found}; "
                f"remove it and type: dvc fetch --all-commits {out}"
            )
        return data

    def _git(self, *arguments: str) -> bytes | None:
        command = ["git", "-C", str(self.root), *arguments]
        try:
            done = subprocess.run(command, capture_output=True, timeout=30, check=True)
        except (OSError, subprocess.SubprocessError):
            return None
        return done.stdout


def locate(text: str) -> tuple[Place, PurePosixPath]:
    """Return where a record lies that somebody named, and its folder in its project.

    Args:
        text: a record.json or a folder with one, anywhere; or REVISION:PATH of this project.

    Raises:
        PlaceError: there is none.
        ArtifactError: it cannot be read.
    """
    if Path(text).exists():
        return _on_disk(Path(text))
    revision, colon, path = text.partition(":")
    if colon and revision and path:
        folder = PurePosixPath(path)
        return Revision(revision), folder.parent if folder.name == RECORD else folder
    raise PlaceError(
        f"{text}: no such file or folder; expected a record.json, a folder with one, "
        f"TABLE:ROW:COLUMN, or REVISION:PATH such as HEAD~1:results/STUDY/pretrain/RUN"
    )


def _on_disk(path: Path) -> tuple[Checkout, PurePosixPath]:
    folder = (path.parent if path.is_file() else path).resolve()
    if path.is_file() and path.name != RECORD:
        raise PlaceError(f"{path}: expected a {RECORD} or a folder with one; try: {path.parent}")
    record = Checkout(folder).record(PurePosixPath())
    inner = home(record)
    if PurePosixPath(*folder.parts[-len(inner.parts) :]) == inner:
        return Checkout(folder.parents[len(inner.parts) - 1]), inner
    return Checkout(folder), PurePosixPath()  # carried here without its project


def home(record: Record) -> PurePosixPath:
    """Return the folder of a record in its project."""
    name = PurePosixPath(record["name"])
    if record["stage"] == "data":
        return "data" / name
    return PurePosixPath("results", str(record.get("study")), record["stage"]) / name


def _json(data: bytes, where: str) -> Any:  # noqa: ANN401  # JSON
    try:
        return json.loads(data)
    except ValueError as error:
        raise ArtifactError(f"{where}: damaged ({error})") from None


def _checked(record: Any, where: str) -> Record:  # noqa: ANN401  # JSON
    return records.require(record, where, whole=False)
