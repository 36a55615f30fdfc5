"""Whether the images and classes of each data set are enough for the jobs on it.

A study file states some of these numbers, the files of a data set state the others. Each mistake is
reported at the first moment at which its number is known: no training runs before.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from robustviews.artifacts import RECORD
from robustviews.datasets import Dataset
from robustviews.datasets.sources import ENVIRONMENT, source_folder
from robustviews.study import plan
from robustviews.study.folders import data_folder
from robustviews.study.schema import Study
from robustviews.study.shapes import shape_of


class Numbers(NamedTuple):
    """Numbers of a data set; None if unknown."""

    train: int | None = None
    test: int | None = None
    classes: int | None = None


class Lack(NamedTuple):
    """A value of a study that a data set is too small for."""

    block: str  # such as `runs`
    name: str  # of the entry in the block
    key: str  # of the value in the entry
    message: str  # what is lacking, and what to write

    def __str__(self) -> str:
        return f"{self.block}.{self.name}.{self.key}: {self.message}"


def stated(study: Study) -> dict[str, Numbers]:
    """Return the numbers that the study file states, by data set."""
    return {
        name: Numbers(train, test, options.num_classes)
        for name, options in study.datasets.items()
        for train, test in [options.counts or (None, None)]
    }


def prepared(study: Study) -> dict[str, Numbers]:
    """Return the numbers of the prepared data sets, or else those of the study file."""
    numbers = stated(study)
    for name in study.datasets:
        shape = shape_of(study, name)
        if shape is not None:
            numbers[name] = Numbers(shape.train, shape.test, shape.classes)
    return numbers


def missing(study: Study) -> dict[str, tuple[str, str]]:
    """Return which data sets are neither prepared nor here nor downloaded, and what to do."""
    found = {}
    for name, options in study.datasets.items():
        source, downloads = source_folder(options.root)
        if source is None or downloads or (data_folder(study, name) / RECORD).is_file():
            continue
        absent = absent_folders(options, source)
        if absent:
            what = (
                f"{source} has no {absent[0]}" if source.is_dir() else f"{source}: no such folder"
            )
            fix = f"set datasets.{name}.root in {study.file}"
            found[name] = what, fix if options.root else set_variable(absent)
    return found


def absent_folders(options: Dataset, source: Path) -> list[str]:
    """Return the folders of a data set that the folder of its source files lacks."""
    return [part for part in options.files if not (source / part).is_dir()]


def set_variable(folders: list[str]) -> str:
    """Return the command that names another folder of source files."""
    return f"export {ENVIRONMENT}=FOLDER, a folder with {' and '.join(folders)}"


def lacks(study: Study, numbers: Mapping[str, Numbers]) -> Iterator[Lack]:
    """Yield what is too large for the data sets of some numbers, each mistake once."""
    found: dict[Lack, None] = {}
    for pretraining in plan.pretrainings(study).values():
        run = study.runs[pretraining.entry]
        images = numbers.get(pretraining.dataset, Numbers()).train
        if images is not None and run.batch_size > images:
            text = f"{run.batch_size} is more than the {images} training images of "
            text += f"`{pretraining.dataset}`; lower it"
            found[Lack("runs", pretraining.entry, "batch_size", text)] = None
    for run_name, _, name in plan.evaluations(study):
        dataset, attack = plan.networks(study)[run_name].dataset, study.attacks[name]
        _, images, classes = numbers.get(dataset, Numbers())
        if images is not None and attack.images is not None and attack.images > images:
            text = f"{attack.images} is more than the {images} test images of `{dataset}`; lower it"
            found[Lack("attacks", name, "images", text)] = None
        # Only attacks that try several other classes state how many classes they need.
        least, fix = getattr(attack, "needs_classes", (2, ""))
        if classes is not None and classes < least:
            text = f"needs {least} classes, `{dataset}` has {classes}; {fix}"
            found[Lack("attacks", name, "kind", text)] = None
    for name, options in study.datasets.items():
        source = getattr(options, "classes_of", "")
        ours, theirs = (numbers.get(one, Numbers()).classes for one in (name, source))
        if None not in (ours, theirs) and ours != theirs:
            text = f"{ours} classes, but `{source}` has {theirs}; correct one"
            found[Lack("datasets", name, "classes_of", text)] = None
    yield from found
