"""What is at hand of the data of a study."""

from __future__ import annotations

from collections.abc import Iterator

from robustviews.artifacts import RECORD
from robustviews.datasets.sources import source_folder
from robustviews.doctor.symptom import Health, Symptom
from robustviews.study import folders
from robustviews.study.schema import Study


def look(study: Study) -> Iterator[Symptom]:
    """Yield for each data set whether it is prepared, at hand, to be downloaded, or missing.

    Args:
        study: whose data.
    """
    for name, options in study.datasets.items():
        title, folder = f"data: {name}", folders.data_folder(study, name)
        if (folder / RECORD).is_file():
            yield Symptom(title, Health.GOOD, f"prepared in {folder}")
            continue
        source, downloads = source_folder(options.root)
        if source is None:
            yield Symptom(title, Health.GOOD, "comes with what is installed")
            continue
        lacks = [part for part in options.files if not (source / part).is_dir()]
        if source.is_dir() and not lacks:
            yield Symptom(title, Health.GOOD, f"to be read from {source}")
            continue
        named = f"export ROBUSTVIEWS_DATA=FOLDER, which has {' and '.join(lacks)}"
        if downloads:
            found = f"not at hand: the first run downloads it to {source}"
            yield Symptom(title, Health.ABSENT, found, f"or {named}")
            continue
        found = f"{source} has no {lacks[0]}" if source.is_dir() else f"{source}: no such folder"
        hint = f"set datasets.{name}.root in {study.file}" if options.root else named
        yield Symptom(title, Health.BAD, found, hint)
