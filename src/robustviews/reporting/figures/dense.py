"""Pictures of dense tasks: images with masks or boxes, clean and under attack."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from matplotlib import rc_context
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure as Drawing
from matplotlib.patches import Patch, Rectangle

from robustviews.reporting.figures.style import COLOURS, GREY, STYLE, name_pictures, picture
from robustviews.tasks.protocol import VOID

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Array = np.ndarray[Any, Any]

_COLUMNS = ("image, labels", "answer", "attacked image", "answer")
# Of 21 classes of VOC few occur in a picture; a picture with more than 12 repeats colours.
_PALETTE = (*COLOURS, "#F0E442", "#882255", "#99DD00", "#7B3FC0", "#8B5A2B")


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
    """Draw labels and answers on images under an attack: one line per network, by its label.

    Black rows and columns at the end of all images, as of padding, are cut off.
    """
    count = max(map(len, rows.values()))
    every = [one for shown in rows.values() for one in shown]
    height, width = (max(_end(one.images[0], axis) for one in every) for axis in (1, 2))
    colours = _colours(every)
    with rc_context(STYLE | {"axes.grid": False}):
        side = 1.1 * height / width + 0.05
        drawing = Drawing(figsize=(2.2 + 4.4 * count, side * len(rows) + 1.0))
        axes = drawing.subplots(len(rows), 4 * count, squeeze=False)
        for line, shown in zip(axes, rows.values(), strict=True):
            for number, one in enumerate(shown):
                clean, attacked = one.images
                drawn = (clean, one.labels), (clean, one.answers[0]), (attacked, None)
                pairs = zip(line[4 * number :], (*drawn, (attacked, one.answers[1])), strict=False)
                for axis, (image, marks) in pairs:
                    _picture(axis, image, marks, colours)
                    axis.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5))
        name_pictures(drawing, axes, title=title, lines=rows, columns=_COLUMNS)
        patches = [
            Patch(color=colour, label="void" if kind == VOID else names[kind])
            for kind, colour in colours.items()
        ]
        drawing.legend(handles=patches, loc="outside lower center", ncols=6, fontsize=7.5)
    return drawing


def _end(image: Array, axis: int) -> int:
    """Return where the last row (axis 1) or column (axis 2) ends that is not black."""
    others = tuple({0, 1, 2} - {axis})
    return int(np.flatnonzero(image.any(axis=others)).max(initial=0)) + 1


def _colours(every: Sequence[Shown]) -> dict[int, str]:
    """Return the colours of the classes that occur, in their order; void is grey."""
    marks = [one for shown in every for one in (shown.labels, *shown.answers)]
    kinds = sorted({int(kind) for one in marks for kind in np.unique(_kinds(one))})
    colours = {kind: _PALETTE[place % len(_PALETTE)] for place, kind in enumerate(kinds)}
    return colours | ({VOID: GREY} if VOID in colours else {})


def _kinds(marks: Array) -> Array:
    """Return the classes of a mask (H, W) or of boxes (M, 5 or 6)."""
    return marks[:, -1] if _are_boxes(marks) else marks


def _are_boxes(marks: Array) -> bool:
    return np.issubdtype(marks.dtype, np.floating)


def _picture(axis: Axes, image: Array, marks: Array | None, colours: Mapping[int, str]) -> None:
    """Draw an image with a mask (H, W) or boxes (M, 5 or more) on it."""
    pixels = np.clip(image, 0, 1).transpose(1, 2, 0)
    if marks is not None and not _are_boxes(marks):
        table = np.zeros((VOID + 1, 3))
        table[list(colours)] = [to_rgb(colour) for colour in colours.values()]
        pixels = 0.4 * pixels + 0.6 * table[marks]
    picture(axis, pixels)
    if marks is None or not _are_boxes(marks):
        return
    for x1, y1, x2, y2, kind in marks[:, [0, 1, 2, 3, -1]]:
        corner, sides = (x1 - 0.5, y1 - 0.5), (x2 - x1, y2 - y1)
        colour = colours[int(kind)]
        axis.add_patch(Rectangle(corner, *sides, fill=False, edgecolor=colour, linewidth=1.2))
