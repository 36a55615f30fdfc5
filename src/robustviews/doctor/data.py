"""Whether the data of a study is available."""

from __future__ import annotations

from collections.abc import Iterator

from robustviews.artifacts import RECORD
from robustviews.datasets.sources import source_folder
from robustviews.doctor.symptom import Health, Symptom
from robustviews.study import folders
from robustviews.study.schema import Study


def check(study: Study) -> Iterator[Symptom]:
    """Yield for each data set whether it is prepared, available, downloadable or missing.

    Args:
        study: the study whose data is checked.
    """
    for name, options in study.datasets.items():
        title, folder = f"data: {name}", folders.data_folder(study, name)
        if (folder / RECORD).is_file():
            yield Symptom(title, Health.GOOD, f"prepared in {folder}")
            continue
        source, downloads = source_folder(options.root)
        if source is None:
            yield Symptom(title, Health.GOOD, "comes with an installed package")
            continue
        missing = [part for part in options.files if not (source / part).is_dir()]
        if source.is_dir() and not missing:
            yield Symptom(title, Health.GOOD, f"will be read from {source}")
            continue
        variable = f"export ROBUSTVIEWS_DATA=FOLDER, a folder with {' and '.join(missing)}"
        if downloads:
            finding = f"missing: the first run downloads it to {source}"
            yield Symptom(title, Health.ABSENT, finding, f"or {variable}")
            continue
        finding = (
            f"{source} has no {missing[0]}" if source.is_dir() else f"{source}: no such folder"
        )
        hint = f"set datasets.{name}.root in {study.file}" if options.root else variable
        yield Symptom(title, Health.BAD, finding, hint)
