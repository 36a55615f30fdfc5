"""Pictures of the report, each with its description for people who do not see it."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import TYPE_CHECKING

from robustviews.reporting.tables.writers import distinct
from robustviews.study import folders, plan

if TYPE_CHECKING:
    from robustviews.study.schema import Study

PNG = b"\x89PNG"


@dataclass(frozen=True)
class Picture:
    """An image of the page.

    Attributes:
        uri: the image itself, as a data URI.
        alt: description for people who do not see it.
        title: what a screen reader calls it; sighted readers see it in the picture or above.
        text: caption.
        href: file of the same drawing, relative to the report; empty if there is none.
    """

    uri: str
    alt: str
    title: str
    text: str
    href: str = ""


# Description, title, caption and file.
_SINGLE = {
    "curves": (
        "loss over epochs, one panel per method and one line per run, from their training.jsonl",
        "Training loss of every run",
        "Training loss of every run. One panel per method, because losses of different methods are "
        "not comparable.",
    ),
    "gaps": (
        "advantage of each row in what it retains under attack, one line of dots per table",
        "Advantages",
        "What each row retains under attack, less what the row of the comparison retains.",
    ),
    "examples": (
        "images, their views, the views after an attack, and the perturbation amplified on grey",
        "Views that an encoder sees",
        "An image, its views, the views after an attack, and the perturbation, amplified.",
        "examples/views.png",
    ),
}
_CLASSIFIED = (
    "Two test images for each row of the main table (first seed): clean, adversarial, and the "
    "perturbation times 10 on grey. Above each image: the predicted class and its probability; "
    "a cross marks a wrong prediction."
)
_DENSE = (
    "Two test images for each row of the task's first table (first seed): the image with its "
    "labels, the network's answer, the attacked image, and the answer about it. Boxes have a score "
    "of .3 or more."
)


def of_figure(study: Study, name: str, data: bytes) -> Picture:
    """Return a figure of the study."""
    figure = study.figures[name]
    rows = ", ".join(row.label or plan.label(study, row.run) for row in figure.rows.values())
    alt = f"{figure.kind} of {', '.join(figure.columns)} for {rows}; the numbers are in frame.csv"
    text = " ".join(
        filter(None, (figure.source and f"Corresponds to {figure.source}.", figure.note))
    )
    return Picture(_uri(data), alt, figure.title, text, f"figures/{name}.svg")


def single(kind: str, data: bytes) -> Picture:
    """Return a picture of which a report has one: `curves`, `gaps` or `examples`."""
    return Picture(_uri(data), *_SINGLE[kind])


def adversarial(study: Study, task: str, data: bytes) -> Picture:
    """Return the adversarial images of a task."""
    rows = ", ".join(distinct(plan.examples(study)[task]))
    dense = task != "classification"
    what = "answers about them" if dense else "perturbations"
    return Picture(
        _uri(data),
        f"clean test images, adversarial images and {what}, one line per network: {rows}",
        f"Adversarial images of {task}" if dense else "Adversarial images",
        _DENSE if dense else _CLASSIFIED,
        f"{folders.pictures(task)}.svg",
    )


def _uri(data: bytes) -> str:
    kind = "png" if data.startswith(PNG) else "svg+xml"
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
