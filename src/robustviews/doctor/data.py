"""What is at hand of the data of a study."""

from __future__ import annotations

from collections.abc import Iterator

from robustviews.datasets import Cifar10, Cifar100, Dataset, Folder
from robustviews.datasets.sources import source_folder
from robustviews.doctor.symptom import Health, Symptom
from robustviews.study import folders
from robustviews.study.schema import Study


def look(study: Study, study_file: str) -> Iterator[Symptom]:
    """Yield for each data set whether it is prepared, at hand, to be downloaded, or missing.

    Args:
        study: whose data.
        study_file: that it was read from.
    """
    for name, options in study.datasets.items():
        title, folder = f"data: {name}", folders.data_folder(study, name)
        if (folder / "record.json").is_file():
            yield Symptom(title, Health.GOOD, f"prepared in {folder}")
            continue
        source, downloads = source_folder(options)
        if source is None:
            yield Symptom(title, Health.GOOD, "comes with what is installed")
            continue
        lacks = [part for part in _parts(options) if not (source / part).is_dir()]
        if source.is_dir() and not lacks:
            yield Symptom(title, Health.GOOD, f"to be read from {source}")
            continue
        named = f"export ROBUSTVIEWS_DATA=FOLDER, which has {' and '.join(lacks)}"
        if downloads:
            found = f"not at hand: the first run downloads it to {source}"
            yield Symptom(title, Health.ABSENT, found, f"or {named}")
            continue
        found = f"{source} has no {lacks[0]}" if source.is_dir() else f"{source}: no such folder"
        root = getattr(options, "root", "")
        hint = f"set datasets.{name}.root in {study_file}" if root else named
        yield Symptom(title, Health.BAD, found, hint)


def _parts(options: Dataset) -> list[str]:
    """Return the folders that must lie where a data set is read from."""
    if isinstance(options, Folder):
        return [options.train, options.test]
    if isinstance(options, Cifar100):
        return ["cifar-100-python"]
    if isinstance(options, Cifar10):
        return ["cifar-10-batches-py"]
    return ["."]
