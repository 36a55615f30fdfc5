"""Records named on the command line: by a folder, a cell, or a git revision."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from robustviews.artifacts import RECORD, ArtifactError, Record
from robustviews.study import cells

if TYPE_CHECKING:
    from robustviews.study.schema import Study


class LocateError(ValueError):
    """A text names no record; the message says what was expected and what to type."""


@dataclass(frozen=True)
class Source:
    """A project from which records are read.

    Attributes:
        root: project folder.
        revision: git revision, whose files DVC reads from git, cache or remote; empty to read from
            disk.
    """

    root: Path
    revision: str = ""

    def record(self, folder: PurePosixPath) -> Record:
        """Return the record in a folder, relative to the project.

        Raises:
            ArtifactError: the record is missing or damaged.
        """
        path = folder / RECORD
        if not self.revision:
            return Record.read(self.root / path, whole=False)
        return Record.parse(self._of_revision(path), f"{self.revision}:{path}", whole=False)

    def _of_revision(self, path: PurePosixPath) -> object:
        where = f"{self.revision}:{path}"
        try:
            return json.loads(self._files.read_text(str(path)))
        except ImportError:
            text = f"{where}: DVC keeps it; type: pip install 'robustviews[workflow]'"
            raise ArtifactError(text) from None
        except Exception as error:  # DVC passes on errors of git, file systems and remotes
            raise ArtifactError(
                f"{where}: {error}; see the revisions: git log --all, and get their results: "
                "dvc fetch --all-commits"
            ) from None

    @cached_property
    def _files(self) -> Any:  # noqa: ANN401  # DVC has no types
        from dvc.api import DVCFileSystem

        return DVCFileSystem(str(self.root), rev=self.revision)


@dataclass(frozen=True)
class End:
    """A job at the end of a chain: the project of its record, and its folder there."""

    source: Source
    folder: PurePosixPath

    def record(self) -> Record:
        """Read its record; raises what `Source.record` raises."""
        return self.source.record(self.folder)


def locate(text: str, load: Callable[[], Study]) -> tuple[list[End], str]:
    """Return the jobs that a text on the command line names.

    Args:
        text: a record.json, a folder with one, TABLE:ROW:COLUMN, or REVISION:PATH.
        load: reads the study to which a cell belongs; called only for cells.

    Returns:
        The last jobs, for a cell one per seed, and the column that the cell reads; empty for a
        record.

    Raises:
        LocateError: the text names nothing.
        CellError: the study has no such cell.
        ArtifactError: the record cannot be read.
    """
    if Path(text).exists():
        return [_on_disk(Path(text))], ""
    if text.count(":") == 2:
        study = load()
        _, cell = cells.find(study, text)
        folders = [job.record.parent for job in cells.ends(study, cell)]
        ends = [End(Source(Path()), PurePosixPath(folder)) for folder in folders]
        return ends, cell.measure.label if cell.eps is None else cell.measure.flag
    revision, _, name = text.partition(":")
    if not (revision and name):
        raise LocateError(
            f"{text}: no such file or folder; expected a {RECORD}, a folder with one, "
            "TABLE:ROW:COLUMN, or REVISION:PATH such as HEAD~1:results/STUDY/pretrain/RUN"
        )
    path = PurePosixPath(name)
    return [End(Source(Path(), revision), path.parent if path.name == RECORD else path)], ""


def home(record: Record) -> PurePosixPath:
    """Return the folder of a record in its project."""
    name = PurePosixPath(record.name)
    if record.stage == "data":
        return "data" / name
    return PurePosixPath("results", str(record.study), record.stage) / name


def _on_disk(path: Path) -> End:
    if path.is_file() and path.name != RECORD:
        raise LocateError(f"{path}: expected a {RECORD} or a folder with one; try: {path.parent}")
    folder = (path.parent if path.is_file() else path).resolve()
    inner = home(Source(folder).record(PurePosixPath()))
    if PurePosixPath(*folder.parts[-len(inner.parts) :]) == inner:
        return End(Source(folder.parents[len(inner.parts) - 1]), inner)
    return End(Source(folder), PurePosixPath())  # copied here without its project
