"""Notes below a table: how its numbers were computed, and how to read and compare them.

Only a table with a column of minutes mentions a machine, so that the same results give the same
bytes wherever and whenever they are computed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from robustviews.reporting.statistics import assumed_limit
from robustviews.study import plan
from robustviews.study.columns import HALVING, RETAINED
from robustviews.tasks.classification import CLASSIFICATION
from robustviews.tasks.table import task_of

if TYPE_CHECKING:
    from robustviews.reporting.tables.values import CellValue, RowValues
    from robustviews.study.schema import Study, Table, Verdicts

_INTERVALS = {
    "trainings": "Student's t, with the spread between trainings of all rows of the column",
    "counts": "below 1 % and above 99 % Clopper-Pearson's, over the images of all seeds",
    "images": "Wilson's over test images for a single seed",
    "resampled": "of statistics over all radii the bootstrap's over test images, for several seeds "
    "with the spread between them",
}
_BOOTSTRAP = (
    "its interval is that of as many images as have the standard error of a bootstrap over images"
)
_STATISTICS = {
    RETAINED: "Retained: accuracy under attack divided by clean accuracy, mean over the radii.",
    HALVING: "e50: radius at which accuracy falls to half of clean accuracy, interpolated on a "
    "logarithmic scale; ≥: it does not fall so far at any attacked radius.",
}


def protocol(study: Study, table: Table, rows: list[RowValues]) -> str:
    """Describe how a table was computed: probes, attacks, images, seeds."""
    attacked = [cell.attack for cell in plan.cells(study, table) if cell.attack]
    attacks = dict.fromkeys(one for name in attacked for one in (name, *plan.parts(study, name)))
    seeds = dict.fromkeys(seed for row in rows for seed in plan.seeds_of(study, row.entry))
    parts = [
        "Probes: "
        + "; ".join(
            f"{name} ({study.probes[name].describe()})"
            for name in dict.fromkeys(row.probe for row in rows)
        )
        + ".",
        "Attacks: "
        + "; ".join(f"{name} ({study.attacks[name].describe()})" for name in attacks)
        + "."
        if attacks
        else "",
        _images(rows),
        f"{'Seeds' if len(seeds) > 1 else 'Seed'}: {', '.join(map(str, seeds))}.",
    ]
    return " ".join(filter(None, parts))


def legend(study: Study, rows: list[RowValues]) -> str:
    """Explain how to read the kinds of cells that the table has."""
    cells = _cells(rows)
    accuracies = [cell for cell in cells if not cell.column.is_minutes]
    parts = []
    if accuracies:
        kinds = [text for kind, text in _INTERVALS.items() if kind in {c.covers for c in cells}]
        interval = f" ({'; '.join(kinds)})" if kinds else ""
        parts.append(f"Accuracies in %, ± half of the 95 % interval{interval}{_cut(cells)}.")
    by_class = [name for name, one in study.datasets.items() if one.accuracy != "top1"]
    averaged = [name for name in by_class if name in {one.column.dataset for one in accuracies}]
    if averaged:
        parts.append(f"Mean over the classes of the share of right images: {', '.join(averaged)}.")
    parts += _metrics(study, accuracies)
    shown = {cell.column.statistic for cell in accuracies}
    parts += [text for name, text in _STATISTICS.items() if name in shown]
    units = {cell.column.unit for cell in accuracies if cell.column.statistic == HALVING}
    parts += [f"Unit of e50: {', '.join(sorted(units))}."] if units else []
    parts += _verdicts(study.verdicts, accuracies)
    if any(cell.struck for cell in accuracies):
        parts.append(
            "Struck through: the attack is not established, because the named checks of the head "
            "failed or were not run; the number takes part in no comparison."
        )
    if any(cell.column.is_minutes for cell in cells):
        devices = sorted({run.device for cell in cells for run in cell.evidence})
        machines = f" on {' and '.join(devices)}" if devices else ""
        parts.append(f"Minutes are those of pretraining only{machines}.")
    return " ".join(parts)


def _metrics(study: Study, cells: list[CellValue]) -> list[str]:
    """Name the metric of each dense data set."""
    datasets = dict.fromkeys(cell.column.dataset for cell in cells)
    tasks = {name: task_of(study.datasets[name]) for name in datasets}
    named = [
        f"{name}: {task.metrics[0]}" for name, task in tasks.items() if task is not CLASSIFICATION
    ]
    return [f"Metric on {'; '.join(named)}; {_BOOTSTRAP}."] if named else []


def comparable(study: Study, table: Table, rows: list[RowValues]) -> str:
    """Describe what the numbers may be compared with."""
    parts = []
    if study.demonstration:
        parts.append("Compare rows with each other only, not with any published number.")
    elif table.source and any(cell.published is not None for cell in _cells(rows)):
        parts.append(
            f"Published values: {table.source}, one run per cell, stated without an interval."
        )
    parts += _incomparable(rows)
    parts += _of_views(study, rows)
    for name in dict.fromkeys(cell.column.metric for cell in _cells(rows)):
        if name in study.attacks:
            parts.append(f"{name} {study.attacks[name].comparable()}")
        elif name == "minutes":
            parts.append("Minutes depend on the machine: compare them within this table only.")
    return " ".join(parts)


def _of_views(study: Study, rows: list[RowValues]) -> list[str]:
    """Say that an attack on the mean over views has other freedom than one on an image."""
    stacked = dict.fromkeys(row.probe for row in rows if study.probes[row.probe].stack > 1)
    if not stacked or not any(cell.column.attack for cell in _cells(rows)):
        return []
    return [
        f"Through {' and '.join(stacked)} an attack perturbs every view on its own and knows the "
        "crops: another threat than one perturbation of the whole image, so these robust "
        "accuracies do not compare with those of other probes."
    ]


def _cut(cells: list[CellValue]) -> str:
    """Say what stands beside an accuracy whose interval is cut at 0 or 100 %."""
    is_cut = any(cell.low == 0 or cell.high == 1 for cell in cells if cell.column.unit == "%")
    return ", or its longer side where it ends at 0 or 100 %" if is_cut else ""


def _verdicts(rules: Verdicts, cells: list[CellValue]) -> list[str]:
    """Return what the verdicts of accuracies mean, and that one seed has none."""
    judged = [cell for cell in cells if cell.verdict and cell.verdict.margin is not None]
    parts = []
    if judged:
        parts.append(
            "Beside it: the published value, ours minus published, and the verdict. Reproduced: "
            f"the true difference is within {rules.margin:g} points (within "
            f"{rules.low_margin:g} below {rules.low_below:g} %, and where ours is below 1 % or "
            "above 99 %) with 95 % confidence. Different: the difference is larger, and not chance "
            "(5 % over all cells of the table, after Holm; the published value is one training). "
            "Undecided: neither; `robustviews explain` prints how many seeds would decide."
        )
    single = [cell for cell in cells if len(cell.evidence) == 1]
    compared = [cell.verdict for cell in single if cell.verdict and cell.verdict.spread]
    if any(verdict.spread and verdict.spread.assumed for verdict in compared):
        limit = assumed_limit(rules.spread)
        parts.append(
            f"One seed: no verdict, unless the difference is more than {limit:.1f} points; this "
            f"assumes that trainings spread by {rules.spread:g} points."
        )
    elif single:
        parts.append("One seed: never reproduced." if compared else "One seed: no verdict.")
    return parts


def _incomparable(rows: list[RowValues]) -> list[str]:
    """Return each reason why cells are not comparable with the published values, with its rows."""
    reasons: dict[str, dict[str, None]] = {}
    for row in rows:
        for cell in row.cells:
            if cell.verdict and cell.verdict.state == "not comparable":
                reasons.setdefault(cell.verdict.reason, {})[row.name] = None
    return [
        f"Not comparable with the published values: {', '.join(names)}: {reason}."
        for reason, names in reasons.items()
    ]


def _cells(rows: list[RowValues]) -> list[CellValue]:
    return [cell for row in rows for cell in row.cells]


def _images(rows: list[RowValues]) -> str:
    images: dict[str, set[int]] = {}
    for cell in _cells(rows):
        name = f"{cell.column.dataset} {cell.column.metric}"
        images.setdefault(name, set()).update(run.n for run in cell.evidence if run.n)
    counts = set().union(*images.values())
    if len(counts) <= 1:
        return f"Test images: {counts.pop():,}." if counts else ""
    listed = (
        f"{' or '.join(f'{n:,}' for n in sorted(ns))} ({name})" for name, ns in images.items() if ns
    )
    return f"Test images: {', '.join(listed)}."
