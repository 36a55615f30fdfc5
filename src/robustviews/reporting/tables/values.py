"""The values of table cells and figure marks, computed from the results frame."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from statistics import fmean
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from robustviews.artifacts import RECORD
from robustviews.reporting import accuracies, small_radii, statistics, verdicts
from robustviews.reporting.accuracies import Answers
from robustviews.reporting.results import Frame
from robustviews.reporting.statistics import Spread
from robustviews.reporting.verdicts import Covers, Sample, Verdict
from robustviews.study import folders, plan
from robustviews.study.columns import HALVING, Column
from robustviews.study.comparable import incomparable

if TYPE_CHECKING:
    from robustviews.reporting.results import Result
    from robustviews.study.plan import Cell
    from robustviews.study.schema import Figure, Study, Table

    _Index = dict[tuple[str, ...], dict[float, Result]]

PERCENT = 100


@dataclass(frozen=True)
class Evidence:
    """One run behind a cell.

    Attributes:
        run: name of the run.
        seed: of the run.
        value: accuracy or other metric of the task, a fraction, or minutes.
        low, high: ends of the accuracy's 95 % interval (test images); None for minutes.
        n: test images; 0 for minutes.
        weighs: images of equal weight with the same error.
        device: device of the pretraining.
        record: path of the record that states the value, relative to the project.
        metric: of the task; empty for minutes of a run that is not attacked.
    """

    run: str
    seed: int
    value: float
    low: float | None
    high: float | None
    n: int
    weighs: int
    device: str
    record: str
    metric: str


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
        covers: what varies in the interval of an accuracy; None for minutes and without results.
        sd: standard deviation over the cell's own runs; None for fewer than two.
        spread: spread between trainings, from all rows of the column; None for minutes, and if no
            row has two runs.
        difference: ours minus published; None if either is missing, for minutes, since they come
            from another machine, and for a struck cell.
        verdict: whether the published value is reproduced; None without a published accuracy.
        struck: failed checks of the attack, such as `AS9`; empty if the attack is established.
        evidence: the runs.
        replicates: of a statistic of all radii, by bootstrap over test images, averaged over runs.
        at_bound: whether the true value is at least `ours`: an accuracy that does not halve.
    """

    column: Column
    planned: int
    published: float | Literal["unavailable"] | None = None
    ours: float | None = None
    low: float | None = None
    high: float | None = None
    covers: Covers | None = None
    sd: float | None = None
    spread: Spread | None = None
    difference: float | None = None
    verdict: Verdict | None = None
    struck: str = ""
    evidence: tuple[Evidence, ...] = ()
    replicates: Any = field(default=None, compare=False, repr=False)
    at_bound: bool = False

    @property
    def half(self) -> float | None:
        """Half of the 95 % interval, or its longer side if it is cut: 0 of 48 is 0 to 7.4 %.

        None for minutes and without results.
        """
        ours, low, high = self.ours, self.low, self.high
        if self.column.is_minutes or ours is None or low is None or high is None:
            return None
        is_cut = self.column.unit == "%" and (low <= 0 or high >= 1)
        return max(ours - low, high - ours) if is_cut else (high - low) / 2

    @property
    def missing(self) -> str:
        """Why it takes part in no comparison: `not run`, or `attack not established: AS9`."""
        if self.ours is None:
            return verdicts.NOT_RUN
        return f"{verdicts.NOT_ESTABLISHED}: {self.struck}" if self.struck else ""

    @property
    def unfinished(self) -> str:
        """How many runs are done, `2 of 3 seeds`; empty if all are."""
        done = len(self.evidence)
        return f"{done} of {self.planned} seeds" if done < self.planned else ""


@dataclass(frozen=True)
class RowValues:
    """One row of a table or group of a figure; `level` and `group` are those of the study."""

    name: str
    label: str
    entry: str
    probe: str
    cells: tuple[CellValue, ...]
    level: float | str | None = None
    group: str = ""


