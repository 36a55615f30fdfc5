"""Distributed training: shares of minibatches, and sums over ranks with gradients.

Each rank has an equal share of every minibatch and computes its share of the loss: the sum over
ranks equals the single-process loss. The sums and gathers here have the gradients of that sum. So
the gradients of a rank's own images equal those of a single process, and so do the gradients of
the parameters once `sum_gradients_` has summed them. In a single process all functions return
their input.
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

# Messages of gloo and NCCL on a healthy rank after another rank has ended.
_PEER_ENDED = ("closed by peer", "reset by peer", "Broken pipe", "remote process exited")


class RankError(ValueError):
    """Ranks cannot work together; the message names the rank and the fix."""


def ranks() -> int:
    """Return how many processes train together; 1 without distributed training."""
    return processes.get_world_size() if _several() else 1


def rank() -> int:
    """Return the number of this process among the ranks; rank 0 writes all files."""
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
    """Concatenate the tensors (..., n, ...) of all ranks along a dimension, with gradient.

    Returns:
        (..., ranks x n, ...), rank 0 first.
    """
    if not _several():
        return x
    whole = empty_gathered(x, dim).zero_()
    whole.narrow(dim, rank() * x.shape[dim], x.shape[dim]).copy_(x)
    return total(whole)  # the other ranks have zeros here


def empty_gathered(x: Tensor, dim: int = 0) -> Tensor:
    """Return an empty tensor of the shape that `gather` returns, without communication."""
    shape = list(x.shape)
    shape[dim] *= ranks()
    return x.new_empty(shape)


def part(whole: Tensor) -> Tensor:
    """Return this rank's part (n, ...) of a whole (ranks x n, ...): the inverse of `gather`."""
    return whole.tensor_split(ranks())[rank()].clone() if _several() else whole


def share(loss: Tensor) -> Tensor:
    """Turn a mean over this rank's samples into its share of the mean over all ranks."""
    return loss / ranks() if _several() else loss


def sum_gradients_(parameters: Iterable[Tensor]) -> None:
    """Replace the gradients of parameters by their sums over ranks, all of them at once."""
    if not _several():
        return
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    bucket = torch.cat([grad.flatten() for grad in gradients])
    processes.all_reduce(bucket)
    sums = bucket.split([grad.numel() for grad in gradients])
    summed = [flat.view(grad.shape) for flat, grad in zip(sums, gradients, strict=True)]
    torch._foreach_copy_(gradients, summed)


def broadcast_first(value: int) -> int:
    """Return the value of rank 0 on all ranks."""
    if not _several():
        return value
    shared = torch.tensor(value)  # on the CPU, so that no rank waits for its GPU
    processes.broadcast(shared, src=0)
    return int(shared)


def check_same(value: int, what: str) -> None:
    """Check that this rank has the same value as rank 0.

    Raises:
        RankError: the values differ.
    """
    first = broadcast_first(value)
    if value != first:
        raise RankError(
            f"rank {rank()} has {value} {what}, rank 0 {first}; start all ranks in one folder that "
            "all of them share"
        )


def launched() -> bool:
    """Return whether torchrun started this process as one of several."""
    return "TORCHELASTIC_RUN_ID" in os.environ and int(os.environ["WORLD_SIZE"]) > 1


@contextlib.contextmanager
def joined(device: str, *, own_gpu: bool = False) -> Iterator[str]:
    """Join the ranks that torchrun started, inside a block; without torchrun do nothing.

    Args:
        device: `auto`, `cpu` or `cuda`; each rank takes the GPU of its LOCAL_RANK.
        own_gpu: whether this rank sees a single GPU that no other rank sees, and takes it.

    Yields:
        The name of this rank's device.

    Raises:
        RankError: the device names one GPU, a rank has no GPU, or another rank has ended.
    """
    if not launched():
        yield device
        return
    if ":" in device:
        raise RankError(f"--device {device}: each rank takes a GPU of its own; use --device cuda")
    number = 0 if own_gpu else int(os.environ["LOCAL_RANK"])
    if device == "cpu" or (device == "auto" and not torch.cuda.is_available()):
        processes.init_process_group("gloo")
        device = "cpu"
    else:
        count = torch.cuda.device_count()
        if number >= count:
            raise RankError(
                f"rank {number} has no GPU of its own: torch sees {count} here; use fewer ranks "
                "(runtime.ranks of the study, --nproc-per-node of torchrun), or --device cpu"
            )
        torch.cuda.set_device(number)
        processes.init_process_group("cpu:gloo,cuda:nccl")
        device = f"cuda:{number}"
    try:
        yield device
    except BaseException as error:
        # When NCCL or Python shuts down, NCCL would wait for ranks that wait for this one.
        atexit.register(os._exit, 1)
        text = str(error).strip()
        if isinstance(error, RuntimeError) and any(sign in text for sign in _PEER_ENDED):
            reason = text.partition("\n")[0]
            message = f"rank {rank()}: another rank has ended; its own message says why ({reason})"
            raise RankError(message) from error
        if isinstance(error, ValueError):
            log.error("rank %d of %d fails, and all ranks stop:", rank(), ranks())
        raise
    processes.destroy_process_group()


class _Total(torch.autograd.Function):
    """A sum over ranks; the loss of each rank depends on it, so gradients are summed, too."""

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
