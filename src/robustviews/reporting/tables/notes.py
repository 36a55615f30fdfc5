"""Notes below a table: how its numbers were computed, and how to read and compare them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from robustviews.reporting.statistics import PUBLISHED_IMAGES
from robustviews.study import plan

if TYPE_CHECKING:
    from robustviews.reporting.results import Result
    from robustviews.reporting.tables.values import CellValue, RowValues
    from robustviews.study.schema import Study, Table


def protocol(study: Study, table: Table, rows: list[RowValues], frame: list[Result]) -> str:
    """Describe how a table was computed: pretraining, probes, attacks, images, seeds."""
    attacks = dict.fromkeys(cell.attack for cell in plan.cells(study, table) if cell.attack)
    seeds = dict.fromkeys(seed for row in rows for seed in plan.seeds_of(study, row.entry))
    parts = [
        _pretraining(rows, frame),
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


def legend(rows: list[RowValues]) -> str:
    """Explain how to read the kinds of cells that the table has."""
    cells = _cells(rows)
    accuracies = [cell for cell in cells if not cell.column.is_minutes]
    parts = []
    if accuracies:
        runs = {len(cell.evidence) for cell in accuracies} - {0}
        kinds = ["Student's t over seeds"] * any(count > 1 for count in runs)
        kinds += ["Wilson's over test images"] * (1 in runs)
        suffix = " for a single seed" if len(kinds) > 1 else ""
        interval = f" ({'; '.join(kinds)}{suffix})" if kinds else ""
        parts.append(f"Accuracies in %, ± half of the 95 % interval{interval}.")
    compared = [cell for cell in accuracies if cell.difference is not None]
    if compared:
        parts.append(
            "Beside it: the published value, and ours minus published, marked if it is more than "
            "chance (two-proportion z-test at 5 %, the published value taken as one run on "
            f"{PUBLISHED_IMAGES:,} images)."
        )
    if any(len(cell.evidence) == 1 for cell in compared):
        parts.append("With one seed the test leaves out the unknown spread over seeds.")
    if any(cell.column.is_minutes for cell in cells):
        parts.append("Minutes are those of pretraining only.")
    return " ".join(parts)


def comparable(study: Study, table: Table, rows: list[RowValues]) -> str:
    """Describe what the numbers may be compared with."""
    parts = []
    if study.demonstration:
        parts.append("Compare rows with each other only, not with any published number.")
    elif table.source and any(cell.published is not None for cell in _cells(rows)):
        parts.append(
            f"Published values: {table.source}, one run per cell, stated without an interval."
        )
    for name in dict.fromkeys(cell.column.metric for cell in _cells(rows)):
        if name in study.attacks:
            parts.append(f"{name} {study.attacks[name].comparable()}")
        elif name == "minutes":
            parts.append("Minutes depend on the machine: compare them within this table only.")
    return " ".join(parts)


def _cells(rows: list[RowValues]) -> list[CellValue]:
    return [cell for row in rows for cell in row.cells]


def _pretraining(rows: list[RowValues], frame: list[Result]) -> str:
    evidence = [run for cell in _cells(rows) for run in cell.evidence]
    runs = {run.run for run in evidence}
    minutes = [result["pretrain_minutes"] for result in frame if result["run"] in runs]
    if not minutes:
        return ""
    span = " to ".join(dict.fromkeys(f"{end:.3g}" for end in (min(minutes), max(minutes))))
    devices = " and ".join(sorted({run.device for run in evidence}))
    return f"Pretraining: {span} minutes per run on {devices}."


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
