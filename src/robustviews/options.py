"""How an option of a study is declared: a dataclass field with a default and its legal range.

An option that paper and reference code may set differently is a switch; its field has their values.

Modules that hold options (methods, regimes, views, attacks, ...) import only this, so that a study
can be validated and planned without importing torch.
"""

from __future__ import annotations

import importlib
import math
import operator
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, TypeVar

_Member = TypeVar("_Member")
# Where no option states another bound: memory and time, and float32, end not far above.
_MOST_COUNT, _MOST_NUMBER = 10**9, 1e30
Values = tuple[object, ...]
ByKind = Values | Mapping[str, Values]


def option(
    default: Any,
    *,
    ge: float | None = None,
    gt: float | None = None,
    le: float | None = None,
    lt: float | None = None,
) -> Any:
    """Declare an option with a default and the range in which its numbers must lie.

    Args:
        default: value if the study omits the option; `...` makes the option required.
        ge: smallest legal value.
        gt: exclusive lower bound.
        le: largest legal value.
        lt: exclusive upper bound.

    Returns:
        A dataclass field. In sequences the range applies to each element.
    """
    bounds = {"ge": ge, "gt": gt, "le": le, "lt": lt}
    metadata = {"bounds": {name: value for name, value in bounds.items() if value is not None}}
    if default is ...:
        return field(metadata=metadata)
    return field(default=default, metadata=metadata)


def remark() -> Any:
    """Declare a text that explains options and decides no number: no spec of a job holds it."""
    return reporting("")


def reporting(default: Any) -> Any:
    """Declare an option of how results are reported: no spec or digest of a job holds it."""
    return field(default=default, metadata={"decides": False})


def deciding(options: Any) -> Iterator[str]:
    """Yield the names of the fields of a dataclass that may decide a number."""
    return (declared.name for declared in fields(options) if declared.metadata.get("decides", True))


@dataclass(frozen=True)
class Switch:
    """An option that the paper and its reference code may set differently.

    Values are a tuple, or a mapping from kinds to tuples if they depend on the method or the
    regime: `simclr`, `free`, or both, `simclr/free`. An empty tuple: the source does not decide.

    Attributes:
        name: name of the switch.
        code: values of the reference code; several if its scripts or comments disagree.
        paper: values of the paper.
        shown_as: maps a value of the option to a value of the switch; None if they are the same.
    """

    name: str
    code: ByKind = ()
    paper: ByKind = ()
    shown_as: Callable[[Any], object] | None = None

    def values(self, kinds: frozenset[str]) -> tuple[Values, Values] | None:
        """Return the values of code and paper; None if the switch decides nothing here.

        Args:
            kinds: kind of the method and of the regime.
        """
        code, paper = (_of_kinds(side, kinds) for side in (self.code, self.paper))
        if None in (code, paper) and not code and not paper:
            return None
        return code or (), paper or ()


def _of_kinds(values: ByKind, kinds: frozenset[str]) -> Values | None:
    """Return the values for some kinds; None if a mapping has no entry for them."""
    if isinstance(values, tuple):
        return values
    return next((values[key] for key in values if kinds.issuperset(key.split("/"))), None)


def switch(
    default: Any,
    *,
    code: ByKind = (),
    paper: ByKind = (),
    name: str = "",
    shown_as: Callable[[Any], object] | None = None,
    **bounds: float | None,
) -> Any:
    """Declare an option that is a switch: paper and reference code may set it differently.

    The digest of a job's code omits all arguments except `default` and `bounds`: correcting what is
    known of paper or code retrains nothing.

    Args:
        default: as in `option`.
        code: as in `Switch`, like the following arguments.
        paper: values of the paper.
        name: name of the switch; empty takes the name of the field.
        shown_as: maps a value of the option to a value of the switch.
        bounds: as in `option`.
    """
    declared = option(default, **bounds)
    metadata = {**declared.metadata, "switch": Switch(name, code, paper, shown_as)}
    return field(metadata=metadata) if default is ... else field(default=default, metadata=metadata)


def switches_of(cls: type[Any]) -> dict[str, Switch]:
    """Return the switches that a dataclass of options declares, by the name of their field."""
    declared = {one.name: one.metadata.get("switch") for one in fields(cls)}
    return {
        option_name: replace(found, name=found.name or option_name)
        for option_name, found in declared.items()
        if found is not None
    }


def check_bounds(options: Any) -> None:
    """Raise ValueError for a number outside the range that its option declares.

    Args:
        options: dataclass of options, made in Python; a study file is checked as it is read.
    """
    for declared in fields(options):
        value, bounds = getattr(options, declared.name), declared.metadata.get("bounds", {})
        for number in value if isinstance(value, tuple) else (value,):
            broken = broken_bound(number, bounds) if bounds and number is not None else ""
            if broken:
                raise ValueError(f"{declared.name}: must be {broken}, found {number:g}")


def broken_bound(value: float, bounds: Mapping[str, float]) -> str:
    """Describe the bound that a number breaks; return an empty string if it breaks none."""
    if not math.isfinite(value):
        return "a finite number"
    most = _MOST_COUNT if isinstance(value, int) else _MOST_NUMBER
    if "le" not in bounds and abs(value) > most:
        return f"at most {most:g}"
    checks = {
        "ge": (operator.ge, "at least"),
        "gt": (operator.gt, "more than"),
        "le": (operator.le, "at most"),
        "lt": (operator.lt, "less than"),
    }
    for name, bound in bounds.items():
        holds, words = checks[name]
        if not holds(value, bound):
            return f"{words} {bound:g}"
    return ""


def plan_only(member: _Member) -> _Member:
    """Mark a member of an options class that plans or describes work, but decides no number.

    The digest of a job's code omits such members: a change of wording retrains nothing.
    """
    return member


class LazyModule:
    """A module that is imported at its first use; `check` and dry runs never import torch."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, attribute: str) -> Any:
        value = getattr(importlib.import_module(self._name), attribute)
        setattr(
            self, attribute, value
        )  # the next access is a plain attribute, also for torch.compile
        return value
