"""Whether a cell may be compared with its published value: head, attack and training are alike."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import MISSING, fields
from typing import Any

from robustviews.attacks import WorstOf
from robustviews.options import switches_of
from robustviews.study import switches
from robustviews.study.plan import Cell
from robustviews.study.schema import Study
from robustviews.study.switches import Setting, either, written

# What rows state, what only plans, and a subset of images, whose variance the verdict adds.
_OF_THE_CELL = ("n", "images", "ncrop_images", "weak")


def incomparable(study: Study, cell: Cell) -> str:
    """Return why a cell cannot be compared with its published value; empty if it can.

    Head and attack must be the paper's, or the code's where the paper does not decide. A switch of
    the training must have a value of the paper or of the code. A switch that neither decides
    counts as alike. Options of head and attack that are no switches must have their defaults, which
    are those of paper and code. Options of the training that are no switches are not compared.
    """
    different = [one for one in switches.of_cell(study, cell) if not _alike(one)]
    return "; ".join([*map(_text, different), *_other_options(study, cell)])


def _other_options(study: Study, cell: Cell) -> Iterator[str]:
    """Yield the options of head and attack, other than switches, that are not the paper's."""
    parts: dict[str, Any] = {}
    if cell.attack is not None:
        parts["head"] = study.probes[cell.probe]
        if cell.eps is not None:
            parts["attack"] = study.attacks[cell.attack]
            if isinstance(parts["attack"], WorstOf):
                yield f"attack {cell.attack} is {parts['attack'].describe()}"
    for part, options in parts.items():
        declared = switches_of(type(options))
        for one in fields(options):
            value = getattr(options, one.name)
            if one.name not in (*declared, *_OF_THE_CELL) and one.default not in (MISSING, value):
                theirs = written(one.default)
                yield f"{part} option {one.name} is {written(value)} (the paper's: {theirs})"


def departures(study: Study, cell: Cell) -> list[str]:
    """Return each switch that a cell sets otherwise than paper or code, in words."""
    return [_text(setting) for setting in switches.of_cell(study, cell) if setting.differs]


def _alike(setting: Setting) -> bool:
    if setting.part != "training" and setting.paper:
        return setting.ours in setting.paper
    return setting.side != "neither"


def _text(setting: Setting) -> str:
    sources = {"paper": setting.paper, "code": setting.code}
    known = [f"{name} {either(values)}" for name, values in sources.items() if values]
    theirs = ", ".join(known) or "neither paper nor code decides"
    return f"{setting.part} switch {setting.name} is {written(setting.ours)} ({theirs})"
