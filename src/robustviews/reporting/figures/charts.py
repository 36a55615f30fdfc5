"""Charts of accuracies and minutes: bars, trade-off, cost."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from matplotlib.figure import Figure as Drawing
from matplotlib.patches import Patch
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator, StrMethodFormatter

from robustviews.reporting.figures.style import (
    BARS,
    ERROR,
    GREY,
    cross,
    crossed_out,
    hollow,
    legend_marker,
    row_handles,
    row_style,
)
from robustviews.reporting.tables.values import PERCENT, CellValue, RowValues
from robustviews.reporting.tables.writers import distinct
from robustviews.reporting.verdicts import NOT_ESTABLISHED
from robustviews.study.columns import Column
from robustviews.tasks.classification import CLASSIFICATION

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes


def bars(rows: list[RowValues], title: str) -> Drawing:
    """Draw accuracies as horizontal bars: one group per row, one panel per data set."""
    panels = _by_dataset(rows)
    largest = max(panels.values(), key=len)
    height = 1.2 + len(rows) * (0.15 * len(largest) + 0.16)
    drawing = Drawing(figsize=(2.8 + 3.2 * len(panels), max(height, 2.4)))
    axes = drawing.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for axis, (dataset, numbers) in zip(axes, panels.items(), strict=True):
        _bar_panel(axis, rows, numbers)
        axis.set_title(dataset, loc="left")
        axis.set(xlabel=quantity([row.cells[numbers[0]] for row in rows]), xlim=(0, 100))
        axis.grid(visible=False, axis="y")
        axis.spines["left"].set_visible(False)
        axis.tick_params(axis="y", length=0)
    axes[0].set_yticks(range(len(rows)), distinct(rows))
    axes[0].set_ylim(len(rows) - 0.5, -0.5)
    handles: list[Artist] = [
        Patch(
            facecolor=_bar_style(place)[0],
            hatch=_bar_style(place)[1],
            edgecolor="white",
            label=rows[0].cells[number].column.label,
        )
        for place, number in enumerate(largest)
    ]
    handles += [*struck_handles(rows), *published_handles(rows, marker="D")]
    head(drawing, title, handles, columns=4 if len(panels) < 2 else 6)
    return drawing


def tradeoff(rows: list[RowValues], title: str) -> Drawing:
    """Draw robust against clean accuracy: one panel per data set and radius, one marker per row."""
    return _scatter(rows, title, x_metric="clean")


def cost(rows: list[RowValues], title: str) -> Drawing:
    """Draw robust accuracy against minutes of pretraining, on a logarithmic axis."""
    return _scatter(rows, title, x_metric="minutes")


def _bar_panel(axis: Axes, rows: list[RowValues], numbers: list[int]) -> None:
    thickness = 0.8 / len(numbers)
    for place, number in enumerate(numbers):
        for line, row in enumerate(rows):
            y = line - 0.4 + (place + 0.5) * thickness
            cell = row.cells[number]
            text = "not run" if cell.ours is None else f"{cell.ours * PERCENT:.1f}"
            text = f"({text})" if cell.struck else text
            axis.text(102, y, text, fontsize=6.5, color=GREY, va="center")
            if cell.ours is not None:
                axis.barh(
                    y,
                    cell.ours * PERCENT,
                    thickness * 0.92,
                    **_bar_look(place, is_struck=bool(cell.struck)),
                    xerr=None if cell.struck else errors(cell),
                    error_kw=ERROR,
                )
            if cell.ours is not None and cell.struck:
                axis.plot(cell.ours * PERCENT, y, **cross("#000000", 5))
            if isinstance(cell.published, float):
                axis.plot(cell.published * PERCENT, y, **hollow("D", "#000000", 4.5))


def _scatter(rows: list[RowValues], title: str, *, x_metric: str) -> Drawing:
    """Draw robust accuracy against `x_metric`, one panel per data set and radius."""
    panels: list[tuple[int, int]] = []
    cells = rows[0].cells
    for dataset, numbers in _by_dataset(rows).items():
        x = [i for i, cell in enumerate(cells) if _measures(cell.column, dataset, x_metric)]
        y = [i for i in numbers if not _measures(cells[i].column, dataset, "clean")]
        if not x or not y:
            raise ValueError(
                f"figure {title!r} needs the columns {dataset}/{x_metric} and "
                f"{dataset}/<attack>/<eps>; add them to its `columns`"
            )
        panels += [(x[0], i) for i in y]
    columns = min(3, len(panels))
    grid_rows = -(-len(panels) // columns)
    width = max(3.1 * columns, 6.2)
    extra = [str(handle.get_label()) for handle in struck_handles(rows)]
    longest = max(map(len, [*distinct(rows), *extra]))
    per_line = max(1, int(width / (0.065 * longest + 0.5)))  # legend entries per line
    drawing = Drawing(figsize=(width, 2.8 * grid_rows + 0.18 * (len(rows) // per_line + 2)))
    axes = list(drawing.subplots(grid_rows, columns, squeeze=False).flat)
    for axis, (x_number, y_number) in zip(axes, panels, strict=False):
        column = cells[y_number].column
        for place, row in enumerate(rows):
            _point(axis, row.cells[x_number], row.cells[y_number], place)
        axis.set_title(f"{column.dataset}, {column.label}", loc="left")
        axis.set_ylabel(f"robust {quantity([row.cells[y_number] for row in rows])}")
        axis.set_xlabel(f"clean {quantity([row.cells[y_number] for row in rows])}")
        axis.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
        if x_metric == "minutes":
            _logarithmic(axis)
    for axis in axes[len(panels) :]:
        axis.set_visible(False)
    handles = [*row_handles(distinct(rows)), *published_handles(rows), *struck_handles(rows)]
    head(drawing, title, handles, columns=per_line)
    return drawing


def _logarithmic(axis: Axes) -> None:
    axis.set(xscale="log", xlabel="minutes of pretraining")
    low, high = axis.get_xlim()
    axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 50 * low else (1,)))
    axis.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axis.xaxis.set_minor_locator(NullLocator())


def _point(axis: Axes, x: CellValue, y: CellValue, place: int) -> None:
    marker, colour = row_style(place)
    scale = 1 if x.column.is_minutes else PERCENT
    ours = theirs = None
    if x.ours is not None and y.ours is not None:
        ours = (x.ours * scale, y.ours * PERCENT)
    if ours and (x.struck or y.struck):
        crossed_out(axis, ours, place)
    elif ours:
        axis.errorbar(
            *ours,
            xerr=None if x.column.is_minutes else errors(x),
            yerr=errors(y),
            fmt=marker,
            color=colour,
            markersize=6,
            ecolor=colour,
            elinewidth=0.8,
            zorder=3,
        )
    if isinstance(x.published, int | float) and isinstance(y.published, float):
        theirs = (x.published * scale, y.published * PERCENT)
        axis.plot(*theirs, **hollow(marker, colour, 6))
    if ours and theirs:
        axis.plot(*zip(ours, theirs, strict=True), ":", color=colour, linewidth=0.9, zorder=2)


def head(drawing: Drawing, title: str, handles: Sequence[Artist], *, columns: int) -> None:
    """Write the title of a drawing and its legend, in lines of so many entries."""
    drawing.legend(
        handles=handles,
        title=title,
        title_fontproperties={"size": 11, "weight": "bold"},
        alignment="left",
        loc="outside upper left",
        ncols=columns,
        fontsize=8,
        handlelength=1.6,
        columnspacing=1.4,
    )


def _by_dataset(rows: list[RowValues]) -> dict[str, list[int]]:
    """Return the positions of the accuracy columns by data set."""
    panels: dict[str, list[int]] = {}
    for number, cell in enumerate(rows[0].cells):
        numbers = panels.setdefault(cell.column.dataset, [])
        if not cell.column.is_minutes:
            numbers.append(number)
    return panels


def _measures(column: Column, dataset: str, metric: str) -> bool:
    return column.dataset == dataset and column.metric == metric


def quantity(cells: Sequence[CellValue]) -> str:
    """Return what the numbers of cells are, as an axis names it."""
    metrics = dict.fromkeys(one.metric for cell in cells for one in cell.evidence)
    names = ["accuracy" if name in CLASSIFICATION.metrics else name for name in metrics]
    return f"{', '.join(names) or 'accuracy'} (%)"


def published_handles(rows: list[RowValues], marker: str = "o") -> list[Artist]:
    """Return the legend entry of published values, if there are any."""
    if not any(isinstance(cell.published, float) for row in rows for cell in row.cells):
        return []
    return [legend_marker(marker, "hollow: published", face="white", edge="black")]


def struck_handles(rows: list[RowValues]) -> list[Artist]:
    """Return the legend entry of numbers whose attack is not established, if there are any."""
    if not any(cell.struck for row in rows for cell in row.cells):
        return []
    return [legend_marker("x", NOT_ESTABLISHED, face="black", edge="black")]


def errors(cell: CellValue) -> list[list[float]]:
    """Return the distances from the mean to both ends of the 95 % interval, in percent."""
    assert cell.ours is not None
    assert cell.low is not None
    assert cell.high is not None
    below, above = cell.ours - cell.low, cell.high - cell.ours
    return [[max(0.0, below) * PERCENT], [max(0.0, above) * PERCENT]]


def _bar_look(place: int, *, is_struck: bool) -> dict[str, Any]:
    """Return the plot options of a bar; a struck one is hollow."""
    colour, hatch = _bar_style(place)
    if is_struck:
        return {"facecolor": "white", "edgecolor": colour, "linestyle": ":", "linewidth": 0.8}
    return {"color": colour, "hatch": hatch, "edgecolor": "white", "linewidth": 0}


def _bar_style(place: int) -> tuple[str, str]:
    return BARS[place % len(BARS)]
