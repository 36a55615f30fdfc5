"""Numbers that are not finite, which no stage may save: NaN compares like any wrong prediction."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor


class NonFiniteError(ValueError):
    """A network has diverged; the message names the job and the fix."""


def first_nonfinite(tensors: Mapping[str, Tensor]) -> str:
    """Return the name of the first tensor with a NaN or infinite value; empty if there is none."""
    return next((name for name, value in tensors.items() if not value.isfinite().all()), "")
