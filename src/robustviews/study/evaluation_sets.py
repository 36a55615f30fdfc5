"""Checks of data sets with test images only, and of the runs and rows that use one."""

from __future__ import annotations

from pathlib import Path

from robustviews.artifacts import ArtifactError, Record, sha256
from robustviews.datasets import EvaluationFolder
from robustviews.probe import Probe
from robustviews.study.imported import Add
from robustviews.study.located import LocatedDict
from robustviews.study.schema import Row, Run, Study


def check_classes_of(study: Study, name: str, node: LocatedDict, add: Add) -> None:
    """Report a data set of the classes that cannot be used; whether it exists is checked before."""
    options = study.datasets[name]
    if not isinstance(options, EvaluationFolder) or options.classes_of not in study.datasets:
        return
    place, source = node.at["classes_of"], study.datasets[options.classes_of]
    if isinstance(source, EvaluationFolder):
        text = f"`{options.classes_of}` has only test images; name a data set that trains heads"
        add(place, text)
        return
    if source.num_classes not in (None, options.num_classes):
        found = f"`{options.classes_of}` has {source.num_classes} classes"
        add(place, f"expected {options.num_classes} classes (num_classes), {found}; correct one")
    if source.size != options.size:
        found = f"`{options.classes_of}` has images of {source.size} pixels"
        add(place, f"expected {options.size} pixels (size), {found}; correct one")
    ordered = getattr(source, "classes", None) or getattr(source, "class_list", "")
    if ordered and not options.labels:
        text = f"`{options.classes_of}` has an order of classes of its own, folders here have that"
        add(place, f"{text} of their names; name the label of each file in a CSV: labels")


def check_run(study: Study, run: Run, node: LocatedDict, add: Add) -> None:
    """Report data sets of a run that train nothing."""
    for name, place in zip(run.datasets, node["datasets"].at, strict=True):
        if isinstance(study.datasets.get(name), EvaluationFolder):
            add(place, f"`{name}` has only test images, so no run trains on it; remove it")


def check_row(
    study: Study,
    row: Row,
    probe: Probe | None,
    columns: list[tuple[str, str]],
    node: LocatedDict,
    add: Add,
) -> bool:
    """Return whether the data sets of all columns can have a head; report those that cannot."""
    lacking = [
        name
        for name in dict.fromkeys(name for name, _ in columns)
        if isinstance(options := study.datasets.get(name), EvaluationFolder)
        and not options.classes_of
    ]
    own = row.run in study.encoders and probe is not None and not probe.trained
    for name in () if own else lacking:
        text = f"`{name}` has only test images, so no head is trained on it"
        add(node.at["probe"], f"{text}; name a data set with its classes: classes_of in `{name}`")
    return own or not lacking


def changed_labels(options: object, record: Path) -> tuple[str, str] | None:
    """Return the CSV of a data set, and a message, if it changed since the set was prepared."""
    if not isinstance(options, EvaluationFolder) or not options.labels or not record.is_file():
        return None
    path = Path(options.root).expanduser() / options.labels
    try:
        stated = Record.read(record, whole=False).result["source_hashes"][options.labels]
        found = sha256(path)
    except (ArtifactError, LookupError, TypeError):
        return None  # the source may be gone; other checks report a damaged record
    if found == stated:
        return None
    text = f"changed since {record.parent} was prepared from it ({stated[:19]}, found {found[:19]})"
    return str(path), f"{text}; restore it, or prepare the images again: rm -r {record.parent}"
