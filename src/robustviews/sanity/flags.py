"""Flags of the checks: which attacked images withstood which attack; without torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

Flags = Mapping[str, "np.ndarray[Any, Any]"]


def of_head(flags: Flags, probe: str) -> dict[str, np.ndarray[Any, Any]]:
    """Return the flags of one head out of those of all heads of an encoder."""
    prefix = f"{probe}/"
    return {key.removeprefix(prefix): flags[key] for key in flags if key.startswith(prefix)}


def measures_of(flags: Flags) -> dict[str, float]:
    """Return how many images withstand all tries of each attack.

    Args:
        flags: (n,) by name, as in `Check`; `index` and `labels` are not counted.
    """
    tries: dict[str, list[np.ndarray[Any, Any]]] = {}
    for name, flag in flags.items():
        if name not in ("index", "labels"):
            tries.setdefault(name.partition("/")[0], []).append(flag)
    counts = {name: int(np.all(every, axis=0).sum()) for name, every in tries.items()}
    return {"n": len(flags["index"]), **counts}
