"""State from which an interrupted job resumes: a training, the fit of a head, an attack."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from robustviews import artifacts

if TYPE_CHECKING:
    from torch import Tensor


class Resume:
    """The saved state from which a job resumes after an interruption.

    The folder's name holds a hash of the spec and of the inputs, so that no other job resumes from
    this state.

    Attributes:
        folder: holds the state.
        resumed: how often the job was resumed, in this process and in those before it.
    """

    def __init__(
        self,
        folder: Path,
        spec: dict[str, Any],
        inputs: list[Path],
        minutes: float,
        *,
        started: float | None = None,
    ) -> None:
        """Choose the folder.

        Args:
            folder: path to which the hash is appended.
            spec: of the job.
            inputs: files that the job reads, in any order.
            minutes: from one saved state to the next.
            started: time.time() when the job began; now when None.
        """
        hashes = [artifacts.sha256(path) for path in sorted(inputs)]
        text = json.dumps([spec, hashes], sort_keys=True)
        key = hashlib.sha256(text.encode()).hexdigest()[:16]
        self.folder = folder.with_name(f"{folder.name}-{key}")
        self.resumed = 0
        self._minutes, self._last = minutes, time.monotonic()
        self._started = time.time() if started is None else started
        self._before = 0.0  # seconds of earlier processes up to the loaded state

    def seconds(self) -> float:
        """Return the work time of this process plus that of earlier ones up to their last save."""
        return self._before + time.time() - self._started

    def load(self) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """Return tensors and position of the last saved state; None at the first start."""
        path = self.folder / "state.safetensors"
        if not path.exists():
            return None
        from safetensors import safe_open

        with artifacts.reading(path):
            with safe_open(path, framework="pt") as file:
                metadata = file.metadata() or {}
            position, work = (json.loads(metadata.get(key, "")) for key in ("position", "work"))
            tensors = artifacts.read_tensors(path)
        self.resumed, self._before = work["resumed"] + 1, work["seconds"]
        return tensors, position

    def due(self) -> bool:
        """Return whether the next save is due."""
        return time.monotonic() - self._last >= self._minutes * 60

    def save(self, tensors: Mapping[str, Tensor], position: dict[str, Any]) -> None:
        """Replace the saved state atomically in one file, so that tensors and position agree."""
        work = {"resumed": self.resumed, "seconds": self.seconds()}
        metadata = {"position": json.dumps(position), "work": json.dumps(work)}
        artifacts.write_tensors(self.folder / "state.safetensors", tensors, metadata)
        self._last = time.monotonic()

    def discard(self) -> None:
        """Remove the state of a finished job."""
        shutil.rmtree(self.folder, ignore_errors=True)
