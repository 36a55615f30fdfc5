"""Memory: what a device has left, and what a training step needs, before it is needed."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import torch
from torch import Tensor

from robustviews import units
from robustviews.augment import Views
from robustviews.encoder import Encoder
from robustviews.methods import Batch, Method, blank_batch
from robustviews.regimes import Regime, Standard, attack_mode

SMALLER_STEP = (
    "lower batch_size or views.count, or use precision: bf16; a micro-batch is no way out: batch "
    "norm and the losses see the whole minibatch, so that in pieces it would be another method"
)
SMALLER_BATCH = (
    "lower runtime.evaluation_batch, the views that are attacked or encoded at a time; each image "
    "is attacked for itself, so that only random draws may change"
)
# What the CPU's allocator, CUDA and its libraries say where torch has no error of its own.
_OUT_OF_MEMORY = ("can't allocate memory", "CUDA error: out of memory", "STATUS_ALLOC_FAILED")
_WEIGHT_COPIES = 4  # weights, gradients, and two of the optimizer: Adam's slots, or LARS's and work
_ADVERSARY_COPIES = 3  # of the target: perturbation, its gradient, their sum with the images


class ShortageError(ValueError):
    """A device has too little memory; the message says how much is there and what may help."""


def step_bytes(
    encoder: Encoder,
    method: Method,
    regime: Regime,
    views: Views,
    *,
    size: int,
    batch_size: int,
    precision: str,
) -> int:
    """Return the memory that a training step takes at its peak, in bytes.

    Activations are measured, not modelled: the loss of two and of four images is computed, and what
    it keeps for the backward pass is scaled to the minibatch. Neither the network nor any random
    state is changed by it. What convolutions need as workspace is left out.

    Args:
        encoder: on its device.
        method: views and loss.
        regime: how a minibatch becomes updates.
        views: how many of each image.
        size: side of the views in pixels.
        batch_size: images in a minibatch.
        precision: of the encoder's arithmetic in training.
    """
    device = next(encoder.parameters()).device
    kept = {}
    for count in (2, 4):
        batch = blank_batch(count, views=views.count, size=size, device=device)
        kept[count] = _loss_bytes(encoder, method, batch, precision=precision)
    activations = kept[2] + (kept[4] - kept[2]) / 2 * (batch_size - 2)
    pixels = _bytes_of(batch.images, batch.views)
    if not isinstance(regime, Standard):
        pixels += _ADVERSARY_COPIES * _bytes_of(method.target(batch))
    weights = _WEIGHT_COPIES * _bytes_of(*encoder.parameters())
    return round(weights + activations + pixels / len(batch.images) * batch_size)


def kept_bytes(work: Callable[[], object], *, beside: Iterable[Tensor] = ()) -> int:
    """Return the bytes that the backward pass of some work would need.

    Args:
        work: returns what the backward pass would begin with.
        beside: tensors that do not count.
    """
    ours = {_address(value) for value in beside}
    kept: dict[int, int] = {}

    def keep(value: Tensor) -> Tensor:
        if _address(value) not in ours:
            kept[_address(value)] = value.untyped_storage().nbytes()
        return value.detach()  # without the graph, which would hold itself

    with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(keep, lambda value: value):
        done = work()
        del done  # only now: what it keeps is told apart by its address
    return sum(kept.values())


def check_step(needed: int, encoder: Encoder, *, title: str) -> None:
    """Refuse a training whose steps need more memory than there is.

    Args:
        needed: bytes, from `step_bytes`.
        encoder: on its device; what its weights take already is theirs.
        title: of the training.

    Raises:
        ShortageError: there is less.
    """
    device = next(encoder.parameters()).device
    left = available(device) + _bytes_of(*encoder.parameters())
    if needed > left:
        raise ShortageError(
            f"{title}: a training step needs {units.size(needed)}, {device} has {units.size(left)} "
            f"available; {SMALLER_STEP}"
        )


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


def _loss_bytes(encoder: Encoder, method: Method, batch: Batch, *, precision: str) -> int:
    """Return the bytes that the backward pass of a loss needs beside weights and inputs."""
    target = method.target(batch).detach().requires_grad_()
    before = encoder.training, encoder.precision
    devices = [target.device] if target.is_cuda else []
    try:
        encoder.train()
        encoder.precision = precision
        with attack_mode(encoder, "frozen"), torch.random.fork_rng(devices):
            return kept_bytes(
                lambda: method.train_loss(encoder, batch, target),
                beside=(*encoder.parameters(), *batch),
            )
    finally:
        encoder.train(before[0])
        encoder.precision = before[1]


def _address(value: Tensor) -> int:
    return value.untyped_storage().data_ptr()


def _bytes_of(*tensors: Tensor) -> int:
    return sum(each.numel() * each.element_size() for each in tensors)


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
