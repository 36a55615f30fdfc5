"""The values of table cells and figure marks, computed from the results frame."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Literal

from robustviews.artifacts import RECORD
from robustviews.reporting.statistics import Verdict, compare, over_seeds
from robustviews.study import folders, plan
from robustviews.study.columns import Column

if TYPE_CHECKING:
    from robustviews.reporting.results import Result
    from robustviews.study.plan import Cell
    from robustviews.study.schema import Figure, Study, Table

PERCENT = 100


@dataclass(frozen=True)
class Evidence:
    """One run behind a cell.

    Attributes:
        run: name of the run.
        seed: of the run.
        value: accuracy, a fraction, or minutes.
        low: lower end of the accuracy's 95 % interval (test images); None for minutes.
        high: upper end of it.
        n: test images; 0 for minutes.
        device: device of the pretraining.
        record: path of the record that states the value, relative to the project.
    """

    run: str
    seed: int
    value: float
    low: float | None
    high: float | None
    n: int
    device: str
    record: str


@dataclass(frozen=True)
class CellValue:
    """One cell; accuracies are fractions, minutes are minutes.

    Attributes:
        column: what it measures.
        planned: number of runs in the study.
        published: the paper's value, `unavailable`, or None without one.
        ours: mean over runs; None when nothing was run.
        low: lower end of the 95 % interval; of minutes the smallest.
        high: upper end; of minutes the largest.
        sd: standard deviation over runs; None for fewer than two.
        difference: ours minus published; None if either is missing, and for minutes, since they
            come from another machine.
        verdict: whether the difference is more than chance.
        evidence: the runs.
    """

    column: Column
    planned: int
    published: float | Literal["unavailable"] | None = None
    ours: float | None = None
    low: float | None = None
    high: float | None = None
    sd: float | None = None
    difference: float | None = None
    verdict: Verdict | None = None
    evidence: tuple[Evidence, ...] = ()

    @property
    def half(self) -> float | None:
        """Half of the 95 % interval of an accuracy; None for minutes and without results."""
        if self.column.is_minutes or self.low is None or self.high is None:
            return None
        return (self.high - self.low) / 2


@dataclass(frozen=True)
class RowValues:
    """One row of a table or group of a figure."""

    name: str
    label: str
    entry: str
    probe: str
    cells: tuple[CellValue, ...]


def row_values(study: Study, table: Table | Figure, frame: list[Result]) -> list[RowValues]:
    """Return the cells of a table or figure, row by row.

    Args:
        study: study of the table.
        table: a table or figure of the study.
        frame: results, as `robustviews.reporting.results.frame` reads them; may be incomplete.

    Returns:
        One entry per row, with one cell per column.
    """
    results: dict[tuple[str, str, str, float], Result] = {}
    for result in frame:
        results[result["run"], result["probe"], result["attack"], result["eps"]] = result
    pretrainings = {result["run"]: result for result in frame}
    rows: dict[str, list[Cell]] = {}
    for cell in plan.cells(study, table):
        rows.setdefault(cell.row, []).append(cell)

    def value(cell: Cell) -> CellValue:
        if cell.attack is None:
            return _minutes(
                study, cell, [pretrainings[run] for run in cell.runs if run in pretrainings]
            )
        keys = [(run, cell.probe, cell.attack, cell.eps or 0.0) for run in cell.runs]
        return _accuracy(cell, [results[key] for key in keys if key in results])

    return [
        RowValues(name, group[0].label, group[0].entry, group[0].probe, tuple(map(value, group)))
        for name, group in rows.items()
    ]


def all_evidence(rows: list[RowValues]) -> Iterator[Evidence]:
    """Yield every run behind every cell."""
    for row in rows:
        for cell in row.cells:
            yield from cell.evidence


def _accuracy(cell: Cell, results: list[Result]) -> CellValue:
    column = cell.measure
    published = cell.published
    if published is not None and published != "unavailable":
        published = published / PERCENT
    empty = CellValue(column, len(cell.runs), published)
    if not results:
        return empty
    summary = over_seeds([(result["correct"], result["n"]) for result in results])
    value = replace(
        empty,
        ours=summary.mean,
        low=summary.low,
        high=summary.high,
        sd=summary.sd,
        evidence=tuple(
            Evidence(
                run=result["run"],
                seed=result["seed"],
                value=result["correct"] / result["n"],
                low=result["low"],
                high=result["high"],
                n=result["n"],
                device=result["device"],
                record=result["record"],
            )
            for result in results
        ),
    )
    if published is None or published == "unavailable":
        return value
    n = min(result["n"] for result in results)
    comparison = compare(summary.mean, published, n=n, sd=summary.sd, runs=summary.runs)
    return replace(value, difference=comparison.difference, verdict=comparison.verdict)


def _minutes(study: Study, cell: Cell, results: list[Result]) -> CellValue:
    empty = CellValue(cell.measure, len(cell.runs), cell.published)
    if not results:
        return empty
    minutes = [result["pretrain_minutes"] for result in results]
    return replace(
        empty,
        ours=fmean(minutes),
        low=min(minutes),
        high=max(minutes),
        sd=stdev(minutes) if len(minutes) > 1 else None,
        evidence=tuple(
            Evidence(
                run=result["run"],
                seed=result["seed"],
                value=result["pretrain_minutes"],
                low=None,
                high=None,
                n=0,
                device=result["device"],
                record=(folders.pretrain_folder(study, result["run"]) / RECORD).as_posix(),
            )
            for result in results
        ),
    )
