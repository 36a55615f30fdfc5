"""Memory: how much a device has left, and what to change if it runs out."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import torch

SMALLER_BATCH = (
    "lower runtime.evaluation_batch, the number of views attacked or encoded at a time; each image "
    "is attacked on its own, so that only random draws may change"
)
# Messages of the CPU's allocator, CUDA and its libraries when torch has no error of its own.
_OUT_OF_MEMORY = ("can't allocate memory", "CUDA error: out of memory", "STATUS_ALLOC_FAILED")


class ShortageError(ValueError):
    """A device has too little memory; the message names the available memory and the fix."""


@contextlib.contextmanager
def explained(title: str, fix: str) -> Iterator[None]:
    """Add a fix to the error if a device runs out of memory inside a block.

    Args:
        title: title of the job.
        fix: what to change, such as SMALLER_STEP.

    Raises:
        ShortageError: the device ran out of memory; replaces torch's own error.
    """
    try:
        yield
    except RuntimeError as error:
        # On a CPU torch raises a plain RuntimeError, if the system has not ended the process.
        known = isinstance(error, torch.OutOfMemoryError)
        if not known and not any(sign in str(error) for sign in _OUT_OF_MEMORY):
            raise
        reason = str(error).strip().partition("\n")[0]
        raise ShortageError(f"{title}: out of memory ({reason}); {fix}") from error


def available(device: torch.device, *, system: Path = Path("/")) -> int:
    """Return how much memory a device has left for this process, in bytes.

    Args:
        device: a GPU; or the CPU, whose memory is limited by the control groups of the process.
        system: root of the file system.
    """
    if device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + unused
    return max(0, min([_machine_available(system), *_group_available(system)]))


def _machine_available(system: Path) -> int:
    """Return the free memory of the machine, or all its memory if it reports no free memory."""
    with contextlib.suppress(OSError, StopIteration):
        lines = (system / "proc/meminfo").read_text(encoding="utf-8").splitlines()
        line = next(line for line in lines if line.startswith("MemAvailable:"))
        return int(line.split()[1]) * 1024
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _group_available(system: Path) -> Iterator[int]:
    """Yield the memory left below the limit of each control group of this process."""
    with contextlib.suppress(OSError):
        for line in (system / "proc/self/cgroup").read_text(encoding="utf-8").splitlines():
            _, kinds, path = line.split(":", 2)
            if kinds and "memory" not in kinds.split(","):
                continue
            root = system / ("sys/fs/cgroup/memory" if kinds else "sys/fs/cgroup")
            inner = root / path.strip("/")
            for folder in (inner, *inner.parents):
                yield from _left_in_group(folder, first=bool(kinds))
                if folder == root:
                    break


def _left_in_group(folder: Path, *, first: bool) -> Iterator[int]:
    """Yield the memory left in a control group, version 1 (`first`) or 2; none if no limit."""
    limit, usage, prefix = (
        ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_")
        if first
        else ("memory.max", "memory.current", "")
    )
    caches = (f"{prefix}inactive_file", f"{prefix}active_file")  # reclaimed on demand
    with contextlib.suppress(OSError, ValueError):  # no such group here, or its limit is `max`
        most, used = (int((folder / name).read_text()) for name in (limit, usage))
        rows = [line.split() for line in (folder / "memory.stat").read_text().splitlines()]
        yield most - used + sum(int(value) for name, value in rows if name in caches)
