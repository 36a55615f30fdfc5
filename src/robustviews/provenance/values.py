"""Cells worked out again, from the flags themselves: nothing of the results frame or the tables."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from robustviews import artifacts
from robustviews.artifacts import ArtifactError
from robustviews.attacks import flag_name
from robustviews.provenance.checks import mend
from robustviews.provenance.disk import Disk, record_of
from robustviews.provenance.findings import Finding, State
from robustviews.study import folders
from robustviews.study.cells import Address
from robustviews.study.jobs import Job
from robustviews.study.plan import Cell

Flags = dict[str, np.ndarray[Any, Any]]

_DIGITS = 1e-5  # of a number that a table's CSV writes with six digits
_FLOAT32 = 1e-6  # of an accuracy that a record holds


def value(disk: Disk, cell: Cell) -> float | None:
    """Return what a cell must say: mean accuracy over seeds, a fraction, or mean minutes.

    Returns:
        None where the files of a seed are missing or cannot be read.
    """
    try:
        return fmean(_of_runs(disk, cell))
    except (ArtifactError, LookupError, TypeError, ValueError):  # said where the job is checked
        return None


def check_cell(disk: Disk, address: Address, cell: Cell, computed: float | None) -> Finding:
    """Compare a cell of a table on disk with its value as computed again.

    Args:
        disk: files of the study.
        address: of the cell.
        cell: what it is made from.
        computed: what `value` returned.
    """
    path = folders.results_folder(disk.study) / "tables" / f"{address.table}.csv"
    if computed is None:
        text = "cannot be computed: a record or flags are missing or damaged; see its jobs"
        return Finding("value", str(address), State.UNKNOWN, text)
    said = _said(disk.root / path, cell)
    if said is None:
        text = f"{path} does not have it; make it again: {disk.make(path)}"
        return Finding("value", str(address), State.UNKNOWN, text)
    scaled = computed if cell.attack is None else computed * 100
    if not _equal(said, scaled):
        text = f"{path} says {said}, its flags and records give {scaled:.6g}; "
        text += disk.remake(path)
        return Finding("value", str(address), State.FAILED, text)
    unit, source = ("minutes", "records") if cell.attack is None else ("%", "flags")
    text = f"{scaled:.6g} {unit}, computed again from {source} of {len(cell.runs)} runs"
    text = text.replace("of 1 runs", "of 1 run")
    return Finding("value", str(address), State.VERIFIED, text)


def check_flags(disk: Disk, job: Job) -> list[Finding]:
    """Check that an attack's flags can be flags of the test images that it must have attacked.

    Args:
        disk: files of the study.
        job: of rule `attack`.
    """
    assert job.folder is not None
    path = job.folder / folders.FLAGS
    if not disk.exists(path):
        return []  # told where its bytes are checked
    try:
        wrong = list(_wrong_flags(disk, job, read_flags(disk, job.name)))
    except (ArtifactError, ValueError, TypeError, OSError) as error:
        wrong = [f"cannot be read: {error}"]
    if wrong:
        return [
            Finding("flags", path.as_posix(), State.FAILED, f"{text}; {mend(disk, job)}")
            for text in wrong
        ]
    text = "one flag for each attacked image and radius, with the labels of the test images"
    return [Finding("flags", path.as_posix(), State.VERIFIED, text)]


def read_flags(disk: Disk, name: str) -> Flags:
    """Return the flags of an evaluation, RUN/PROBE/ATTACK.

    Raises:
        ArtifactError: they are missing or damaged.
    """
    return artifacts.read_arrays(disk.root / disk.jobs["attack", name].writes[0])


def _of_runs(disk: Disk, cell: Cell) -> Iterator[float]:
    for run in cell.runs:
        if cell.attack is None:
            record = disk.record(disk.jobs["pretrain", run])
            if isinstance(record, ArtifactError):
                raise record
            yield float(record["seconds"]) / 60
        else:
            flags = read_flags(disk, f"{run}/{cell.probe}/{cell.attack}")
            right = flags[cell.measure.flag]
            if not len(right):
                raise ValueError("no flags")
            yield int((right == 1).sum()) / len(right)


def _said(path: Path, cell: Cell) -> str | None:
    """Return what a table's CSV says of a cell, None where it does not."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            for line in csv.DictReader(file):
                if (line["row"], line["dataset"], line["column"]) == (
                    cell.row,
                    cell.dataset,
                    cell.measure.label,
                ):
                    return line["ours"]
    except (OSError, ValueError, KeyError, csv.Error):
        return None
    return None


def _equal(said: str, scaled: float) -> bool:
    try:
        return abs(float(said) - scaled) <= _DIGITS * max(1.0, abs(scaled))
    except ValueError:  # `not run`
        return False


def _wrong_flags(disk: Disk, job: Job, flags: Flags) -> Iterator[str]:
    assert job.spec is not None
    names = [flag_name(eps) for eps in (0.0, *job.spec["attack"]["eps"])]
    expected = {"index", "labels", *names}
    if set(flags) != expected:
        found, wanted = ", ".join(sorted(flags)), ", ".join(sorted(expected))
        yield f"holds {found}; expected {wanted}"
        return
    index = flags["index"]
    shapes = {name: array.shape for name, array in flags.items() if array.shape != index.shape}
    if index.ndim != 1 or shapes:
        yield f"expected one flag an image, {index.shape}; found {shapes}"
        return
    for name in names:
        if not np.isin(flags[name], (0, 1)).all():
            yield f"{name} holds values other than 0 and 1"
    yield from _wrong_images(disk, job, index, flags["labels"])
    yield from _wrong_result(disk, job, {name: float(flags[name].mean()) for name in names})


def _wrong_images(
    disk: Disk, job: Job, index: np.ndarray[Any, Any], labels: np.ndarray[Any, Any]
) -> Iterator[str]:
    """Say what is wrong with which images were attacked, and with their labels."""
    assert job.spec is not None
    folder = disk.jobs[next(need for need in job.needs if need[0] == "data")].folder
    assert folder is not None
    path = disk.root / folder / "test_labels.npy"
    if not path.is_file():
        return  # told where the data are checked
    test = np.load(path, mmap_mode="r", allow_pickle=False)
    wanted = job.spec["attack"]["images"]
    wanted = len(test) if wanted is None else wanted
    if len(index) != wanted:
        yield f"has {len(index)} images, the attack is of {wanted}"
    if not (np.diff(index) > 0).all() or (
        len(index) and not 0 <= index[0] <= index[-1] < len(test)
    ):
        yield f"its index is no choice of {len(test)} test images, each once, in order"
    elif not np.array_equal(labels, test[index]):
        yield f"its labels are not those of {folder / 'test_labels.npy'}"


def _wrong_result(disk: Disk, job: Job, accuracy: dict[str, float]) -> Iterator[str]:
    """Compare the numbers that a record repeats for people with the flags."""
    result = disk.section(job, "result")
    stated = {flag_name(0.0): result.get("clean")}
    if isinstance(result.get("eps"), dict):
        names = {f"{eps:g}": flag_name(eps) for eps in job.spec["attack"]["eps"]}
        stated |= {names.get(eps, eps): number for eps, number in result["eps"].items()}
    for name, number in stated.items():
        right = accuracy.get(name)
        if number is None or (right is not None and abs(number - right) <= _FLOAT32):
            continue
        yield f"{record_of(job)} says that {name} is {number}, its flags give {right}"
