"""The error of everything that reads foreign checkpoints."""

from __future__ import annotations


class CheckpointError(ValueError):
    """A checkpoint cannot be imported; the message says why, and what to do."""
