"""Feeds: minibatches of the images of a data set, from memory or from files.

Both give the same bytes; the free memory of the machine decides between them.
"""

from __future__ import annotations

import contextlib
import logging
from collections import deque
from collections.abc import Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from robustviews.machine import humanize, memory
from robustviews.machine.mapping import Shards, drop_pages

log = logging.getLogger(__name__)

Minibatches = Generator[tuple[Tensor, Tensor], None, None]

_SHARE = 0.6  # of free memory that images may take; workspaces and other processes need some, too
_READERS = 4  # threads that read for a GPU
_PIECE = 16 * 2**20  # bytes copied at a time


class Feed(Protocol):
    """Rows, such as images, that are sent to a device in minibatches."""

    def __len__(self) -> int:
        """Return the number of rows."""

    def batches(self, orders: Iterable[Tensor]) -> Minibatches:
        """Yield each minibatch: row numbers (B,) int64, and rows (B, ...), both on the device.

        Close the generator (`contextlib.closing`) if it may not run to its end.

        Args:
            orders: row numbers (B,) int64 of each minibatch, CPU; read some minibatches ahead.
        """


class Resident:
    """Rows that are all on the device.

    Attributes:
        rows: (N, ...).
    """

    def __init__(self, rows: Tensor) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def batches(self, orders: Iterable[Tensor]) -> Minibatches:
        """Yield each minibatch, selected on the device."""
        for order in orders:
            chosen = _sent(order, self.rows.device)
            yield chosen, self.rows[chosen]


class Mapped:
    """Rows that stay in their files; threads read the next minibatches, each thread one.

    Attributes:
        rows: (N, ...) uint8, mapped from a file or from several.
        device: device of the minibatches.
        depth: number of minibatches read ahead.
        readers: number of threads. A GPU waits for one alone; on a CPU more would take the cores of
            the training.
    """

    def __init__(
        self, rows: NDArray[np.uint8] | Shards, device: torch.device, *, depth: int = 3
    ) -> None:
        self.rows, self.device, self.depth = rows, device, depth
        self.readers = _READERS if device.type == "cuda" else 1

    def __len__(self) -> int:
        return len(self.rows)

    def batches(self, orders: Iterable[Tensor]) -> Minibatches:
        """Yield each minibatch; an error of a thread is raised here, at its minibatch."""
        ahead: deque[tuple[Tensor, Future[Tensor]]] = deque()
        with ThreadPoolExecutor(self.readers, thread_name_prefix="feed") as reader:
            try:
                for order in orders:
                    ahead.append((order, reader.submit(self._read, order)))
                    if len(ahead) > self.depth:
                        yield self._arrived(*ahead.popleft())
                while ahead:
                    yield self._arrived(*ahead.popleft())
            finally:
                for _, unread in ahead:
                    unread.cancel()

    def _read(self, order: Tensor) -> Tensor:
        """Return rows in host memory, read in the order of the file."""
        pinned = self.device.type == "cuda"  # asynchronous copies need pinned memory
        shape = (len(order), *self.rows.shape[1:])
        rows = torch.empty(shape, dtype=torch.uint8, pin_memory=pinned)
        array = rows.numpy()
        for position in order.argsort().tolist():
            array[position] = self.rows[int(order[position])]
        drop_pages(self.rows)
        return rows

    def _arrived(self, order: Tensor, read: Future[Tensor]) -> tuple[Tensor, Tensor]:
        rows = read.result().to(self.device, non_blocking=True)
        return _sent(order, self.device), rows


def choose(
    images: Tensor | NDArray[np.uint8] | Shards, device: torch.device, *, needed: int = 0
) -> Feed:
    """Copy images to a device if they fit; otherwise leave them in their files.

    Args:
        images: (N, 3, S, S), mapped from their files; or a tensor, which is copied whole.
        device: device of the minibatches.
        needed: bytes on the device that the job needs besides the images.
    """
    if isinstance(images, Tensor):
        return Resident(images.to(device))
    free = memory.available(device) - needed
    size, left = humanize.size(images.nbytes), humanize.size(max(free, 0))
    if images.nbytes > _SHARE * free:
        log.info("images=mapped %s of %s free", size, left)
        return Mapped(images, device)
    log.info("images=resident %s", size)
    rows = torch.empty(images.shape, dtype=torch.uint8, device=device)
    step = max(1, _PIECE // max(1, images.nbytes // max(1, len(images))))
    for first in range(0, len(images), step):
        rows[first : first + step] = torch.from_numpy(np.array(images[first : first + step]))
        drop_pages(images)
    return Resident(rows)


def of(rows: Tensor | Feed, device: torch.device) -> Feed:
    """Return a feed unchanged, or a feed of rows (N, ...) that may be on another device."""
    return Resident(rows.to(device)) if isinstance(rows, Tensor) else rows


def first(rows: Feed, count: int) -> Tensor:
    """Return the first rows, at most `count`, on the device of the feed."""
    order = torch.arange(min(count, len(rows)))
    with contextlib.closing(rows.batches([order])) as batches:
        return next(batches)[1]


def _sent(order: Tensor, device: torch.device) -> Tensor:
    """Send row numbers to a device; from pinned memory, so that the host does not wait."""
    pinned = order.pin_memory() if device.type == "cuda" else order
    return pinned.to(device, non_blocking=True)
