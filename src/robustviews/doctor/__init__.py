"""Doctor: what works on this machine, what does not, and what to type next.

Nothing is installed, started or changed. Each question is answered on its own, so that one tool
that hangs or fails leaves the others' answers alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from robustviews.doctor import around, data, installed
from robustviews.doctor.symptom import Health, Symptom
from robustviews.study.schema import Study

__all__ = ["LOOKS", "Health", "Symptom", "examine"]


def examine(study: Study | None) -> Iterator[Symptom]:
    """Yield what was seen of everything that a study may want.

    Args:
        study: whose data are looked for; None where its file does not load.
    """
    for look in LOOKS:
        yield look()
    if study is not None:
        yield from data.look(study)


LOOKS: tuple[Callable[[], Symptom], ...] = (
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
    around.docker,
    around.apptainer,
    around.slurm,
)
