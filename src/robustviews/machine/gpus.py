"""GPUs of this machine, without torch: which there are, and one for each process."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

log = logging.getLogger(__name__)

VISIBLE = "CUDA_VISIBLE_DEVICES"
_SECONDS = 1.0  # between two looks for a free GPU


def visible() -> list[str]:
    """Return the names (UUID) of the GPUs that this process may use, as nvidia-smi lists them.

    CUDA_VISIBLE_DEVICES limits them, as it does in CUDA: numbers, or beginnings of names.
    """
    try:
        command = ["nvidia-smi", "-L"]
        listed = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    except (OSError, subprocess.SubprocessError):
        return []
    names = re.findall(r"^GPU \d+: .*\(UUID: (GPU-[^)]+)\)", listed.stdout, re.MULTILINE)
    if VISIBLE not in os.environ:
        return names
    chosen = []
    for entry in filter(None, map(str.strip, os.environ[VISIBLE].split(","))):
        if entry.startswith("MIG-"):  # a part of a GPU, whose own name CUDA takes
            chosen.append(entry)
        elif entry.isdecimal():
            chosen += names[int(entry) : int(entry) + 1]
        else:
            chosen += [name for name in names if name.startswith(entry)]
    return chosen


@contextlib.contextmanager
def taken(device: str, *, processes: int = 1) -> Iterator[bool]:
    """Lock the first free GPU of this machine during a block, as the only one that CUDA sees.

    Without that, all jobs of a machine would compute on its first GPU. A lock ends with its
    process. If all GPUs are taken, this waits; a device with a number, such as `cuda:1`, takes
    that GPU in any case.

    Args:
        device: `auto`, `cpu`, `cuda` or `cuda:1`.
        processes: number of processes that take a GPU each; none does if there are too few.

    Yields:
        Whether a GPU was taken.
    """
    names = visible() if device in ("auto", "cuda") and not _computes() else []
    if len(names) < processes or not names:
        yield False
        return
    name, lock = _first_free(names)
    before = os.environ.get(VISIBLE)
    os.environ[VISIBLE] = name
    try:
        yield True
    finally:
        lock.release()
        os.environ.pop(VISIBLE)
        if before is not None:
            os.environ[VISIBLE] = before


def _computes() -> bool:
    """Return whether this process already uses CUDA, which then reads no variable any more."""
    torch = sys.modules.get("torch")
    return torch is not None and bool(torch.cuda.is_initialized())


def _first_free(names: list[str]) -> tuple[str, FileLock]:
    """Return the first GPU that no other process has taken, and its acquired lock."""
    folder = Path(tempfile.gettempdir()) / f"robustviews-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    reported = False
    while True:
        for name in names:
            lock = FileLock(folder / f"{name}.lock")
            with contextlib.suppress(Timeout):
                lock.acquire(blocking=False)
                return name, lock
        if not reported:
            log.info("waiting for a GPU: all %d are taken; --device cuda:0 shares one", len(names))
            reported = True
        time.sleep(_SECONDS)
