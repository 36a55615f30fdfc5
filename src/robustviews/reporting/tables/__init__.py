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
    "Column",
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

    @property
    def strikes(self) -> bool:
        """Whether the attack of any cell is not established."""
        return any(cell.struck for row in self.rows for cell in row.cells)

    @property
    def groups(self) -> list[tuple[str, int]]:
        """Data sets from left to right, each with its number of adjacent columns."""
        grouped = groupby(self.columns, key=lambda column: column.dataset)
        return [(dataset, len(list(columns))) for dataset, columns in grouped]


def comparison(study: Study, table: Table, frame: list[Result]) -> TableData:
    """Compare our numbers with the published ones.

    Args:
        study: study of the table.
        table: rows and columns, and the published values.
        frame: results of the study; cells without results are `not run`.

    Returns:
        Rows in the order of the study, with their notes.
    """
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
