"""Whether the data of a study is available."""

from __future__ import annotations

from collections.abc import Iterator

from robustviews.artifacts import RECORD
from robustviews.datasets.sources import source_folder
from robustviews.doctor.symptom import Health, Symptom
from robustviews.study import enough, folders
from robustviews.study.schema import Study


def check(study: Study) -> Iterator[Symptom]:
    """Yield for each data set whether it is prepared, available, downloadable or missing.

    Args:
        study: the study whose data is checked.
    """
    missing = enough.missing(study)
    for name, options in study.datasets.items():
        title, folder = f"data: {name}", folders.data_folder(study, name)
        source, _ = source_folder(options.root)
        if (folder / RECORD).is_file():
            yield Symptom(title, Health.GOOD, f"prepared in {folder}")
        elif source is None:
            yield Symptom(title, Health.GOOD, "comes with an installed package")
        elif name in missing:
            yield Symptom(title, Health.BAD, *missing[name])
        elif absent := enough.absent_folders(options, source):
            finding = f"missing: the first run downloads it to {source}"
            yield Symptom(title, Health.ABSENT, finding, f"or {enough.set_variable(absent)}")
        else:
            yield Symptom(title, Health.GOOD, f"will be read from {source}")
