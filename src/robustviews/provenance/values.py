"""Checks of values: cells computed again from the flags, without results frame or tables."""

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
from robustviews.provenance.checks import remake
from robustviews.provenance.disk import Disk
from robustviews.provenance.findings import Finding, failed, judged, unknown, verified
from robustviews.study import folders
from robustviews.study.cells import Address
from robustviews.study.columns import RETAINED
from robustviews.study.jobs import Job
from robustviews.study.plan import Cell
from robustviews.tasks.classification import CLASSIFICATION
from robustviews.tasks.protocol import Task

Array = np.ndarray[Any, Any]
Flags = dict[str, Array]

_TOLERANCE = 1e-5  # relative; a table's CSV and metrics.json hold six digits
_FLOAT32 = 1e-6  # tolerance of an accuracy in a record


def value(disk: Disk, cell: Cell) -> float | None:
    """Return the expected value of a cell: mean accuracy over seeds, a fraction, or mean minutes.

    Returns:
        None if the files of a seed are missing or cannot be read.
    """
    try:
        return fmean(_of_runs(disk, cell))
    except (ArtifactError, LookupError, TypeError, ValueError):  # the checks of the job report it
        return None


def check_cell(disk: Disk, address: Address, cell: Cell, computed: float | None) -> Finding:
    """Compare a cell of a table on disk with its value as computed again by `value`."""
    path = folders.results_folder(disk.study) / "tables" / f"{address.table}.csv"
    if computed is None:
        text = "cannot be computed: a record or flags are missing or damaged; see its jobs"
        return unknown("value", str(address), text)
    stated = _stated(disk.root / path, cell)
    if stated is None:
        text = f"{path} does not have the cell; make the table again: {disk.make(path)}"
        return unknown("value", str(address), text)
    scaled = computed * cell.measure.scale
    if not is_equal(stated, scaled):
        text = f"{path} says {stated}, flags and records give {scaled:.6g}; {disk.remake(path)}"
        return failed("value", str(address), text)
    unit, source = cell.measure.unit, "records" if cell.attack is None else "flags"
    runs = "1 run" if len(cell.runs) == 1 else f"{len(cell.runs)} runs"
    text = f"{scaled:.6g} {unit}, computed again from {source} of {runs}"
    return verified("value", str(address), text)


def check_flags(disk: Disk, job: Job) -> list[Finding]:
    """Check that an attack's flags fit its radii, its test images, and its record."""
    path = job.writes[0]
    if not disk.exists(path):
        return []  # the check of bytes reports it
    try:
        problems = list(_wrong_flags(disk, job, read_flags(disk, job.name)))
    except (ArtifactError, ValueError, TypeError, OSError) as error:
        problems = [f"cannot be read: {error}"]
    right = "one flag per attacked image and radius, with the labels of the test images"
    return judged("flags", path, problems, right, fix=remake(disk, job))


def read_flags(disk: Disk, name: str) -> Flags:
    """Return the flags of an evaluation, RUN/PROBE/ATTACK.

    Raises:
        ArtifactError: the flags are missing or damaged.
    """
    return artifacts.read_arrays(disk.root / disk.jobs["attack", name].writes[0])


def flag_names(job: Job) -> list[str]:
    """Return the names of an attack's flags, from clean to the largest radius."""
    return [flag_name(eps) for eps in (0.0, *sorted(job.spec["attack"]["eps"]))]


def is_equal(stated: float | str, value: float) -> bool:
    """Return whether a file states a value, but for the digits that it does not hold."""
    try:
        return abs(float(stated) - value) <= _TOLERANCE * max(1.0, abs(value))
    except (ValueError, OverflowError):  # `not run`; not all whole numbers of JSON fit into a float
        return False


def _of_runs(disk: Disk, cell: Cell) -> Iterator[float]:
    for network in cell.networks:
        if cell.attack is None:
            record = disk.record(disk.jobs[network.encoder])
            if isinstance(record, ArtifactError):
                raise record
            yield float(record.seconds or 0) / 60
        else:
            flags = read_flags(disk, f"{network.name}/{cell.probe}/{cell.attack}")
            if cell.measure.statistic:
                eps = sorted(disk.study.attacks[cell.attack].eps)
                curve = [_share(disk, cell, flags, flag_name(radius)) for radius in (0.0, *eps)]
                yield (_retained if cell.measure.statistic == RETAINED else _halved)(curve, eps)
            else:
                yield _share(disk, cell, flags, cell.measure.flag)


def _share(disk: Disk, cell: Cell, flags: Flags, name: str) -> float:
    task = disk.study.probes[cell.probe].task
    if task is not CLASSIFICATION:
        return _score(task, flags, name, cell.measure.score)
    correct, labels = flags[name] == 1, flags["labels"]
    if not len(correct):
        raise ValueError("no flags")
    if disk.study.datasets[cell.dataset].accuracy == "mean_per_class":
        return fmean(float(correct[labels == one].mean()) for one in sorted(set(labels.tolist())))
    return int(correct.sum()) / len(correct)


