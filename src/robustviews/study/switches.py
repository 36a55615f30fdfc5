"""Switches: options that the paper and its reference code set differently, as one study sets them.

An option declares in its field what paper and code do (`robustviews.options.switch`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from robustviews.methods import METHODS
from robustviews.options import Switch, Values, switches_of
from robustviews.regimes import REGIMES
from robustviews.study.plan import Cell
from robustviews.study.schema import Run, Study

Part = Literal["training", "head", "attack"]
Side = Literal["paper and code", "paper", "code", "neither", "guess"]

_KINDS = {cls: kind for table in (METHODS, REGIMES) for kind, cls in table.items()}


@dataclass(frozen=True)
class Setting:
    """One switch as one cell sets it.

    Attributes:
        name: name of the switch.
        part: what the switch decides.
        code: values of the reference code; empty if it does not decide.
        paper: values of the paper; empty if it does not decide.
        ours: value of the study.
    """

    name: str
    part: Part
    code: Values
    paper: Values
    ours: object

    @property
    def side(self) -> Side:
        """Which source has the value of the study; `guess`: neither source decides."""
        if not self.code and not self.paper:
            return "guess"
        in_code, in_paper = self.ours in self.code, self.ours in self.paper
        if in_code and in_paper:
            return "paper and code"
        return "code" if in_code else "paper" if in_paper else "neither"


def of_cell(study: Study, cell: Cell) -> list[Setting]:
    """Return all switches that decide a cell: of the run, of its head, and of the attack.

    Args:
        study: study of the cell.
        cell: cell of a table or figure; the attack decides only accuracies under attack, and the
            head decides no training time.
    """
    run = study.runs[cell.entry]
    settings = list(_of_run(run))
    if cell.attack is None:
        return settings
    settings += _of_options("head", study.probes[cell.probe], run)
    if cell.eps is not None:
        settings += _of_options("attack", study.attacks[cell.attack], run)
    return settings


def _of_run(run: Run) -> Iterator[Setting]:
    """Yield the switches of a training; neither paper nor code describes a supervised one."""
    for options in (run, run.method, run.regime, run.views, run.optimizer):
        for setting in _of_options("training", options, run):
            if run.method.supervised:
                yield Setting(setting.name, setting.part, (), (), setting.ours)
            else:
                yield setting


def _of_options(part: Part, options: Any, run: Run) -> Iterator[Setting]:
    """Yield the switches of one dataclass of options, with the values for the run's method."""
    kinds = frozenset({_KINDS[type(run.method)], _KINDS[type(run.regime)]})
    for option, switch in switches_of(type(options)).items():
        values = switch.values(kinds)
        if values is not None:
            code, paper = values
            yield Setting(switch.name, part, code, paper, _shown(switch, getattr(options, option)))


def _shown(switch: Switch, value: object) -> object:
    return switch.shown_as(value) if switch.shown_as else value
