"""State that an interrupted job goes on from: a training, a fit of a head, an attack."""

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
    """Where a job keeps what it needs to go on after an interruption.

    The folder's name holds a hash of the spec and of the inputs, so that state is never taken up by
    another job.

    Attributes:
        folder: holds the state.
        resumed: how often state was taken up, by this process and by those that saved it.
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
        """Name the folder.

        Args:
            folder: what the name begins with.
            spec: of the job.
            inputs: files that it reads, in any order.
            minutes: from one saved state to the next.
            started: time.time() when the job began; now when None.
        """
        read = [artifacts.sha256(path) for path in sorted(inputs)]
        text = json.dumps([spec, read], sort_keys=True)
        key = hashlib.sha256(text.encode()).hexdigest()[:16]
        self.folder = folder.with_name(f"{folder.name}-{key}")
        self.resumed = 0
        self._minutes, self._last = minutes, time.monotonic()
        self._started = time.time() if started is None else started
        self._before = 0.0  # seconds of the processes that saved what was taken up

    def seconds(self) -> float:
        """Return how long this process has worked, and those before it until they last saved."""
        return self._before + time.time() - self._started

    def load(self) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """Return tensors and position of the last saved state, or None at a first start."""
        path = self.folder / "state.safetensors"
        if not path.exists():
            return None
        from safetensors import safe_open

        with artifacts.reading(path):
            with safe_open(path, framework="pt") as file:
                said = file.metadata() or {}
            position, work = (json.loads(said.get(key, "")) for key in ("position", "work"))
            tensors = artifacts.read_tensors(path)
        self.resumed, self._before = work["resumed"] + 1, work["seconds"]
        return tensors, position

    def due(self) -> bool:
        """Return whether it is time to save again."""
        return time.monotonic() - self._last >= self._minutes * 60

    def save(self, tensors: Mapping[str, Tensor], position: dict[str, Any]) -> None:
        """Replace the saved state in one file, at once, so that tensors and position always fit."""
        work = {"resumed": self.resumed, "seconds": self.seconds()}
        said = {"position": json.dumps(position), "work": json.dumps(work)}
        artifacts.write_tensors(self.folder / "state.safetensors", tensors, said)
        self._last = time.monotonic()

    def discard(self) -> None:
        """Remove the state of a finished job."""
        shutil.rmtree(self.folder, ignore_errors=True)
