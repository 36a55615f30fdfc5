"""Pictures of dense tasks: images with masks or boxes, clean and under attack."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from matplotlib import rc_context
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure as Drawing
from matplotlib.patches import Patch, Rectangle

from robustviews.reporting.figures.style import COLOURS, GREY, STYLE
from robustviews.tasks.protocol import VOID

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Array = np.ndarray[Any, Any]

_COLUMNS = ("image, labels", "answer", "attacked image", "answer")
_MOST_NAMES = 12  # classes that the legend lists


class Shown(NamedTuple):
    """One image of a dense task, clean and attacked.

    Attributes:
        images: clean and attacked, each (3, H, W) in [0, 1].
        labels: classes of pixels (H, W), or boxes (M, 5): x1, y1, x2, y2, class.
        answers: about the clean and the attacked image, in the same form.
    """

    images: tuple[Array, Array]
    labels: Array
    answers: tuple[Array, Array]


def dense_images(
    rows: Mapping[str, Sequence[Shown]], names: Sequence[str], *, title: str
) -> Drawing:
    """Draw labels and answers on images, clean and attacked: one line per network.

    Args:
        rows: images by the label of their network, the same number for each.
        names: names of the classes.
        title: the attack.
    """
    count = max(map(len, rows.values()))
    with rc_context(STYLE | {"axes.grid": False}):
        drawing = Drawing(figsize=(2.2 + 4.4 * count, 1.15 * len(rows) + 1.0))
        axes = drawing.subplots(len(rows), 4 * count, squeeze=False)
        for line, (name, shown) in zip(axes, rows.items(), strict=True):
            for number, one in enumerate(shown):
                clean, attacked = one.images
                drawn = (clean, one.labels), (clean, one.answers[0]), (attacked, None)
                pairs = zip(line[4 * number :], (*drawn, (attacked, one.answers[1])), strict=False)
                for axis, (image, marks) in pairs:
                    _picture(axis, image, marks)
            line[0].set_ylabel(
                textwrap.fill(name, 24), fontsize=8, rotation=0, ha="right", va="center"
            )
        for axis, text in zip(axes[-1], _COLUMNS * count, strict=True):
            axis.set_xlabel(text, fontsize=7.5)
        drawing.suptitle(title, fontsize=8.5)
        patches = [
            Patch(color=_colour(number), label=name)
            for number, name in enumerate(names[:_MOST_NAMES])
        ]
        drawing.legend(handles=patches, loc="outside lower center", ncols=6, fontsize=7.5)
    return drawing


def _picture(axis: Axes, image: Array, marks: Array | None) -> None:
    """Draw an image with a mask (H, W) or boxes (M, 5 or more) on it."""
    pixels = np.clip(image, 0, 1).transpose(1, 2, 0)
    if marks is not None and marks.shape == pixels.shape[:2]:
        colours = np.array([to_rgb(_colour(number)) for number in range(VOID)] + [to_rgb(GREY)])
        pixels = 0.4 * pixels + 0.6 * colours[marks]
    axis.imshow(pixels, interpolation="nearest")
    axis.set(xticks=[], yticks=[])
    axis.spines[:].set_visible(True)
    if marks is None or marks.shape == pixels.shape[:2]:
        return
    for x1, y1, x2, y2, kind in marks[:, [0, 1, 2, 3, -1]]:
        corner, sides = (x1 - 0.5, y1 - 0.5), (x2 - x1, y2 - y1)
        colour = _colour(int(kind))
        axis.add_patch(Rectangle(corner, *sides, fill=False, edgecolor=colour, linewidth=1.2))


def _colour(number: int) -> str:
    return COLOURS[number % len(COLOURS)]
