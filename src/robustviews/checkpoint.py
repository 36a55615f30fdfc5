"""How an interrupted job saves its state and resumes: only the protocol, without files."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from torch import Tensor


class Checkpoint(Protocol):
    """Keeps the state of a job; `robustviews.artifacts.resume.Resume` keeps it in a file."""

    def load(self) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """Return the saved tensors and position, or None."""

    def due(self) -> bool:
        """Return whether to save now."""

    def save(self, tensors: dict[str, Tensor], position: dict[str, Any]) -> None:
        """Replace the saved state."""
