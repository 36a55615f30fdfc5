"""Entries of a study file that no cell uses."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator

from robustviews.study import plan
from robustviews.study.schema import Study


def unused(study: Study) -> Iterator[str]:
    """Name the entries of a study that no cell uses.

    Such entries are valid, but decide no number. That is not a mistake, but a reader of the study
    file would assume that they matter.
    """
    entries = {network.entry for network in plan.networks(study).values()}
    probes = {probe for _, probe in plan.heads(study)} | {"own"}
    attacks = {attack for _, _, attack in plan.evaluations(study)}
    blocks: dict[str, tuple[Iterable[str], Collection[str]]] = {
        "run": (study.runs, entries),
        "imported encoder": (study.encoders, entries),
        "data set": (study.datasets, plan.datasets(study)),
        "probe": (study.probes, probes),
        "attack": (study.attacks, attacks),
    }
    for what, (defined, used) in blocks.items():
        for name in defined:
            if name not in used:
                yield f"unused: {what} `{name}` decides no cell of {study.study}"
