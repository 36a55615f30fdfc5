"""What a column of a table or figure measures."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Column:
    """What a column holds: `clean`, `minutes`, or an attack at a radius in 1/255."""

    dataset: str
    metric: str
    eps: float | None = None

    @property
    def label(self) -> str:
        """What the column is called, without its data set."""
        return self.metric if self.eps is None else f"{self.metric} {self.eps:g}/255"

    @property
    def is_minutes(self) -> bool:
        """Whether it holds minutes of pretraining, not accuracies."""
        return self.metric == "minutes"
