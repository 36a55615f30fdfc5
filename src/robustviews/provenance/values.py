"""Cells worked out again, from the flags themselves: nothing of the results frame or the tables."""

from __future__ import annotations

from collections.abc import Iterator
from statistics import fmean
from typing import TYPE_CHECKING, Any

from robustviews import artifacts
from robustviews.artifacts import ArtifactError
from robustviews.plan import Cell
from robustviews.provenance.disk import Disk, record_of
from robustviews.provenance.findings import Finding, State

if TYPE_CHECKING:
    import numpy as np


def value(disk: Disk, cell: Cell) -> float | None:
    """Return what a cell must say: mean accuracy over seeds, a fraction, or mean minutes.

    Returns:
        None where the files of a seed are missing or cannot be read.
    """
    try:
        return fmean(_of_runs(disk, cell))
    except (ArtifactError, LookupError, TypeError):  # said where the job is checked
        return None


def _of_runs(disk: Disk, cell: Cell) -> Iterator[float]:
    for run in cell.runs:
        if cell.attack is None:
            record = disk.record(disk.jobs["pretrain", run])
            if isinstance(record, ArtifactError):
                raise record
            yield float(record["seconds"]) / 60
        else:
            flags = read_flags(disk, f"{run}/{cell.probe}/{cell.attack}")
            right = flags["clean" if cell.eps is None else f"eps_{cell.eps:g}"]
            yield int((right == 1).sum()) / len(right)


def read_flags(disk: Disk, name: str) -> dict[str, np.ndarray[Any, Any]]:
    """Return the flags of an evaluation, RUN/PROBE/ATTACK."""
    path = record_of(disk.jobs["attack", name]).with_name("flags.safetensors")
    return artifacts.read_arrays(disk.root / path)


def of_cell(subject: str, computed: float | None) -> Finding:
    """Say whether a cell could be computed."""
    if computed is None:
        text = "cannot be computed: a record or flags are missing or damaged; see its jobs"
        return Finding("value", subject, State.UNKNOWN, text)
    return Finding("value", subject, State.VERIFIED, "computed again from its flags or record")
