"""Names on the command line: they exist, or the error says which do."""

from __future__ import annotations

from collections.abc import Iterable

from robustviews.study.problems import nearest


class UsageError(ValueError):
    """A name on the command line does not exist; the message lists what does."""


def known(name: str, names: Iterable[str], what: str) -> None:
    """Raise UsageError unless the study has a `what` of this name."""
    names = list(names)
    if name not in names:
        raise UsageError(f"the study has no {what} `{name}`; {nearest(name, names)}")
