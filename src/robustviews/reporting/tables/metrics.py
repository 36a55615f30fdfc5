"""The cells of all tables as nested numbers, for tools that compare revisions, such as DVC."""

from __future__ import annotations

from typing import TYPE_CHECKING

from robustviews.reporting.tables.values import PERCENT, row_values

if TYPE_CHECKING:
    from robustviews.reporting.results import Result
    from robustviews.reporting.tables.values import CellValue
    from robustviews.study.schema import Study

Metrics = dict[str, dict[str, dict[str, float]]]

_DIGITS = 6  # significant, for comparison rather than for print


def metrics(study: Study, frame: list[Result]) -> Metrics:
    """Return the value of every finished cell by table, row and column, named as in the study.

    Args:
        study: study of the tables.
        frame: results of the study, perhaps incomplete.

    Returns:
        Accuracies in percent, pretraining in minutes.
    """
    return {
        name: {
            row.name: {
                column: _value(cell)
                for column, cell in zip(table.columns, row.cells, strict=True)
                if cell.ours is not None
            }
            for row in row_values(study, table, frame)
        }
        for name, table in study.tables.items()
    }


def _value(cell: CellValue) -> float:
    assert cell.ours is not None
    scale = 1 if cell.column.is_minutes else PERCENT
    return float(f"{cell.ours * scale:.{_DIGITS}g}")
