"""Figures of trainings and attacks: loss curves, example views, adversarial images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure as Drawing
from matplotlib.ticker import MaxNLocator

from robustviews.methods import METHODS
from robustviews.reporting.figures.style import GREY, STYLE, name_pictures, picture, row_style
from robustviews.study import networks, plan

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from numpy.typing import NDArray

    from robustviews.study.schema import Study

WRONG = "#D55E00"
SHOWN_VIEWS = 6
GAIN = 10  # of perturbations beside adversarial images


class Attacked(NamedTuple):
    """One image under attack.

    Attributes:
        label: its class.
        images: clean and adversarial, each (3, H, W) in [0, 1].
        guesses: of the clean and of the adversarial image: predicted class, and its probability.
    """

    label: int
    images: tuple[NDArray[np.floating], ...]
    guesses: tuple[tuple[int, float], ...]


def training_curves(study: Study, histories: Mapping[str, Sequence[Mapping[str, Any]]]) -> Drawing:
    """Draw the loss of every pretraining in one chart.

    Args:
        study: study of the trainings.
        histories: by run name, one entry per epoch with `epoch` and `loss`.

    Returns:
        One panel per method, whose losses are comparable, with a line per run, data set and seed:
        a run has one colour and marker, a seed one style.
    """
    kinds = {options: kind for kind, options in METHODS.items()}
    panels: dict[str, dict[str, list[networks.Pretraining]]] = {}
    for job in plan.pretrainings(study).values():
        if histories.get(job.name):
            method = kinds[type(study.runs[job.entry].method)]
            panels.setdefault(method, {}).setdefault(job.entry, []).append(job)
    longest = max(map(len, panels.values()), default=1)
    count = max(1, len(panels))
    with rc_context(STYLE):
        drawing = Drawing(figsize=(3.6 * count, 2.9 + 0.16 * longest))
        axes = list(drawing.subplots(1, count, squeeze=False).flat)
        for axis, (method, entries) in zip(axes, panels.items(), strict=False):
            for place, (entry, jobs) in enumerate(entries.items()):
                marker, colour = row_style(place)
                for number, (job, dashes) in enumerate(zip(jobs, _dashes(jobs), strict=True)):
                    label = "" if number else plan.label(study, entry)
                    look = {"color": colour, "marker": marker, "linestyle": dashes}
                    _curve(axis, histories[job.name], label=label, **look)
            axis.set_title(method, loc="left")
            axis.set(xlabel="epoch", ylabel="loss")
            axis.legend(loc="upper left", bbox_to_anchor=(0, -0.2), fontsize=7)
        for axis in axes[len(panels) :]:
            axis.set_visible(False)
    return drawing


def example_views(
    images: NDArray[np.floating],
    views: NDArray[np.floating],
    perturbed: NDArray[np.floating],
    *,
    labels: Sequence[str] = (),
    note: str = "",
) -> Drawing:
    """Draw images, their views, the perturbed views and the perturbations.

    At most the first six views are drawn.

    Args:
        images: (B, 3, H, W) in [0, 1].
        views: (V, B, 3, H, W) in [0, 1].
        perturbed: (V, B, 3, H, W) in [0, 1], the views after the attack.
        labels: title of each image; none by default.
        note: text below the figure.

    Returns:
        Three lines per image: views, perturbed views and perturbations. The latter are drawn on
        grey, which is zero, and amplified until the largest value spans the range.
    """
    views, perturbed = views[:SHOWN_VIEWS], perturbed[:SHOWN_VIEWS]
    count, batch = views.shape[:2]
    added = perturbed - views
    largest = float(np.abs(added).max())
    gain = 0.5 / largest if largest > 0 else 1.0
    lines = {
        "views": views,
        "perturbed": perturbed,
        f"perturbation\n\u00d7 {gain:.0f}": 0.5 + gain * added,
    }
    with rc_context(STYLE | {"axes.grid": False}):
        drawing = Drawing(figsize=(1.08 * (count + 1) + 0.3, 3.4 * batch + 0.3))
        blocks = drawing.subfigures(batch, 1, squeeze=False, hspace=0.02)[:, 0]
        for number, block in enumerate(blocks):
            axes = block.subplots(3, count + 1)
            name = labels[number] if labels else "image"
            _image(axes[1, 0], images[number], title=name)
            axes[0, 0].set_visible(False)
            axes[2, 0].set_visible(False)
            for line, (text, stack) in zip(axes, lines.items(), strict=True):
                for axis, view in zip(line[1:], stack[:, number], strict=True):
                    _image(axis, view)
                line[1].set_ylabel(text, fontsize=8)
        if note:
            drawing.supxlabel(note, fontsize=7, color=GREY)
    return drawing


def adversarial_images(rows: Mapping[str, Sequence[Attacked]], *, title: str) -> Drawing:
    """Draw clean images, adversarial images and their perturbations: one line per classifier.

    Args:
        rows: images by the label of their classifier, the same number for each.
        title: the attack.

    Returns:
        Three pictures per image, with the predicted class and its probability; a wrong class is
        marked by a cross and by colour.
        Perturbations are amplified `GAIN` times and drawn on grey, which is zero.
    """
    count = max(map(len, rows.values()))
    with rc_context(STYLE | {"axes.grid": False}):
        drawing = Drawing(figsize=(2.2 + 3 * count, 1.15 * len(rows) + 0.7))
        axes = drawing.subplots(len(rows), 3 * count, squeeze=False)
        for line, shown in zip(axes, rows.values(), strict=True):
            for number, one in enumerate(shown):
                clean, adversarial = one.images
                trio = line[3 * number : 3 * number + 3]
                _image(trio[2], 0.5 + GAIN * (adversarial - clean))
                for axis, image, (guess, share) in zip(trio, one.images, one.guesses, strict=False):
                    is_right = guess == one.label
                    sign = "" if is_right else "\N{BALLOT X} "
                    _image(axis, image, title=f"{sign}{guess}: {share:.0%}")
                    axis.title.set_color("black" if is_right else WRONG)
        columns = ("clean", "adversarial", f"perturbation \u00d7 {GAIN}")
        name_pictures(drawing, axes, title=title, lines=rows, columns=columns)
    return drawing


def _curve(
    axis: Axes,
    history: Sequence[Mapping[str, Any]],
    *,
    label: str,
    **look: Any,  # noqa: ANN401  # of plot
) -> None:
    axis.plot(
        [row["epoch"] for row in history],
        [row["loss"] for row in history],
        linewidth=1.2,
        markersize=4,
        markevery=max(1, len(history) // 8),
        label=label or "_",
        **look,
    )
    axis.tick_params(labelsize=7)
    axis.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    axis.yaxis.set_major_locator(MaxNLocator(4))


def _dashes(jobs: list[networks.Pretraining]) -> list[str]:
    """Return a line style for each training, the same for the same seed."""
    seeds = sorted({job.seed for job in jobs})
    return [("-", "--", ":", "-.")[seeds.index(job.seed) % 4] for job in jobs]


def _image(axis: Axes, image: NDArray[np.floating], title: str = "") -> None:
    picture(axis, np.clip(image, 0, 1).transpose(1, 2, 0), title)
