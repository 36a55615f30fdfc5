"""Memory: what a device has left, and what a training step needs, before it is needed."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import torch

SMALLER_BATCH = (
    "lower runtime.evaluation_batch, the views that are attacked or encoded at a time; each image "
    "is attacked for itself, so that only random draws may change"
)
# What the CPU's allocator, CUDA and its libraries say where torch has no error of its own.
_OUT_OF_MEMORY = ("can't allocate memory", "CUDA error: out of memory", "STATUS_ALLOC_FAILED")


class ShortageError(ValueError):
    """A device has too little memory; the message says how much is there and what may help."""


@contextlib.contextmanager
def explained(title: str, way_out: str) -> Iterator[None]:
    """Say what to type when a device runs out of memory inside a block.

    Args:
        title: of the work.
        way_out: such as SMALLER_STEP.

    Raises:
        ShortageError: in place of torch's own error.
    """
    try:
        yield
    except RuntimeError as error:
        # On a CPU torch raises a plain RuntimeError, if the system has not ended the process.
        out = isinstance(error, torch.OutOfMemoryError)
        if not out and not any(sign in str(error) for sign in _OUT_OF_MEMORY):
            raise
        reason = str(error).strip().partition("\n")[0]
        raise ShortageError(f"{title}: out of memory ({reason}); {way_out}") from error


def available(device: torch.device, *, system: Path = Path("/")) -> int:
    """Return how much memory a device has left for this process, in bytes.

    Args:
        device: a GPU, or the CPU: what the machine has, within the limits of its control groups.
        system: root of the file system.
    """
    if device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + unused
    return max(0, min([_machine_available(system), *_group_available(system)]))


def _machine_available(system: Path) -> int:
    """Return what the machine has left; all that it has where it does not tell."""
    with contextlib.suppress(OSError, StopIteration):
        lines = (system / "proc/meminfo").read_text(encoding="utf-8").splitlines()
        line = next(line for line in lines if line.startswith("MemAvailable:"))
        return int(line.split()[1]) * 1024
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _group_available(system: Path) -> Iterator[int]:
    """Yield what each control group around this process has left of its limit, if it has one."""
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
    """Yield what a control group, of the first or second version, has left; nothing if no limit."""
    limit, usage, prefix = (
        ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_")
        if first
        else ("memory.max", "memory.current", "")
    )
    caches = (f"{prefix}inactive_file", f"{prefix}active_file")  # given back when asked for
    with contextlib.suppress(OSError, ValueError):  # no such group here, or its limit is `max`
        most, used = (int((folder / name).read_text()) for name in (limit, usage))
        rows = [line.split() for line in (folder / "memory.stat").read_text().splitlines()]
        yield most - used + sum(int(value) for name, value in rows if name in caches)
