"""Times, sizes, long lists and lines of history as text for readers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

_MIB, _GIB = 2**20, 2**30  # bytes


def duration(seconds: float) -> str:
    """Write a time: 4.2 s, 42 s, 2 min 10 s, 3.1 h, 4.2 days."""
    if seconds < 9.5:
        return f"{max(seconds, 0.1):.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s" if minutes else f"{rest} s"
    hours = seconds / 3600
    return f"{hours:.1f} h" if hours < 48 else f"{hours / 24:.1f} days"


def pairs(row: Mapping[str, float]) -> str:
    """Write a line of history as a line of a log: `epoch=3 loss=0.25`."""
    return " ".join(f"{key}={value:.6g}" for key, value in row.items())


def size(count: float) -> str:
    """Write a number of bytes: 0.1 MiB, 147 MiB, 18.4 GiB; only zero bytes are 0 MiB."""
    if 0 < count < 10 * _MIB:
        return f"{max(count / _MIB, 0.1):.1f} MiB"
    return f"{count / _MIB:.0f} MiB" if count < _GIB else f"{count / _GIB:.1f} GiB"


def some(texts: Sequence[str], most: int = 10, *, between: str = ", ") -> str:
    """Join the first of many texts, and count the others: a, b, and 3 more."""
    others = [f"and {len(texts) - most} more"] if len(texts) > most else []
    return between.join([*texts[:most], *others])
