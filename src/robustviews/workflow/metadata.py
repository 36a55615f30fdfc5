"""Snakemake metadata: what Snakemake stores about each output, read without Snakemake.

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

MetadataEntry = dict[str, Any]  # metadata of one output

SNAKEMAKE = Path(".snakemake")
FOLDER = SNAKEMAKE / "metadata"


class Window(NamedTuple):
    """When a job started and ended by Snakemake metadata, in seconds since the epoch."""

    start: float
    end: float


def output_of(path: Path) -> Path | None:
    """Return the output that a metadata file describes; None for another file."""
    text = "".join(part.removeprefix("@") for part in path.relative_to(FOLDER).parts)
    try:
        return Path(base64.urlsafe_b64decode(text).decode())
    except (binascii.Error, UnicodeDecodeError):
        return None


class ProjectMetadata:
    """The Snakemake metadata of a project, each file read once.

    Attributes:
        root: project folder.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._entries: dict[Path, MetadataEntry | ArtifactError | None] = {}

    def of(self, output: Path) -> MetadataEntry | ArtifactError | None:
        """Return the metadata of an output, or the error of reading it; None if there is none."""
        if output not in self._entries:
            self._entries[output] = self._load(self.path(output))
        return self._entries[output]

    def path(self, output: Path, kind: str = "metadata") -> Path:
        """Return where Snakemake keeps the metadata of an output, relative to the project."""
        name = base64.urlsafe_b64encode(output.as_posix().encode()).decode()
        width = self._longest() - 1
        parts = [name[start : start + width] for start in range(0, len(name), width)]
        return SNAKEMAKE.joinpath(kind, *(f"@{part}" for part in parts[:-1]), parts[-1])

    def unfinished(self, output: Path) -> bool:
        """Return whether Snakemake was interrupted while it made an output."""
        return (self.root / self.path(output, "incomplete")).exists()

    def window(self, output: Path) -> Window | None:
        """Return when the job of an output ran; None if its metadata does not say."""
        entry = self.of(output)
        if not isinstance(entry, dict):
            return None
        start, end = entry.get("starttime"), entry.get("endtime")
        if isinstance(start, int | float) and isinstance(end, int | float):
            return Window(start, end)
        return None

    def _longest(self) -> int:
        try:
            return os.pathconf(self.root, "PC_NAME_MAX") or 255
        except (OSError, ValueError, AttributeError):
            return 255

    def _load(self, path: Path) -> MetadataEntry | ArtifactError | None:
        if not (self.root / path).exists():
            return None
        try:
            entry = artifacts.read_json(self.root / path)
        except ArtifactError as error:
            return error
        if not isinstance(entry, dict):
            return ArtifactError(f"{path}: expected Snakemake metadata, found another kind of JSON")
        return entry
