"""Accuracy against radius: one line per row, one panel per data set and attack."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from matplotlib.figure import Figure as Drawing
from matplotlib.ticker import FixedLocator, NullLocator, StrMethodFormatter

from robustviews.reporting.figures.charts import head, published_handles, quantity, struck_handles
from robustviews.reporting.figures.style import crossed_out, hollow, row_handles, row_style
from robustviews.reporting.tables.values import PERCENT, CellValue, RowValues
from robustviews.reporting.tables.writers import distinct

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_LONGEST = 34  # characters of a label for which a figure of one panel has two columns of entries


def radius(rows: list[RowValues], title: str) -> Drawing:
    """Draw accuracies over logarithmic radii, from clean accuracy at 0, with 95 % bands.

    Published values are hollow, on a dotted line. A number whose attack is not established is
    hollow and crossed out, and has no band.

    Raises:
        ValueError: there are no two radii of an attack to draw.
    """
    panels = _panels(rows[0])
    if not panels or min(map(len, panels.values())) < 2:
        raise ValueError(
            f"figure {title!r} needs <dataset>/<attack>/<eps> at two radii, or at one with "
            "<dataset>/clean; add them to its `columns`"
        )
    entries = max(1, 2 * len(panels) * _LONGEST // (_LONGEST + max(map(len, distinct(rows)))))
    lines = -(-len(rows) // entries) + 2
    drawing = Drawing(figsize=(1 + 4.2 * len(panels), 3.0 + 0.2 * lines))
    axes = drawing.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for axis, ((dataset, attack), numbers) in zip(axes, panels.items(), strict=True):
        for place, row in enumerate(rows):
            _line(axis, [row.cells[number] for number in numbers], place)
        measure = rows[0].cells[numbers[-1]].column
        axis.set_title(f"{dataset}, {attack}", loc="left")
        unit = "1/255" if measure.norm == "linf" else f"{measure.norm.upper()} norm"
        axis.set_xlabel(f"radius ({unit})")
        _logarithmic(axis, sorted({rows[0].cells[number].column.eps or 0.0 for number in numbers}))
    drawn = [row.cells[number] for numbers in panels.values() for row in rows for number in numbers]
    axes[0].set(ylabel=quantity(drawn), ylim=(0, 100))
    handles = [*row_handles(distinct(rows)), *published_handles(rows), *struck_handles(rows)]
    head(drawing, title, handles, columns=entries)
    return drawing


def _panels(row: RowValues) -> dict[tuple[str, str], list[int]]:
    """Return the positions of the cells of each data set and attack, from clean by radius."""
    panels: dict[tuple[str, str], list[int]] = {}
    columns = [cell.column for cell in row.cells]
    for column in columns:
        if column.eps is not None:
            panels[column.dataset, column.metric] = sorted(
                (
                    number
                    for number, other in enumerate(columns)
                    if other.dataset == column.dataset and other.metric in (column.metric, "clean")
                ),
                key=lambda number: columns[number].eps or 0.0,
            )
    return panels


def _line(axis: Axes, cells: list[CellValue], place: int) -> None:
    marker, colour = row_style(place)
    shown = [cell for cell in cells if cell.ours is not None]
    trusted = [cell for cell in shown if not cell.struck]

    def percent(cells: list[CellValue], name: str) -> list[float]:
        return [getattr(cell, name) * PERCENT for cell in cells]

    def radii(cells: list[CellValue]) -> list[float]:
        return [cell.column.eps or 0.0 for cell in cells]

    # In the layout, a line without points and clipping would reach to the corner of the figure.
    whole: dict[str, Any] = {"color": colour, "clip_on": False, "in_layout": False}
    on_top = whole | {"zorder": 3}
    axis.plot(radii(shown), percent(shown, "ours"), "-", linewidth=1.2, **on_top)
    axis.plot(radii(trusted), percent(trusted, "ours"), marker, markersize=4.5, **on_top)
    low, high = percent(trusted, "low"), percent(trusted, "high")
    axis.fill_between(radii(trusted), low, high, color=colour, alpha=0.14, linewidth=0)
    published = {
        cell.column.eps or 0.0: cell.published * PERCENT
        for cell in cells
        if isinstance(cell.published, float)
    }
    dotted = hollow(marker, colour, 4.5) | whole | {"linestyle": ":", "linewidth": 0.9}
    axis.plot(list(published), list(published.values()), **dotted)
    for cell in shown:
        if cell.struck:
            crossed_out(axis, (cell.column.eps or 0.0, percent([cell], "ours")[0]), place, size=5)


def _logarithmic(axis: Axes, radii: list[float]) -> None:
    """Make the axis of radii logarithmic, but linear from 0 to the smallest radius."""
    axis.set_xscale("symlog", linthresh=next(filter(None, radii)), linscale=0.4)
    axis.set_xlim(radii[0], radii[-1])
    axis.xaxis.set_major_locator(FixedLocator(radii))
    axis.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axis.xaxis.set_minor_locator(NullLocator())