def _score(task: Task, flags: Flags, name: str, metric: str = "") -> float:
    """Return a metric of a task, each image counted once."""
    truth = flags["labels"]
    return float(task.score(flags[name], truth, np.ones((1, len(truth))), metric)[0])


def _retained(curve: list[float], eps: list[float]) -> float:
    """Return the mean of a(e) / a(0); 0 if no clean image is right."""
    return sum(curve[1:]) / len(eps) / curve[0] if curve[0] else 0.0


def _halved(curve: list[float], eps: list[float]) -> float:
    """Return where accuracy first is half of a(0), as `reporting.small_radii` defines it."""
    half = curve[0] / 2
    if not half:
        return 0.0
    for place, radius in enumerate(eps):
        if curve[place + 1] <= half:
            share = (curve[place] - half) / (curve[place] - curve[place + 1])
            lower = eps[place - 1]
            return float(lower * (radius / lower) ** share) if place else share * radius
    return eps[-1]


def _stated(path: Path, cell: Cell) -> str | None:
    """Return the value of a cell in a table's CSV; None if it is not there."""
    wanted = cell.row, cell.dataset, cell.measure.label
    try:
        with path.open(encoding="utf-8", newline="") as file:
            for line in csv.DictReader(file):
                if (line["row"], line["dataset"], line["column"]) == wanted:
                    return line["ours"]
    except (OSError, ValueError, KeyError, csv.Error):
        return None
    return None


def _wrong_flags(disk: Disk, job: Job, flags: Flags) -> Iterator[str]:
    names = flag_names(job)
    expected = {"index", "labels", *names}
    if set(flags) != expected:
        yield f"expected {', '.join(sorted(expected))}; found {', '.join(sorted(flags))}"
        return
    index, task = flags["index"], disk.study.probes[job.parts[1]].task
    shapes = {name: array.shape for name, array in flags.items() if len(array) != len(index)}
    if index.ndim != 1 or shapes:
        yield f"expected one flag per image, {index.shape}; found {shapes}"
        return
    for name in names:
        yield from (f"{name} {text}" for text in task.wrong(flags[name], flags["labels"]))
    yield from wrong_images(disk, job, index, flags["labels"], task)
    yield from _wrong_worst(disk, job, flags, names)
    yield from _wrong_result(disk, job, {name: _score(task, flags, name) for name in names})


def _wrong_worst(disk: Disk, job: Job, flags: Flags, names: list[str]) -> Iterator[str]:
    """Compare the flags of a worst case with those of its attacks, combined again."""
    of = job.spec["attack"].get("of", ())
    parts = [read_flags(disk, "/".join([*job.parts[:2], name])) for name in of]
    task = disk.study.probes[job.parts[1]].task
    for name in names if parts else ():
        shared = [part[name][np.isin(part["index"], flags["index"])] for part in parts]
        # Not by `attacks.worst_case`, which made the flags.
        worst = np.argmin([task.quality(one, flags["labels"]) for one in shared], axis=0)
        if not np.array_equal(np.stack(shared)[worst, np.arange(len(worst))], flags[name]):
            yield f"{name} is not the worst case of {', '.join(of)}"


def wrong_images(
    disk: Disk, job: Job, index: Array, labels: Array, task: Task = CLASSIFICATION
) -> Iterator[str]:
    """Yield problems of the choice of attacked images, and of what is stored of their labels."""
    path = disk.data_of(job).record.with_name("test_labels.npy")
    if not disk.exists(path):
        return  # the checks of the data report it
    test = np.load(disk.root / path, mmap_mode="r", allow_pickle=False)
    if "attack" in job.spec:
        count = job.spec["attack"]["images"]
        count = len(test) if count is None else count
        if len(index) != count:
            yield f"has {len(index)} images, the study attacks {count}"
    if not (np.diff(index) > 0).all() or (
        len(index) and not 0 <= index[0] <= index[-1] < len(test)
    ):
        yield f"its index must list test images in order, each once, below {len(test)}"
    elif not np.array_equal(labels, task.truth(test[index], labels)):
        yield f"its labels differ from {path}"


def _wrong_result(disk: Disk, job: Job, accuracy: dict[str, float]) -> Iterator[str]:
    """Compare the accuracies in a record with the flags."""
    result = disk.stated(job).result
    stated = {flag_name(0.0): result.get("clean")}
    if isinstance(result.get("eps"), dict):
        names = {f"{eps:g}": flag_name(eps) for eps in job.spec["attack"]["eps"]}
        stated |= {names.get(eps, eps): number for eps, number in result["eps"].items()}
    for name, number in stated.items():
        expected = accuracy.get(name)
        if number is None or (expected is not None and abs(number - expected) <= _FLOAT32):
            continue
        yield f"{job.record} says that {name} is {number}, its flags give {expected}"
