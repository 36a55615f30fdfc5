"""Numbers that are not finite, which no stage may save: NaN compares like any wrong prediction."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor


class NonFiniteError(ValueError):
    """A network has diverged; the message names the job and the fix."""


def in_weights(weights: Mapping[str, Tensor]) -> str:
    """Describe the first of some weights or buffers that is not finite; empty if all are finite."""
    for name, value in weights.items():
        wrong = _wrong(value)
        if wrong:
            return f"{wrong} of {value.numel()} values of the weight `{name}` are not finite"
    return ""


def in_rows(values: Tensor, what: str) -> str:
    """Describe which rows of a tensor (B, ...) are not finite; empty if all are finite.

    Args:
        values: one row for each image.
        what: values in words, such as `logits`.
    """
    if not _wrong(values):
        return ""
    rows = (~values.isfinite()).flatten(1).any(dim=1).nonzero().flatten().tolist()
    return f"the {what} of {len(rows)} of {len(values)} images are not finite"


def _wrong(value: Tensor) -> int:
    return int(torch.isfinite(value).logical_not().sum())
