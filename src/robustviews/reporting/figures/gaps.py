"""What rows retain more than another row, for each way of using their encoders: a dot plot."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from typing import TYPE_CHECKING

from matplotlib import rc_context
from matplotlib.figure import Figure as Drawing

from robustviews.reporting.figures.charts import head
from robustviews.reporting.figures.style import GREY, STYLE, row_handles, row_style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from robustviews.reporting.outcomes import Part

_LINE = 0.16  # inches of a row
_FEWEST = 4  # rows whose space a table has at least, for its title


def gaps(advantages: Mapping[str, Mapping[str, Part]], *, title: str) -> Drawing:
    """Draw differences in percentage points with 95 % intervals, a line of dots per table.

    Args:
        advantages: by table and label of the row, from `robustness.advantages`.
        title: line above the figure.
    """
    names = list(dict.fromkeys(name for rows in advantages.values() for name in rows))
    with rc_context(STYLE):
        lines = [max(_FEWEST, len(rows)) for rows in advantages.values()]
        drawing = Drawing(figsize=(7.2, 1.2 + _LINE * sum(lines)))
        axis = drawing.subplots()
        axis.axvline(0, color=GREY, linewidth=0.9)
        centres, top = [], 0
        for rows, height in zip(advantages.values(), lines, strict=True):
            first = top + (height - len(rows)) / 2 + 0.5
            for at, (name, part) in enumerate(rows.items()):
                _dot(axis, part, first + at, *row_style(names.index(name)))
            centres.append(top + height / 2)
            top += height
            axis.axhline(top, color=GREY, linewidth=0.3)
        axis.set_yticks(centres, [textwrap.fill(text, 34) for text in advantages])
        axis.set_ylim(top, 0)
        axis.grid(visible=False, axis="y")
        axis.set_xlabel("advantage in what is retained under attack (percentage points)")
        head(drawing, title, row_handles(names), columns=4)
    return drawing


def _dot(axis: Axes, part: Part, at: float, marker: str, colour: str) -> None:
    if part.ours is None:
        return
    low, high = part.interval or (part.ours, part.ours)
    reach = [[part.ours - low], [high - part.ours]]
    axis.errorbar(part.ours, at, xerr=reach, fmt=marker, color=colour, elinewidth=0.9)