def row_values(study: Study, table: Table | Figure, frame: list[Result]) -> list[RowValues]:
    """Return the rows of a table or figure, each with one cell per column.

    The frame may be incomplete; without flags it has no statistics of all radii.
    """
    results = _index(frame)
    rows: dict[str, list[_Measured]] = {}
    for cell in plan.cells(study, table):
        measured = _of_radii(cell, results, frame) if cell.measure.statistic else None
        rows.setdefault(cell.row, []).append(measured or _measure(study, cell, results))
    columns = [list(cells) for cells in zip(*rows.values(), strict=True)]
    spreads = [_spreads(cells) for cells in columns]
    judged = verdicts.judge(
        [[one.compared for one in cells] for cells in columns], spreads, study.verdicts
    )
    cells_of_columns = [
        [_value(study, *one) for one in zip(cells, of_cells, verdict, strict=True)]
        for cells, of_cells, verdict in zip(columns, spreads, judged, strict=True)
    ]
    labels = [(name, measured[0].cell, table.rows[name]) for name, measured in rows.items()]
    return [
        RowValues(name, cell.label, cell.entry, cell.probe, cells, row.level, row.group)
        for (name, cell, row), cells in zip(
            labels, zip(*cells_of_columns, strict=True), strict=True
        )
    ]


@dataclass(frozen=True)
class _Measured:
    """A cell with its results, before it is compared.

    Attributes:
        cell: the cell.
        results: one per finished run.
        sample: counts of the runs; none for minutes.
        struck: failed checks of the heads of an attacked cell.
        incomparable: why the published value of another network or attack stands beside it.
        flags: of a statistic of all radii, one mapping from radii per finished run.
    """

    cell: Cell
    results: list[Result]
    sample: Sample
    struck: str
    incomparable: str
    flags: list[dict[float, Any] | Answers] = field(default_factory=list)

    @property
    def trusted(self) -> Sample:
        """The sample; without counts if the attack is not established."""
        return replace(self.sample, counts=()) if self.struck else self.sample

    @property
    def compared(self) -> Sample:
        """The same; without published value if ours is not comparable with it."""
        return replace(self.trusted, published=None) if self.incomparable else self.trusted


def _index(frame: list[Result]) -> _Index:
    """Return the results by run, probe and attack, then radius; also any result of each run."""
    index: _Index = {}
    for result in frame:
        index.setdefault((result["run"],), {})[0.0] = result
        key = result["run"], result["probe"], result["attack"]
        index.setdefault(key, {}).setdefault(result["eps"], result)  # the first metric
        index.setdefault((*key, result["metric"]), {})[result["eps"]] = result
    return index


def _measure(study: Study, cell: Cell, index: _Index) -> _Measured:
    names = (cell.probe, cell.attack, cell.measure.score) if cell.attack else ()
    evaluation = tuple(filter(None, names))
    found = [index.get((run, *evaluation), {}).get(cell.eps or 0.0) for run in cell.runs]
    results = [result for result in found if result is not None]
    if cell.attack is None:
        return _Measured(cell, results, Sample(()), "", "")
    stated = cell.published
    published = None if stated is None or stated == "unavailable" else stated / PERCENT
    failed = (result["sanity"] for result in results if cell.measure.attack)
    counts, images = map(accuracies.counted, results), accuracies.test_images(study, cell, results)
    return _Measured(
        cell,
        results,
        Sample(tuple(counts), images, published),
        ", ".join(dict.fromkeys(filter(None, failed))),
        "" if published is None else incomparable(study, cell),
    )


def _of_radii(cell: Cell, index: _Index, frame: list[Result]) -> _Measured:
    """Return the flags at all radii of each finished run; one radius strikes all."""
    found = frame.flags if isinstance(frame, Frame) else {}
    keys = [(run, cell.probe, cell.attack or "") for run in cell.runs]
    flags = {key: found[key] for key in keys if key in found}
    failed = (result["sanity"] for key in flags for result in index[key].values())
    struck = ", ".join(dict.fromkeys(filter(None, failed)))
    clean = [index[key][0.0] for key in flags]
    return _Measured(cell, clean, Sample(()), struck, "", list(flags.values()))


