"""State from which an interrupted job resumes: a training, the fit of a head, an attack.

A job resumes only where the state was computed in the same environment. Elsewhere it starts from
its beginning: a record states one environment, and nobody could repeat a mixture of two. It does
not refuse to run, since a cluster that requeues a job chooses the machine, and would repeat the
refusal for ever. No state is lost: each environment has its own, until the job finishes.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from robustviews import artifacts
from robustviews.artifacts.start import Start

if TYPE_CHECKING:
    from torch import Tensor

log = logging.getLogger(__name__)


class Resume:
    """The saved state from which a job resumes after an interruption.

    The folder's name holds a hash of the spec and of the inputs, and the file's name a hash of the
    environment, so that neither another job nor another environment resumes from this state.

    Attributes:
        folder: holds the states of this job, one file per environment.
        path: file of the state of this environment.
        resumed: how often the job was resumed, in this process and in those before it.
    """

    def __init__(
        self,
        folder: Path,
        spec: dict[str, Any],
        inputs: list[Path],
        minutes: float,
        *,
        environment: Mapping[str, Any],
        started: Start,
    ) -> None:
        """Choose the folder and the file.

        Args:
            folder: path to which the hash is appended.
            spec: of the job.
            inputs: files that the job reads, in any order.
            minutes: from one saved state to the next.
            environment: what decides the bytes of a result beside spec and inputs.
            started: when the job began.
        """
        hashes = [artifacts.sha256(path) for path in sorted(inputs)]
        self.folder = folder.with_name(f"{folder.name}-{_key([spec, hashes])}")
        self._environment = dict(environment)
        self.path = self.folder / f"state-{_key(self._environment)}.safetensors"
        self.resumed = 0
        self._minutes, self._last = minutes, time.monotonic()
        self._started = started
        self._before = 0.0  # seconds of earlier processes up to the loaded state

    def seconds(self) -> float:
        """Return the work time of this process plus that of earlier ones up to their last save."""
        return self._before + self._started.elapsed()

    def load(self) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """Return tensors and position of the last saved state of this environment.

        Returns:
            None at the first start, and if the state is damaged; a warning reports a damaged state,
            and a state of another environment.
        """
        if not self.path.exists():
            self._report_others()
            return None
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(self.path, framework="pt") as file:
                metadata = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            position, work = (json.loads(metadata[key]) for key in ("position", "work"))
            if metadata["checksum"] != _checksum(tensors):
                raise ValueError("its tensors are not those that were saved")
            self.resumed, self._before = work["resumed"] + 1, work["seconds"]
        except (LookupError, TypeError, ValueError, SafetensorError) as error:
            log.warning("%s: damaged (%s), so the job starts from its beginning", self.path, error)
            return None
        return tensors, position

    def due(self) -> bool:
        """Return whether the next save is due."""
        return time.monotonic() - self._last >= self._minutes * 60

    def save(self, tensors: Mapping[str, Tensor], position: dict[str, Any]) -> None:
        """Replace the saved state atomically in one file, so that tensors and position agree."""
        work = {"resumed": self.resumed, "seconds": self.seconds()}
        parts = {"position": position, "work": work, "environment": self._environment}
        metadata = {name: json.dumps(part) for name, part in parts.items()}
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        metadata["checksum"] = _checksum(tensors)
        artifacts.write_tensors(self.path, tensors, metadata)
        self._last = time.monotonic()

    def discard(self) -> None:
        """Remove the states of a finished job, also those of other environments."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _report_others(self) -> None:
        """Log how the environment of each state that this process does not use differs."""
        for path in sorted(self.folder.glob("state*.safetensors")):
            was = _environment_of(path)
            names = sorted(set(was) | set(self._environment))
            differing = [name for name in names if was.get(name) != self._environment.get(name)]
            theirs = _listed(was, differing)
            log.warning(
                "%s: not resumed, because it was computed with %s, and here is %s. The job starts "
                "from its beginning; the state is kept until the job finishes. To resume it "
                "instead, stop this job and run it again with %s.",
                path,
                theirs,
                _listed(self._environment, differing),
                theirs,
            )


def _checksum(tensors: Mapping[str, Tensor]) -> str:
    """Hash tensors on the CPU: a power cut or a bad disk may change what no header shows."""
    import torch

    hasher = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name]
        hasher.update(f"{name} {tensor.dtype} {tuple(tensor.shape)} ".encode())
        hasher.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return hasher.hexdigest()


def _key(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def _environment_of(path: Path) -> dict[str, Any]:
    """Return the environment that a state was computed in; empty if the file does not say."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            environment = json.loads((file.metadata() or {})["environment"])
    except (LookupError, OSError, ValueError, SafetensorError):
        return {}
    return environment if isinstance(environment, dict) else {}


def _listed(environment: Mapping[str, Any], names: list[str]) -> str:
    return ", ".join(f"{name} {environment.get(name, 'unknown')}" for name in names)
