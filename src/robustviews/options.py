"""How an option of a study is declared: a dataclass field with a default and its legal range.

Modules that hold options (methods, regimes, views, attacks, ...) import only this, so that a study
can be validated and planned without importing torch.
"""

from __future__ import annotations

import importlib
import math
import operator
from collections.abc import Iterator, Mapping
from dataclasses import field, fields
from typing import Any, TypeVar

_Member = TypeVar("_Member")


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
    return field(default="", metadata={"decides": False})


def deciding(options: Any) -> Iterator[str]:
    """Yield the names of the fields of a dataclass that may decide a number."""
    return (declared.name for declared in fields(options) if declared.metadata.get("decides", True))


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
