"""How an option of a study is declared: a dataclass field with a default and its legal range.

Modules that hold options (methods, regimes, views, attacks, ...) import only this, so that a study
can be validated and planned without importing torch.
"""

from __future__ import annotations

import importlib
from dataclasses import field
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
        default: value when the study says nothing; `...` makes the option required.
        ge: smallest legal value; `gt` excludes it.
        gt: exclusive lower bound.
        le: largest legal value; `lt` excludes it.
        lt: exclusive upper bound.

    Returns:
        A dataclass field. For sequences the range holds for each element.
    """
    bounds = {"ge": ge, "gt": gt, "le": le, "lt": lt}
    metadata = {"bounds": {name: value for name, value in bounds.items() if value is not None}}
    if default is ...:
        return field(metadata=metadata)
    return field(default=default, metadata=metadata)


def plan_only(member: _Member) -> _Member:
    """Mark a member of an options class that plans or describes work, and decides no number.

    The digest of a job's code leaves such members out: another sentence retrains nothing.
    """
    return member


class LazyModule:
    """A module that is imported at its first use; `check` and dry runs never pay for torch."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, attribute: str) -> Any:
        value = getattr(importlib.import_module(self._name), attribute)
        setattr(self, attribute, value)  # the next look-up is a plain one, also for torch.compile
        return value
