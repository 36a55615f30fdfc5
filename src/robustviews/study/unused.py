"""Entries of a study file that no cell uses."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from robustviews.study import plan
from robustviews.study.schema import Study


def unused(study: Study) -> Iterator[str]:
    """Name the entries of a study that no cell uses.

    Such entries are valid, but decide no number. That is not a mistake, but a reader of the study
    file would assume that they matter.
    """
    networks = plan.networks(study).values()
    used: dict[str, set[str]] = {
        "run": {network.entry for network in networks},
        "imported encoder": {network.entry for network in networks},
        "data set": set(plan.datasets(study)),
        "probe": {probe for _, probe in plan.heads(study)} | {"own"},
        "attack": {attack for _, _, attack in plan.evaluations(study)},
    }
    defined: dict[str, Iterable[str]] = {
        "run": study.runs,
        "imported encoder": study.encoders,
        "data set": study.datasets,
        "probe": study.probes,
        "attack": study.attacks,
    }
    for what, names in defined.items():
        for name in names:
            if name not in used[what]:
                yield f"unused: {what} `{name}` decides no cell of {study.study}"
