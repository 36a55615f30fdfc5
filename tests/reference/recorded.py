"""The recorded numbers of the published code, and the tolerance of comparisons with them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

VECTORS = Path(__file__).parent / "vectors"
LOSS_TOLERANCE = 1e-11  # losses and LARS, relative to the largest entry
TRAIN_TOLERANCE = 1e-9  # training steps; vectors/README.md suggests 1e-8
CLEARLY_DIFFERENT = 1e-6  # vectors/README.md: wrong variants differ by far more than this

Arrays = dict[str, NDArray[Any]]


def load(name: str) -> Arrays:
    """Return all arrays of `vectors/<name>.npz`."""
    with np.load(VECTORS / f"{name}.npz", allow_pickle=False) as file:
        return {key: file[key] for key in file.files}


def minibatches(recorded: Arrays) -> torch.Tensor:
    """Return the minibatches of a training file: (3, V, B, 3, 8, 8)."""
    x = recorded["x"] if "x" in recorded else np.stack([recorded["x1"], recorded["x2"]], axis=1)
    return torch.tensor(x)


def outcome(recorded: Arrays) -> Arrays:
    """Return the results in a training file: all but start, images and settings."""
    start = ("init_", "x1", "x2")
    return {k: v for k, v in recorded.items() if v.ndim and k != "x" and not k.startswith(start)}


def difference(actual: Any, expected: Any, *, floor: float = 1.0) -> float:
    """Return the worst difference over the largest expected entry, or over `floor` if larger."""
    actual, expected = np.asarray(actual, np.float64), np.asarray(expected, np.float64)
    assert actual.shape == expected.shape, f"expected shape {expected.shape}, found {actual.shape}"
    worst = np.abs(actual - expected).max(initial=0.0)
    return float(worst / max(floor, np.abs(expected).max(initial=0.0)))


def assert_near(actual: Any, expected: Any, tolerance: float, *, floor: float = 1.0) -> None:
    """Fail unless both have one shape and a `difference` of at most `tolerance`."""
    result = difference(actual, expected, floor=floor)
    assert result <= tolerance, f"worst difference {result:.2e}, expected at most {tolerance:.0e}"


def differences(actual: Mapping[str, Any], expected: Mapping[str, Any]) -> dict[str, float]:
    """Return the difference of each array in `expected`; one that `actual` lacks is a KeyError."""
    return {name: difference(actual[name], array) for name, array in expected.items()}


def assert_all_near(
    actual: Mapping[str, Any], expected: Mapping[str, Any], tolerance: float
) -> None:
    """Fail with the names of all arrays in which `actual` is too far from `expected`."""
    far = {k: f"{d:.2e}" for k, d in differences(actual, expected).items() if not d <= tolerance}
    assert not far, f"expected differences of at most {tolerance:.0e}, found {far}"
