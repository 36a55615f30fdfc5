"""Rows of an array that stay in files: mapped, read by number, in bounded memory."""

from __future__ import annotations

import mmap
import operator
from collections.abc import Sequence
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

_OPEN = 4  # files that are mapped at a time: one per thread of a feed


class Shards:
    """Rows (N, ...) uint8 in several .npy files, each of which has as many rows as the first.

    The last file may have fewer. Rows are copied out of a file, which is mapped at first use.

    Attributes:
        files: the files in the order of their rows.
        shape: (N, ...).
        in_file: rows in each file but the last.
    """

    def __init__(self, files: Sequence[Path], shape: tuple[int, ...], in_file: int) -> None:
        self.files, self.shape, self.in_file = tuple(files), shape, in_file
        self._map = lru_cache(_OPEN)(partial(np.load, mmap_mode="r", allow_pickle=False))

    @property
    def nbytes(self) -> int:
        """Bytes of all rows."""
        return int(np.prod(self.shape, dtype=np.int64))

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: int | slice | NDArray[np.int64]) -> NDArray[np.uint8]:
        """Return a row, or a copy of several rows."""
        if isinstance(index, slice):
            index = np.arange(*index.indices(len(self)))
        if isinstance(index, np.ndarray):
            rows = np.empty((len(index), *self.shape[1:]), dtype=np.uint8)
            for position, number in enumerate(index):
                rows[position] = self[number]
            return rows
        number = operator.index(index)
        if not 0 <= number < len(self):
            raise IndexError(f"index {number} is out of bounds, below 0 or above {len(self) - 1}")
        row: NDArray[np.uint8] = self._map(self.files[number // self.in_file])[
            number % self.in_file
        ]
        return row

    def close(self) -> None:
        """Unmap the files, until a row is read again."""
        self._map.cache_clear()


def drop_pages(rows: NDArray[np.uint8] | Shards) -> None:
    """Drop the pages read from a file, so that they do not count as memory of this process."""
    if isinstance(rows, Shards):
        rows.close()
        return
    file: object = rows.base
    if isinstance(file, mmap.mmap):
        file.madvise(mmap.MADV_DONTNEED)
