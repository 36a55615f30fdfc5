"""What a column of a table or figure measures; only this module parses `digits/pgd20/8`."""

from __future__ import annotations

import re
from dataclasses import dataclass

from robustviews.attacks import flag_name, fraction

CLEAN, MINUTES = "clean", "minutes"
FORM = f"<dataset>/{CLEAN}, <dataset>/<attack>/<eps> or <dataset>/{MINUTES}"
_COLUMN = re.compile(r"([^/]+)/([^/]+)(?:/([0-9]+(?:\.[0-9]+)?))?")


@dataclass(frozen=True)
class Column:
    """What a column holds: `clean`, `minutes`, or an attack at a radius in 1/255."""

    dataset: str
    metric: str
    eps: float | None = None

    @classmethod
    def parse(cls, text: str) -> Column:
        """Parse a column of a study file.

        Raises:
            ValueError: the text has another form.
        """
        match = _COLUMN.fullmatch(text)
        if match is None:
            raise ValueError(f"expected {FORM}, found {text!r}")
        dataset, metric, eps = match.groups()
        return cls(dataset, metric, None if eps is None else float(eps))

    @property
    def label(self) -> str:
        """The name of the column in tables, without its data set."""
        return self.metric if self.eps is None else f"{self.metric} {fraction(self.eps)}"

    @property
    def is_minutes(self) -> bool:
        """Whether the column holds minutes of pretraining instead of accuracies."""
        return self.metric == MINUTES

    @property
    def attack(self) -> str | None:
        """The attack; None for clean accuracy and minutes."""
        return None if self.metric in (CLEAN, MINUTES) else self.metric

    @property
    def flag(self) -> str:
        """The name of the flags that hold an accuracy."""
        return flag_name(self.eps or 0.0)
