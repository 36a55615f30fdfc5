"""Rows of the checks: what is stored of the answers under each attack; without torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
Flags = Mapping[str, Array]


def of_head(flags: Flags, probe: str) -> dict[str, Array]:
    """Return the flags of one head out of those of all heads of an encoder."""
    prefix = f"{probe}/"
    return {key.removeprefix(prefix): flags[key] for key in flags if key.startswith(prefix)}


def tries_of(flags: Flags) -> dict[str, list[Array]]:
    """Return what is stored of all tries of each attack: those of `name` are `name/0`, ...

    In the order of their names, which decides among equals, and which files do not keep otherwise.
    """
    tries: dict[str, list[Array]] = {}
    for name in sorted(flags):
        if name not in ("index", "labels"):
            tries.setdefault(name.partition("/")[0], []).append(flags[name])
    return tries


def counts_of(flags: Flags) -> dict[str, float]:
    """Return how many images withstand all tries of each attack.

    Args:
        flags: (n,) by name, as in `Check`; `index` and `labels` are not counted.
    """
    tries = tries_of(flags).items()
    counts = {name: int(np.all(every, axis=0).sum()) for name, every in tries}
    return {"n": len(flags["index"]), **counts}
