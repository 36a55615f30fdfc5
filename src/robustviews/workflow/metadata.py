"""Snakemake's metadata: what it wrote down about each output, read without Snakemake.

One JSON file per output in .snakemake/metadata, named by the output's path in URL-safe base64.
"""

from __future__ import annotations

import base64
import binascii
import os
from pathlib import Path
from typing import Any, NamedTuple

from robustviews import artifacts
from robustviews.artifacts import ArtifactError

Note = dict[str, Any]

_SNAKEMAKE = Path(".snakemake")
FOLDER = _SNAKEMAKE / "metadata"


class Window(NamedTuple):
    """When Snakemake saw a job begin and end, in seconds since the epoch."""

    start: float
    end: float


def output_of(path: Path) -> Path | None:
    """Return the output that a file of Snakemake's metadata is about; None for another file."""
    text = "".join(part.removeprefix("@") for part in path.relative_to(FOLDER).parts)
    try:
        return Path(base64.urlsafe_b64decode(text).decode())
    except (binascii.Error, UnicodeDecodeError):
        return None


class Notes:
    """The notes of a project, each read once.

    Attributes:
        root: project folder.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._read: dict[Path, Note | ArtifactError | None] = {}

    def __bool__(self) -> bool:
        """Return whether there are any."""
        folder = self.root / FOLDER
        return folder.is_dir() and any(folder.iterdir())

    def of(self, output: Path) -> Note | ArtifactError | None:
        """Return the note of an output, why it cannot be read, or None where there is none."""
        if output not in self._read:
            self._read[output] = self._load(self.path(output))
        return self._read[output]

    def path(self, output: Path, kind: str = "metadata") -> Path:
        """Return where Snakemake keeps the note of an output, relative to the project."""
        name = base64.urlsafe_b64encode(output.as_posix().encode()).decode()
        width = self._longest() - 1
        parts = [name[start : start + width] for start in range(0, len(name), width)]
        return _SNAKEMAKE.joinpath(kind, *(f"@{part}" for part in parts[:-1]), parts[-1])

    def unfinished(self, output: Path) -> bool:
        """Return whether Snakemake was interrupted while it made an output."""
        return (self.root / self.path(output, "incomplete")).exists()

    def window(self, output: Path) -> Window | None:
        """Return when an output was made, as far as its note says."""
        note = self.of(output)
        if not isinstance(note, dict):
            return None
        start, end = note.get("starttime"), note.get("endtime")
        if isinstance(start, int | float) and isinstance(end, int | float):
            return Window(start, end)
        return None

    def _longest(self) -> int:
        try:
            return os.pathconf(self.root, "PC_NAME_MAX") or 255
        except (OSError, ValueError, AttributeError):
            return 255

    def _load(self, path: Path) -> Note | ArtifactError | None:
        if not (self.root / path).exists():
            return None
        try:
            note = artifacts.read_json(self.root / path)
        except ArtifactError as error:
            return error
        return note if isinstance(note, dict) else ArtifactError(f"{path}: no note of Snakemake")
