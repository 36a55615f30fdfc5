"""Several processes, the ranks, in one training: shares, and sums over all of them with gradient.

Every rank has an equal share of each minibatch, and computes its share of the loss: the sum of the
shares is the loss of one process. What is summed or gathered here hands gradients back as that sum
does, so that each rank's gradients are those of one process, whether of its own images or, once
they are summed, of the parameters. A single process gets back what it gives.
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch import distributed as processes

log = logging.getLogger(__name__)

# What gloo and NCCL say on a rank that is well, when another one has ended.
_LEFT_ALONE = ("closed by peer", "reset by peer", "Broken pipe", "remote process exited")


class RankError(ValueError):
    """Ranks cannot work together; the message says which, and what to do."""


def ranks() -> int:
    """Return how many processes train together; 1 for a process on its own."""
    return processes.get_world_size() if _several() else 1


def rank() -> int:
    """Return the number of this process among them; 0 writes what there is to write."""
    return processes.get_rank() if _several() else 0


def total(x: Tensor) -> Tensor:
    """Return the sum of a tensor over ranks, with gradient."""
    if not _several():
        return x
    summed: Tensor = _Total.apply(x)  # type: ignore[no-untyped-call]
    return summed


def mean(x: Tensor) -> Tensor:
    """Return the mean of a tensor over ranks, with gradient."""
    return total(x) / ranks() if _several() else x


def gather(x: Tensor, dim: int = 0) -> Tensor:
    """Join the parts (..., n, ...) of all ranks along a dimension, with gradient.

    Returns:
        (..., ranks x n, ...), those of rank 0 first.
    """
    if not _several():
        return x
    whole = room(x, dim).zero_()
    whole.narrow(dim, rank() * x.shape[dim], x.shape[dim]).copy_(x)
    return total(whole)  # the others have zeros in this place


def room(x: Tensor, dim: int = 0) -> Tensor:
    """Return an empty tensor of the shape that `gather` returns, without asking the others."""
    shape = list(x.shape)
    shape[dim] *= ranks()
    return x.new_empty(shape)


def part(whole: Tensor) -> Tensor:
    """Return what `gather` would join to a whole (ranks x n, ...): this rank's (n, ...)."""
    return whole.tensor_split(ranks())[rank()].clone() if _several() else whole


def share(loss: Tensor) -> Tensor:
    """Turn a mean over what this rank has into its share of the mean over what all have."""
    return loss / ranks() if _several() else loss


def sum_gradients_(parameters: Iterable[Tensor]) -> None:
    """Replace the gradients of parameters by their sums over ranks, all of them at once."""
    if not _several():
        return
    gradients = [each.grad for each in parameters if each.grad is not None]
    bucket = torch.cat([each.flatten() for each in gradients])
    processes.all_reduce(bucket)
    sums = bucket.split([each.numel() for each in gradients])
    summed = [each.view(grad.shape) for each, grad in zip(sums, gradients, strict=True)]
    torch._foreach_copy_(gradients, summed)


def said_by_first(value: int) -> int:
    """Return what rank 0 gives, on all ranks."""
    if not _several():
        return value
    said = torch.tensor(value)  # on the CPU, so that no GPU is waited for
    processes.broadcast(said, src=0)
    return int(said)


def check_same(value: int, what: str) -> None:
    """Refuse to go on where ranks would not do the same.

    Raises:
        RankError: this rank has another value than rank 0.
    """
    first = said_by_first(value)
    if value != first:
        raise RankError(
            f"rank {rank()} has {value} {what}, rank 0 {first}; start all ranks in one folder that "
            "all of them see"
        )


def launched() -> bool:
    """Return whether torchrun started this process as one of several."""
    return "TORCHELASTIC_RUN_ID" in os.environ and int(os.environ["WORLD_SIZE"]) > 1


@contextlib.contextmanager
def joined(device: str) -> Iterator[str]:
    """Be one of the ranks that torchrun started, inside a block; change nothing without torchrun.

    Args:
        device: `auto`, `cpu` or `cuda`; each rank takes the GPU of its LOCAL_RANK.

    Yields:
        The name of this rank's own device.

    Raises:
        RankError: the device is that of one rank alone, or another rank has ended.
    """
    if not launched():
        yield device
        return
    if ":" in device:
        raise RankError(f"--device {device}: each rank takes a GPU of its own; use --device cuda")
    number = int(os.environ["LOCAL_RANK"])
    if device == "cpu" or (device == "auto" and not torch.cuda.is_available()):
        processes.init_process_group("gloo")
        device = "cpu"
    else:
        count = torch.cuda.device_count()
        if number >= count:
            raise RankError(
                f"rank {number} finds no GPU of its own: torch sees {count} here; use fewer ranks "
                "(runtime.ranks of the study, --nproc-per-node of torchrun), or --device cpu"
            )
        torch.cuda.set_device(number)
        processes.init_process_group("cpu:gloo,cuda:nccl")
        device = f"cuda:{number}"
    try:
        yield device
    except BaseException as error:
        # Taking leave, or later as Python ends, NCCL would wait for ranks that wait for this one.
        atexit.register(os._exit, 1)
        text = str(error).strip()
        if isinstance(error, RuntimeError) and any(sign in text for sign in _LEFT_ALONE):
            reason = text.partition("\n")[0]
            message = f"rank {rank()}: another rank has ended; its own message says why ({reason})"
            raise RankError(message) from error
        if isinstance(error, ValueError):
            log.error("rank %d of %d ends, and so will all:", rank(), ranks())
        raise
    processes.destroy_process_group()


class _Total(torch.autograd.Function):
    """A sum over ranks; each rank's loss depends on it, so that gradients are summed as well."""

    @staticmethod
    def forward(_: Any, x: Tensor) -> Tensor:  # noqa: ANN401  # torch's, untyped
        return _summed(x)

    @staticmethod
    def backward(_: Any, upstream: Tensor) -> Tensor:  # noqa: ANN401
        return _summed(upstream)


def _summed(x: Tensor) -> Tensor:
    summed = x.clone(memory_format=torch.contiguous_format)
    processes.all_reduce(summed)
    return summed


def _several() -> bool:
    return processes.is_available() and processes.is_initialized()
