"""Tables of the results frame, with the notes needed to compare the rows.

A new kind of table is a function like `comparison` and a row in `TABLES`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

from robustviews.reporting.tables import notes
from robustviews.reporting.tables.values import CellValue, Evidence, RowValues, row_values
from robustviews.study.columns import Column

if TYPE_CHECKING:
    from robustviews.reporting.results import Result
    from robustviews.study.schema import Study, Table

__all__ = [
    "TABLES",
    "CellValue",
    "Evidence",
    "RowValues",
    "TableData",
    "comparison",
    "row_values",
]


@dataclass(frozen=True)
class TableData:
    """The content of a table.

    Attributes:
        title: one line above it.
        source: source of the published values; empty without any.
        columns: what the cells of each row measure, in order.
        rows: labels and cells.
        protocol: how the numbers were computed.
        legend: how to read a cell.
        comparable: what the numbers may be compared with.
        note: the study's own remark.
        demonstration: warning that the study is not a reproduction; empty otherwise.
    """

    title: str
    source: str
    columns: tuple[Column, ...]
    rows: tuple[RowValues, ...]
    protocol: str
    legend: str
    comparable: str
    note: str
    demonstration: str

    @property
    def shows_probe(self) -> bool:
        """Whether rows differ in their probe, so that the table needs a probe column."""
        return len({row.probe for row in self.rows}) > 1

    def labels(self, row: RowValues) -> list[str]:
        """Return the leading fields of a row: its label, and its probe if the table needs it."""
        return [row.label, row.probe] if self.shows_probe else [row.label]

    @property
    def leading(self) -> list[str]:
        """The heads of the leading fields."""
        return ["", "probe"] if self.shows_probe else [""]

    @property
    def groups(self) -> list[tuple[str, int]]:
        """Data sets from left to right, each with its number of adjacent columns."""
        grouped = groupby(self.columns, key=lambda column: column.dataset)
        return [(dataset, len(list(columns))) for dataset, columns in grouped]


def comparison(study: Study, table: Table, frame: list[Result]) -> TableData:
    """Compare our numbers with the published ones; cells without results are `not run`."""
    rows = row_values(study, table, frame)
    return TableData(
        title=table.title,
        source=table.source,
        columns=tuple(cell.column for cell in rows[0].cells),
        rows=tuple(rows),
        protocol=notes.protocol(study, table, rows),
        legend=notes.legend(study, rows),
        comparable=notes.comparable(study, table, rows),
        note=table.note,
        demonstration=study.demonstration,
    )


TABLES: dict[str, Callable[[Study, Table, list[Result]], TableData]] = {"comparison": comparison}
