"""Numbers for tools that compare revisions, as DVC: every cell and claim, and a few in a line."""

from __future__ import annotations

from collections import Counter
from statistics import fmean
from typing import TYPE_CHECKING

from robustviews.reporting import claims
from robustviews.reporting.tables.values import row_values
from robustviews.study import plan
from robustviews.study.columns import CLEAN

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


def headline(study: Study, frame: list[Result]) -> dict[str, float | str]:
    """Return a few numbers of the main table, which fit into a line.

    Returns:
        Mean accuracy over its rows, clean and in one attacked column, in percent; the best row
        there; and how many claims hold, and fail. Numbers without results are left out.
    """
    states = Counter(outcome.state for outcome in claims.evaluate(study, frame))
    counts = {"claims_hold": states["holds"], "claims_fail": states["fails"]}
    examples = plan.example_attacks(study)
    if not examples:
        return dict(counts)
    table, cell = next(iter(study.tables.values())), examples[0]
    rows = row_values(study, table, frame)

    def column(name: str) -> dict[str, float]:
        cells = {row.name: row.cells[table.columns.index(name)] for row in rows}
        return {row: _value(c) for row, c in cells.items() if c.ours is not None and not c.struck}

    numbers: dict[str, float | str] = {"attack": cell.column, **counts}
    clean = f"{cell.dataset}/{CLEAN}"
    if clean in table.columns and column(clean):
        numbers["clean_mean"] = round(fmean(column(clean).values()), 2)
    robust = column(cell.column)
    if robust:
        best = max(robust, key=robust.__getitem__)
        numbers["robust_mean"] = round(fmean(robust.values()), 2)
        numbers |= {"robust_best": round(robust[best], 2), "best_row": best}
    return numbers


def _value(cell: CellValue) -> float:
    assert cell.ours is not None
    return float(f"{cell.ours * cell.column.scale:.{_DIGITS}g}")
