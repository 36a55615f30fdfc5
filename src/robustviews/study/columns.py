"""What a column of a table or figure measures; only this module parses `digits/pgd20/8`."""

from __future__ import annotations

import re
from dataclasses import dataclass

from robustviews.attacks import flag_name, fraction

CLEAN, MINUTES = "clean", "minutes"
RETAINED, HALVING = "retained", "e50"  # of all radii of an attack
FORM = (
    f"<dataset>/{CLEAN}, <dataset>/<attack>/<eps>, <dataset>/<attack>/{RETAINED}, "
    f"<dataset>/<attack>/{HALVING} or <dataset>/{MINUTES}"
)
_COLUMN = re.compile(
    rf"([^/:]+)/([^/:]+)(?:/(?:([0-9]+(?:\.[0-9]+)?)|({RETAINED}|{HALVING})))?(?::([^/:]+))?"
)
_PERCENT = 100


@dataclass(frozen=True)
class Column:
    """What a column holds: `clean`, `minutes`, or an attack at a radius or over all its radii."""

    dataset: str  # name of the data set
    metric: str  # `clean`, `minutes` or the name of an attack
    eps: float | None = None  # radius in the unit of the attack's norm
    statistic: str = ""  # `retained` or `e50` of all radii; otherwise empty
    norm: str = "linf"  # of the attack
    score: str = ""  # metric of the task, such as `pixel-accuracy`; empty for the first one

    @classmethod
    def parse(cls, text: str) -> Column:
        """Parse a column of a study file.

        Raises:
            ValueError: the text has another form.
        """
        match = _COLUMN.fullmatch(text)
        if match is None:
            raise ValueError(f"expected {FORM}, found {text!r}")
        dataset, metric, eps, statistic, score = match.groups()
        radius = None if eps is None else float(eps)
        return cls(dataset, metric, radius, statistic or "", score=score or "")

    @property
    def label(self) -> str:
        """The name of the column in tables, without its data set."""
        radius = self.statistic if self.eps is None else fraction(self.eps, self.norm)
        return " ".join(filter(None, (self.metric, radius, self.score)))

    @property
    def is_minutes(self) -> bool:
        """Whether the column holds minutes of pretraining instead of accuracies."""
        return self.metric == MINUTES

    @property
    def unit(self) -> str:
        """Unit of its numbers in tables: `%`, `minutes`, or that of a radius."""
        if self.statistic == HALVING:
            return "1/255" if self.norm == "linf" else self.norm.upper()
        return MINUTES if self.is_minutes else "%"

    @property
    def scale(self) -> int:
        """By which a value is multiplied in tables: accuracies are fractions."""
        return _PERCENT if self.unit == "%" else 1

    @property
    def attack(self) -> str | None:
        """The attack; None for clean accuracy and minutes."""
        return None if self.metric in (CLEAN, MINUTES) else self.metric

    @property
    def flag(self) -> str:
        """The name of the flags that hold an accuracy."""
        return flag_name(self.eps or 0.0)
