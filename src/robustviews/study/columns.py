"""What a column of a table or figure measures: the one place that reads `digits/pgd20/8`."""

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
        """Read a column as a study writes it.

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
        """What the column is called, without its data set."""
        return self.metric if self.eps is None else f"{self.metric} {fraction(self.eps)}"

    @property
    def is_minutes(self) -> bool:
        """Whether it holds minutes of pretraining, not accuracies."""
        return self.metric == MINUTES

    @property
    def attack(self) -> str | None:
        """The attack; None for clean accuracy and minutes."""
        return None if self.metric in (CLEAN, MINUTES) else self.metric

    @property
    def flag(self) -> str:
        """The name of the flags that hold an accuracy."""
        return flag_name(self.eps or 0.0)
