"""Questions that can be measured: what decides the amount of some work, and nothing else."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from functools import cached_property
from typing import Any

from robustviews.options import deciding

Answer = dict[str, float]  # seconds, bytes and counts, by name
About = dict[str, Any]  # everything that the amount of work depends on, as options


class UnknownError(Exception):
    """What a job takes cannot be told yet; the message says why."""


@dataclasses.dataclass(frozen=True)
class Question:
    """Something to measure."""

    stage: str  # kind of measurement, a row in `calibrate.STAGES`
    about: About  # everything that the amount of work depends on, as the options that the job has

    @cached_property
    def key(self) -> str:
        """Sorted JSON of what decides the amount of work: `about`, without all floats."""
        return json.dumps([self.stage, _shape(self.about)], sort_keys=True, separators=(",", ":"))

    @property
    def weight(self) -> float:
        """Roughly how much work it is beside others: convolutions go with pixels and width^2.

        Of an attack, the whole numbers in its options: steps, restarts, queries.
        """
        if self.stage == "attack":
            return float(sum(v for v in vars(self.about["attack"]).values() if type(v) is int))
        weight = float(self.about.get("size", 1)) ** 2
        if "encoder" in self.about:
            weight *= self.about["encoder"].width ** 2
        if self.stage == "pretrain":
            weight *= self.about["views"].count * self.about["batch_size"]
        return weight


Ask = Callable[[Question], Answer]


def _shape(value: Any) -> Any:  # noqa: ANN401  # options of any kind
    """Return options as plain JSON without floats, since none of them changes the work."""
    if dataclasses.is_dataclass(value):
        fields = {name: getattr(value, name) for name in deciding(value)}
        return {"kind": type(value).__name__, **_shape(fields)}
    if isinstance(value, dict):
        return {k: _shape(v) for k, v in value.items() if not isinstance(v, float)}
    if isinstance(value, list | tuple):  # how many there are may matter
        return [None if isinstance(each, float) else _shape(each) for each in value]
    return value
