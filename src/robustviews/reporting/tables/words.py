"""One cell in words: published, ours, spread, margin, verdict, and what would decide it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from robustviews.reporting.tables.values import PERCENT, CellValue, row_values
from robustviews.reporting.tables.writers import cell_text, number, percent, signed
from robustviews.study.comparable import departures

if TYPE_CHECKING:
    from robustviews.reporting.results import Result
    from robustviews.reporting.verdicts import Verdict
    from robustviews.study.plan import Cell
    from robustviews.study.schema import Study

_WHY = {
    "reproduced": "with 95 % confidence the true difference is within the margin",
    "different": "the difference is larger than the margin, and not chance (5 % over the cells of "
    "the table, after Holm)",
    "undecided": "the difference is neither within the margin with 95 % confidence, nor beyond it "
    "by more than chance",
}


def describe(study: Study, table: str, cell: Cell, frame: list[Result]) -> Iterator[str]:
    """Yield lines on how a cell of a table, which may be incomplete, compares with the paper."""
    shown = study.tables[table]
    row = next(row for row in row_values(study, shown, frame) if row.name == cell.row)
    value = row.cells[shown.columns.index(cell.column)]
    text = cell_text(value)
    yield f"published: {text.published or 'the paper has no such value'}"
    ours = text.ours
    if value.ours is not None and value.column.unit == "%":
        ours = percent(value.ours)
    yield f"ours: {ours}{_interval(value)}"
    if value.struck:
        yield f"struck: {text.struck}"
    if value.ours is not None and value.covers not in (None, "resampled"):
        yield f"spread between trainings: {_spread(value, study.verdicts.spread)}"
    if value.verdict:
        yield from _verdict(value, value.verdict)
    for departure in departures(study, cell):
        yield f"switch: {departure}"


def _interval(value: CellValue) -> str:
    if value.low is None or value.high is None:
        return ""
    if value.column.is_minutes:
        return " minutes"
    ends = f"{number(value.column, value.low, 2)} to {number(value.column, value.high, 2)}"
    seeds = len(value.evidence)
    return f" {value.column.unit}, 95 % interval {ends}, {seeds} seed{'s' if seeds > 1 else ''}"


def _spread(value: CellValue, assumed: float) -> str:
    spread = value.spread
    if value.covers == "counts":
        return "not used: exact intervals on the counts of all seeds"
    if spread is None:
        return f"not measured: no row of the column has two seeds; assumed: {assumed:g} points"
    return f"{percent(spread.sd, 2)} points, {spread.freedom:.3g} degrees of freedom"


def _verdict(value: CellValue, verdict: Verdict) -> Iterator[str]:
    if verdict.margin is not None:
        difference = "" if value.difference is None else signed(value.difference, 2)
        yield f"difference: {difference} points; margin: {verdict.margin * PERCENT:g} points"
    why = verdict.reason or _WHY[verdict.state]
    yield f"verdict: {verdict}: {why}"
    if verdict.state != "undecided":
        return
    if verdict.seeds is None:
        yield "to decide it: no number of seeds up to 100, if the accuracy stays the same"
    else:
        least = "at least " if verdict.spread and verdict.spread.assumed else ""
        yield f"to decide it: {least}{verdict.seeds} seeds, if accuracy and spread stay the same"
