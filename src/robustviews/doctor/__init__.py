"""Doctor: what works on this machine, what does not, and the suggested commands.

Nothing is installed, started or changed. Checks are independent, so that a tool that hangs or fails
does not affect the other checks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from robustviews.doctor import around, data, installed
from robustviews.doctor.symptom import Health, Symptom
from robustviews.study.schema import Study

__all__ = ["CHECKS", "Health", "Symptom", "examine"]


def examine(study: Study | None) -> Iterator[Symptom]:
    """Yield the symptom of each check, including those of a study's data.

    Args:
        study: the study whose data is checked; None if its file does not load.
    """
    for check in CHECKS:
        yield check()
    if study is not None:
        yield from data.check(study)


CHECKS: tuple[Callable[[], Symptom], ...] = (
    installed.python,
    installed.code,
    installed.image,
    installed.packages,
    installed.torch,
    installed.convolution,
    installed.cuda,
    around.folder,
    around.disk,
    around.path,
    around.git,
    installed.package("snakemake", "Snakemake", "each stage is run by hand"),
    installed.package("dvc", "DVC", "results are not versioned"),
    around.remotes,
    around.docker,
    around.apptainer,
    around.slurm,
)
