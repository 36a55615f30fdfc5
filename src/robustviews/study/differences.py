"""Where two specs, or other plain JSON, part."""

from __future__ import annotations

from typing import Any, Final


class _Absent:
    """What stands where there is no value; None is a value."""

    def __str__(self) -> str:
        """Return the word that people read."""
        return "nothing"

    __repr__ = __str__


ABSENT: Final = _Absent()


def differences(before: object, after: object, key: str = "") -> list[tuple[str, Any, Any]]:
    """Return where two specs, or other plain JSON, part.

    Returns:
        Dotted key, value before and value after of each leaf that differs, of a mapping its `kind`
        first; ABSENT, which reads `nothing`, stands for a value that is not there.
    """
    if not (isinstance(before, dict) and isinstance(after, dict)):
        return [] if before == after else [(key, before, after)]
    return [
        difference
        for name in sorted({*before, *after}, key=lambda name: (name != "kind", name))
        for difference in differences(
            before.get(name, ABSENT), after.get(name, ABSENT), f"{key}.{name}" if key else name
        )
    ]
