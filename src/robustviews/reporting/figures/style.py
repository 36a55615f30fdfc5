"""Style of figures: colours and markers; the same drawing gives the same bytes.

Colours are those of Okabe and Ito, which colour-blind people can distinguish; hatches, markers and
luminance carry the same information in greyscale. Published values are hollow; a number whose
attack is not established is hollow and crossed out.
"""

from __future__ import annotations

import io
import itertools
import re
import textwrap
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from matplotlib import rc_context
from matplotlib.figure import Figure as Drawing
from matplotlib.lines import Line2D

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes

# Okabe, Ito 2008, from light to dark; their yellow is too light for lines on white
COLOURS = ("#56B4E9", "#E69F00", "#CC79A7", "#009E73", "#D55E00", "#0072B2", "#000000")
BARS = (
    ("#56B4E9", ""),
    ("#E69F00", "////"),
    ("#009E73", "...."),
    ("#D55E00", "\\\\\\\\"),
    ("#0072B2", "xxxx"),
    ("#000000", ""),
)
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "p", "h", "*", "d", "8")
STYLE: Any = {
    "axes.axisbelow": True,
    "axes.edgecolor": "#555555",
    "axes.grid": True,
    "axes.labelsize": 9,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": 9.5,
    "figure.constrained_layout.use": True,
    "figure.facecolor": "white",
    "font.family": "DejaVu Sans",  # ships with matplotlib: the same glyphs everywhere
    "font.size": 9,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
    "hatch.linewidth": 0.7,
    "legend.frameon": False,
    "svg.fonttype": "path",
    "svg.hashsalt": "robustviews",
}
ERROR = {"ecolor": "#222222", "elinewidth": 0.9, "capsize": 2.0}
GREY = "#777777"
_ID = re.compile(rb'(?<=[ ]id=")[a-z][0-9a-f]{10}(?=")|(?<=#)[a-z][0-9a-f]{10}(?=[")])')


def to_svg(drawing: Drawing) -> bytes:
    """Return a drawing as SVG, without date and with stable ids."""
    data = _save(drawing, format="svg", metadata={"Date": None, "Creator": None})
    # matplotlib hashes positions into its ids, and the solver of the layout rounds the last bit of
    # a position by where its variables lie in memory.
    names: dict[bytes, bytes] = {}
    return _ID.sub(lambda found: names.setdefault(found[0], b"id%d" % len(names)), data)


def to_png(drawing: Drawing) -> bytes:
    """Return a drawing as PNG, without date and version."""
    return _save(drawing, format="png", dpi=150, metadata={"Software": None})


def _save(drawing: Drawing, **options: Any) -> bytes:  # noqa: ANN401  # of savefig
    data = io.BytesIO()
    with rc_context(STYLE):
        drawing.savefig(data, **options)
    return data.getvalue()


def hollow(marker: str, colour: str, size: float) -> dict[str, Any]:
    """Return the plot options of a published value."""
    return {
        "marker": marker,
        "markersize": size,
        "markerfacecolor": "white",
        "markeredgecolor": colour,
        "markeredgewidth": 1.1,
        "linestyle": "",
        "zorder": 4,
    }


def cross(colour: str, size: float) -> dict[str, Any]:
    """Return the plot options of the cross through a number whose attack is not established."""
    return {
        "marker": "x",
        "markersize": size,
        "markeredgecolor": colour,
        "markeredgewidth": 1.1,
        "linestyle": "",
        "zorder": 5,
    }


def crossed_out(axis: Axes, at: tuple[float, float], row: int, size: float = 6) -> None:
    """Draw a number of a row whose attack is not established."""
    marker, colour = row_style(row)
    axis.plot(*at, **hollow(marker, colour, size))
    axis.plot(*at, **cross(colour, size + 3))


def row_style(place: int) -> tuple[str, str]:
    """Return marker and colour of a row."""
    return MARKERS[place % len(MARKERS)], COLOURS[place % len(COLOURS)]


def row_handles(labels: Iterable[str]) -> list[Artist]:
    """Return the legend entries of rows."""
    styles = ((row_style(place), label) for place, label in enumerate(labels))
    return [legend_marker(mark, text, face=colour, edge=colour) for (mark, colour), text in styles]


def picture(axis: Axes, pixels: np.ndarray, title: str = "") -> None:
    """Show an image (H, W, 3) in [0, 1] in a frame without ticks."""
    axis.imshow(pixels, interpolation="nearest")
    axis.set(xticks=[], yticks=[])
    axis.spines[:].set_visible(True)
    axis.set_title(title, fontsize=8)


def name_pictures(
    drawing: Drawing, axes: np.ndarray, *, title: str, lines: Iterable[str], columns: Sequence[str]
) -> None:
    """Write names beside the lines of a grid of pictures, and below its columns, in turn."""
    for axis, name in zip(axes[:, 0], lines, strict=True):
        text = textwrap.fill(name, 24)
        axis.set_ylabel(text, fontsize=8, rotation=0, ha="right", va="center")
    for axis, text in zip(axes[-1], itertools.cycle(columns), strict=False):
        axis.set_xlabel(text, fontsize=7.5)
    drawing.suptitle(title, fontsize=8.5)


def legend_marker(marker: str, label: str, *, face: str, edge: str) -> Line2D:
    """Return a marker for a legend."""
    return Line2D(
        [], [], linestyle="", marker=marker, markerfacecolor=face, markeredgecolor=edge, label=label
    )
