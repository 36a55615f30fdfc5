"""How two specs, or other plain JSON values, differ."""

from __future__ import annotations

from typing import Any, Final


class _Absent:
    """Marks a missing value; None is a value."""

    def __str__(self) -> str:
        """Return the word for messages."""
        return "nothing"

    __repr__ = __str__


ABSENT: Final = _Absent()


def differences(before: object, after: object, key: str = "") -> list[tuple[str, Any, Any]]:
    """Return how two specs, or other plain JSON values, differ.

    Returns:
        Dotted key, value before and value after of each leaf that differs. In a mapping `kind`
        comes first. ABSENT, printed as `nothing`, marks a missing value.
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