def _spreads(cells: list[_Measured]) -> list[Spread | None]:
    """Return the spread of each cell of a column; rows of the same run and probe count once."""
    samples = {(one.cell.entry, one.cell.probe): one.trusted for one in cells}
    measured = verdicts.spreads_of(list(samples.values()), [entry for entry, _ in samples])
    spreads = dict(zip(samples, measured, strict=True))
    return [spreads[one.cell.entry, one.cell.probe] for one in cells]


def _value(
    study: Study, measured: _Measured, spread: Spread | None, judged: Verdict | None
) -> CellValue:
    if measured.cell.attack is None:
        return _minutes(study, measured.cell, measured.results)
    if measured.cell.measure.statistic:
        return _statistic(measured)
    value = _accuracy(measured, spread)
    if value.published is None:
        return value
    unavailable = verdicts.UNAVAILABLE if value.published == "unavailable" else ""
    reason = value.missing or unavailable
    if reason:
        return replace(value, verdict=Verdict("not attempted", reason))
    if measured.incomparable:
        return replace(value, verdict=Verdict("not comparable", measured.incomparable))
    return replace(value, verdict=judged)


def _accuracy(measured: _Measured, spread: Spread | None) -> CellValue:
    cell, results = measured.cell, measured.results
    sample = measured.sample
    published = cell.published if cell.published == "unavailable" else sample.published
    empty = CellValue(cell.measure, len(cell.runs), published)
    if not results:
        return empty
    low, high = verdicts.interval(sample, spread)
    difference = None if sample.published is None else sample.mean - sample.published
    return replace(
        empty,
        ours=sample.mean,
        low=low,
        high=high,
        covers=verdicts.covered(sample, spread),
        sd=statistics.own_spread(sample.accuracies),
        spread=spread,
        difference=None if measured.struck else difference,
        struck=measured.struck,
        evidence=tuple(
            _evidence(result, accuracy, result["low"], result["high"])
            for result, accuracy in zip(results, sample.accuracies, strict=True)
        ),
    )


def _statistic(measured: _Measured) -> CellValue:
    """Return a statistic of all radii: for several runs with the spread between them."""
    cell, results = measured.cell, measured.results
    empty = CellValue(cell.measure, len(cell.runs))
    if not results:
        return empty
    name = cell.measure.statistic
    each = (small_radii.statistic(name, one, cell.measure.score) for one in measured.flags)
    values, draws = zip(*each, strict=True)
    replicates, mean = np.mean(draws, axis=0), fmean(values)
    low, high = small_radii.interval(values, replicates)
    return replace(
        empty,
        ours=mean,
        low=low,
        high=high,
        covers="resampled",
        sd=statistics.own_spread(values),
        struck=measured.struck,
        replicates=replicates,
        at_bound=name == HALVING and mean >= max(max(one) for one in measured.flags),
        evidence=tuple(
            _evidence(result, value, *small_radii.interval([value], draw))
            for result, value, draw in zip(results, values, draws, strict=True)
        ),
    )


def _minutes(study: Study, cell: Cell, results: list[Result]) -> CellValue:
    empty = CellValue(cell.measure, len(cell.runs), cell.published)
    if not results:
        return empty
    networks = plan.networks(study)
    folder = {run: folders.job_folder(study, *networks[run].encoder) for run in cell.runs}
    minutes = [result["pretrain_minutes"] or 0.0 for result in results]
    return replace(
        empty,
        ours=fmean(minutes),
        low=min(minutes),
        high=max(minutes),
        sd=statistics.own_spread(minutes),
        evidence=tuple(
            replace(_evidence(result, value), n=0, record=f"{folder[result['run']] / RECORD}")
            for result, value in zip(results, minutes, strict=True)
        ),
    )


def _evidence(
    result: Result, value: float, low: float | None = None, high: float | None = None
) -> Evidence:
    sources = (result[name] for name in ("device", "record", "metric"))
    counts = result["n"], accuracies.weighs(result)
    return Evidence(result["run"], result["seed"], value, low, high, *counts, *sources)
