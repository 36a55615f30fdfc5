"""Figures of the results frame. Only this package imports matplotlib, and never its pyplot.

A new kind of figure is a function of rows and title, such as `radius` in the module of that name,
and a row in `FIGURES`.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from typing import TYPE_CHECKING

from matplotlib import rc_context
from matplotlib.figure import Figure as Drawing

from robustviews.reporting.figures.charts import bars, cost, tradeoff
from robustviews.reporting.figures.dense import Shown, dense_images
from robustviews.reporting.figures.factor import factor
from robustviews.reporting.figures.gaps import gaps
from robustviews.reporting.figures.radius import radius
from robustviews.reporting.figures.style import GREY, STYLE, to_png, to_svg
from robustviews.reporting.figures.trainings import (
    Attacked,
    adversarial_images,
    example_views,
    training_curves,
)
from robustviews.reporting.tables.values import RowValues, row_values

if TYPE_CHECKING:
    from robustviews.reporting.results import Result
    from robustviews.study.schema import Figure, Study

_PER_INCH = 18  # characters of a note in 7 points
FIGURES: dict[str, Callable[[list[RowValues], str], Drawing]] = {
    "bars": bars,
    "tradeoff": tradeoff,
    "cost": cost,
    "radius": radius,
    "factor": factor,
}

__all__ = [
    "FIGURES",
    "Attacked",
    "Shown",
    "adversarial_images",
    "dense_images",
    "draw",
    "example_views",
    "gaps",
    "to_png",
    "to_svg",
    "training_curves",
]


def draw(study: Study, figure: Figure, frame: list[Result]) -> Drawing:
    """Draw a figure of a study.

    Args:
        study: study of the figure.
        figure: kind, rows and columns.
        frame: results; bars mark missing ones `not run`.

    Returns:
        The drawing, for `to_svg` and `to_png`.

    Raises:
        ValueError: the figure lacks a column that its kind needs.
    """
    rows = row_values(study, figure, frame)
    with rc_context(STYLE):
        drawing = FIGURES[figure.kind](rows, figure.title)
        if study.demonstration:
            note = textwrap.fill(study.demonstration, int(_PER_INCH * drawing.get_figwidth()))
            drawing.supxlabel(note, fontsize=7, style="italic", color=GREY)
    return drawing
