"""What rows retain more than another row, for each way of using their encoders: a dot plot."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from typing import TYPE_CHECKING

from matplotlib import rc_context
from matplotlib.figure import Figure as Drawing

from robustviews.reporting.figures.charts import head, row_style
from robustviews.reporting.figures.style import GREY, STYLE, legend_marker

if TYPE_CHECKING:
    from robustviews.reporting.outcomes import Part

_SPREAD = 0.7  # of the space of a table that its rows take


def gaps(advantages: Mapping[str, Mapping[str, Part]], *, title: str) -> Drawing:
    """Draw differences in percentage points with 95 % intervals, a line of dots per table.

    Args:
        advantages: by title of the table and label of the row, from `robustness.advantages`.
        title: line above the figure.
    """
    names = list(dict.fromkeys(name for rows in advantages.values() for name in rows))
    with rc_context(STYLE):
        drawing = Drawing(figsize=(7.2, 1.2 + (0.35 + 0.14 * len(names)) * len(advantages)))
        axis = drawing.subplots()
        axis.axvline(0, color=GREY, linewidth=0.9)
        for place, rows in enumerate(advantages.values()):
            for number, name in enumerate(names):
                part = rows.get(name)
                if part is None or part.ours is None:
                    continue
                marker, colour = row_style(number)
                at = place + _SPREAD * ((number + 0.5) / len(names) - 0.5)
                low, high = part.interval or (part.ours, part.ours)
                reach = [[part.ours - low], [high - part.ours]]
                axis.errorbar(part.ours, at, xerr=reach, fmt=marker, color=colour, elinewidth=0.9)
        titles = [textwrap.fill(text, 34) for text in advantages]
        axis.set_yticks(range(len(advantages)), titles)
        axis.set_ylim(len(advantages) - 0.5, -0.5)
        axis.set_xlabel("advantage in what is retained under attack (percentage points)")
        handles = [
            legend_marker(marker, name, face=colour, edge=colour)
            for name, (marker, colour) in zip(names, map(row_style, range(len(names))), strict=True)
        ]
        head(drawing, title, handles, columns=4)
    return drawing
