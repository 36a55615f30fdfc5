"""The cells of all tables and the results of claims, for tools that compare revisions, as DVC."""

from __future__ import annotations

from typing import TYPE_CHECKING

from robustviews.reporting import claims
from robustviews.reporting.tables.values import row_values

if TYPE_CHECKING:
    from robustviews.reporting.results import Result
    from robustviews.reporting.tables.values import CellValue
    from robustviews.study.schema import Study

Metrics = dict[str, dict[str, dict[str, float] | str]]

CLAIMS = "claims"  # no table has this name
_DIGITS = 6  # significant, for comparison rather than for print


def metrics(study: Study, frame: list[Result]) -> Metrics:
    """Return the value of every finished cell by table, row and column, and every claim.

    Names are those of the study; the results of claims stand below `claims`. Struck cells are left
    out.

    Args:
        study: study of the tables.
        frame: results of the study, perhaps incomplete.

    Returns:
        Accuracies in percent, pretraining in minutes, and `holds`, `fails`, ... for claims.
    """
    numbers: Metrics = {
        name: {
            row.name: {
                column: _value(cell)
                for column, cell in zip(table.columns, row.cells, strict=True)
                if cell.ours is not None and not cell.struck
            }
            for row in row_values(study, table, frame)
        }
        for name, table in study.tables.items()
    }
    outcomes = {outcome.name: outcome.state for outcome in claims.evaluate(study, frame)}
    return numbers | ({CLAIMS: {**outcomes}} if outcomes else {})


def _value(cell: CellValue) -> float:
    assert cell.ours is not None
    return float(f"{cell.ours * cell.column.scale:.{_DIGITS}g}")
