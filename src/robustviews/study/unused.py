"""Entries of a study file that decide no cell."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from robustviews.study import plan
from robustviews.study.schema import Study


def unused(study: Study) -> Iterator[str]:
    """Name the entries of a study that no cell uses.

    They are parameters, all known and all right, that decide no number. That is no mistake, but
    somebody who reads them in the study file would take them for part of how its numbers came to
    be.
    """
    jobs = plan.pretrainings(study).values()
    used: dict[str, set[str]] = {
        "run": {job.entry for job in jobs},
        "data set": {job.dataset for job in jobs},
        "probe": {probe for _, probe in plan.heads(study)} | {"own"},
        "attack": {attack for _, _, attack in plan.evaluations(study)},
    }
    there: dict[str, Iterable[str]] = {
        "run": study.runs,
        "data set": study.datasets,
        "probe": study.probes,
        "attack": study.attacks,
    }
    for what, names in there.items():
        for name in names:
            if name not in used[what]:
                yield f"unused: {what} `{name}` decides no cell of {study.study}"
