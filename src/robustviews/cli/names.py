"""Names on the command line; the error for an unknown name lists the known ones."""

from __future__ import annotations

from collections.abc import Iterable

from robustviews.study.problems import nearest


class UsageError(ValueError):
    """A name on the command line is unknown; the message lists the known ones."""


def known(name: str, names: Iterable[str], what: str) -> None:
    """Raise UsageError unless the study has a `what` of this name."""
    names = list(names)
    if name not in names:
        raise UsageError(f"the study has no {what} `{name}`; {nearest(name, names)}")
