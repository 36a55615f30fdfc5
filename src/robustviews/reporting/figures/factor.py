"""What rows retain against a factor: one line per group, one panel per column."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from matplotlib.figure import Figure as Drawing

from robustviews.reporting.figures.charts import errors, head, struck_handles
from robustviews.reporting.figures.style import crossed_out, row_handles, row_style
from robustviews.reporting.tables.values import PERCENT, RowValues

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def factor(rows: list[RowValues], title: str) -> Drawing:
    """Draw what groups retain over the logarithm of a number, or over words, with 95 % intervals.

    A number whose attack is not established is hollow and crossed out, and has no interval.
    """
    drawn = [row for row in rows if row.level is not None]
    groups = list(dict.fromkeys(row.group for row in drawn))
    columns = [number for number, cell in enumerate(rows[0].cells) if cell.column.statistic]
    places = _places(drawn)
    drawing = Drawing(figsize=(1.6 + 3.6 * len(columns), 3.2 + 0.2 * (len(groups) // 3 + 2)))
    axes = drawing.subplots(1, len(columns), sharey=True, squeeze=False)[0]
    for axis, number in zip(axes, columns, strict=True):
        for place, group in enumerate(groups):
            _line(axis, [row for row in drawn if row.group == group], number, places, place)
        column = rows[0].cells[number].column
        axis.set_title(f"{column.dataset}, {column.metric}", loc="left")
        texts = [level if isinstance(level, str) else f"{level:g}" for level in places]
        axis.set_xticks(list(places.values()), texts)
    axes[0].set_ylabel("retained (%)")
    handles = row_handles(group or "all" for group in groups)
    head(drawing, title, [*handles, *struck_handles(drawn)], columns=3)
    return drawing


def _places(rows: list[RowValues]) -> dict[float | str, float]:
    """Return the position of each level: log2 of a number, else in the order of the rows."""
    levels = [row.level for row in rows if row.level is not None]
    if all(isinstance(level, float) for level in levels):
        return {level: math.log2(float(level)) for level in sorted(levels, key=float)}
    return {level: float(place) for place, level in enumerate(dict.fromkeys(levels))}


def _line(
    axis: Axes, rows: list[RowValues], number: int, places: dict[float | str, float], place: int
) -> None:
    marker, colour = row_style(place)
    points = []
    for row in rows:
        cell = row.cells[number]
        if cell.ours is None or row.level is None:
            continue
        at = places[row.level], cell.ours * PERCENT
        points.append(at)
        if cell.struck:
            crossed_out(axis, at, place)
        else:
            axis.errorbar(*at, yerr=errors(cell), fmt=marker, color=colour, elinewidth=0.8)
    if points:
        axis.plot(*zip(*sorted(points), strict=True), "-", color=colour, linewidth=1.0)
