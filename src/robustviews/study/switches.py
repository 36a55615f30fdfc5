"""Switches: options that the paper and its reference code set differently, as one study sets them.

An option declares in its field what paper and code do (`robustviews.options.switch`).
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

from robustviews.methods import METHODS
from robustviews.options import Switch, Values, switches_of
from robustviews.probe import RobustLinearProbe
from robustviews.regimes import REGIMES
from robustviews.study import plan
from robustviews.study.plan import Cell
from robustviews.study.schema import Run, Study

Part = Literal["training", "head", "attack"]
Side = Literal["paper and code", "paper", "code", "neither", "guess"]

_DESCRIBED = ("emp_ssl", "simclr")  # methods whose training paper and code describe
_KINDS = {cls: kind for table in (METHODS, REGIMES) for kind, cls in table.items()}


@dataclass(frozen=True)
class Setting:
    """One switch as one cell sets it."""

    name: str  # name of the switch
    part: Part  # what the switch decides
    code: Values  # values of the reference code; empty if it does not decide
    paper: Values  # values of the paper; empty if it does not decide
    ours: object  # value of the study

    @property
    def side(self) -> Side:
        """Which source has the value of the study; `guess`: neither source decides."""
        if not self.code and not self.paper:
            return "guess"
        in_code, in_paper = self.ours in self.code, self.ours in self.paper
        if in_code and in_paper:
            return "paper and code"
        return "code" if in_code else "paper" if in_paper else "neither"

    @property
    def differs(self) -> bool:
        """Whether the study differs from a source that decides, or neither source decides."""
        decided = [values for values in (self.code, self.paper) if values]
        return not decided or any(self.ours not in values for values in decided)


def of_cell(study: Study, cell: Cell) -> list[Setting]:
    """Return all switches that decide a cell: of the run, of its head, and of the attack.

    The attack decides only accuracies under attack, and the head decides no training time.
    """
    run = study.runs.get(cell.entry)
    if run is None:  # nothing is published of imported encoders
        return []
    settings = list(_of_run(run))
    if cell.attack is None:
        return settings
    probe = study.probes[cell.probe]
    settings += _of_options("head", probe, run)
    if cell.eps is not None:
        if isinstance(probe, RobustLinearProbe) or cell.options.head_for_attack == "standard":
            settings += _of_options("head", cell.options, run)
        settings += _of_options("attack", study.attacks[cell.attack], run)
    return settings


def text(study: Study) -> str:
    """Return each switch of a study with the values of paper, code and study, as aligned text.

    A value that differs from the paper's or the code's, or that neither decides, is followed by the
    runs, probes or attacks that have it.
    """
    groups = _groups(study)
    lines: list[tuple[str, ...]] = [("switch", "paper", "code", "ours", "side", "where")]
    for part in ("training", "head", "attack"):
        lines.append((part, "", "", "", "", ""))
        names = dict.fromkeys(setting.name for setting in groups if setting.part == part)
        for name in names:
            owners = {one: of for one, of in groups.items() if (one.part, one.name) == (part, name)}
            lines += _lines(name, owners)
    return _aligned(lines)


Groups = dict[Setting, dict[tuple[str, str], None]]  # owners: entry of the study, method


def _groups(study: Study) -> Groups:
    """Return all settings of a study with their owners."""
    groups: Groups = {}
    for cell in plan.cells_of(study):
        if cell.entry in study.encoders:
            continue
        method = _KINDS[type(study.runs[cell.entry].method)]
        for setting in of_cell(study, cell):
            entry = {"training": cell.entry, "head": cell.probe}.get(setting.part, cell.attack)
            groups.setdefault(setting, {})[str(entry), method] = None
    return groups


def _lines(name: str, groups: Groups) -> Iterator[tuple[str, ...]]:
    """Yield the lines of one switch: one per combination of values."""
    everyone = list(dict.fromkeys(entry for owners in groups.values() for entry, _ in owners))
    for number, (setting, owners) in enumerate(groups.items()):
        elsewhere = {e for other, of in groups.items() if other != setting for e, _ in of}
        entries = dict.fromkeys(f"{e} ({m})" if e in elsewhere else e for e, m in owners)
        missing = [entry for entry in everyone if entry not in {e for e, _ in owners}]
        where = ", ".join(entries)
        if len(entries) > 2 * len(missing) + 2:
            where = f"all {len(everyone)}" + (f" but {', '.join(missing)}" if missing else "")
        values = (either(setting.paper), either(setting.code), written(setting.ours))
        line = ("" if number else f"  {name}", *values, setting.side)
        yield (*line, where if setting.differs else "")


def either(values: Values) -> str:
    """Return the values of a source for readers; `-` if it does not decide."""
    return " or ".join(map(written, values)) or "-"


def written(value: object) -> str:
    """Return a value of an option for readers, much as a study file writes it."""
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)


def _aligned(lines: list[tuple[str, ...]]) -> str:
    """Align all columns, and wrap the last one."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)][:-1]
    indent = sum(widths) + 2 * len(widths)
    result = []
    for *cells, last in lines:
        start = "".join(f"{cell:<{width + 2}}" for cell, width in zip(cells, widths, strict=True))
        parts = textwrap.wrap(last, 60, break_on_hyphens=False) or [""]
        result.append(f"{start}{parts[0]}".rstrip())
        result += [" " * indent + part for part in parts[1:]]
    return "\n".join(result) + "\n"


def _of_run(run: Run) -> Iterator[Setting]:
    """Yield the switches of a training; neither paper nor code describes those of other methods."""
    described = _KINDS[type(run.method)] in _DESCRIBED
    for options in (run, run.method, run.regime, run.views, run.optimizer):
        for setting in _of_options("training", options, run):
            yield setting if described else replace(setting, code=(), paper=())


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
