"""Splits of a prepared data set: chosen, filled in, and opened again."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Images = NDArray[np.uint8]
Labels = NDArray[np.int64]


class Create(Protocol):
    """Makes an array to be filled: in memory (`numpy.empty`) or in a file."""

    def __call__(self, name: str, shape: tuple[int, ...], dtype: type[np.generic]) -> NDArray[Any]:
        """Return an array; its name is such as `train_images`."""


class DataError(ValueError):
    """Data is missing, damaged, or not what was asked for; the message names it and the way out."""


def open_split(folder: Path, split: str) -> tuple[Images, Labels]:
    """Open a split, `train` or `test`, of a prepared data set.

    Returns:
        Images (N, 3, S, S) uint8 and labels (N,) int64, mapped from their files, read-only.

    Raises:
        DataError: a file is missing, damaged, or of another shape.
    """
    images = _open_array(folder / f"{split}_images.npy")
    labels = _open_array(folder / f"{split}_labels.npy")
    again = f"delete {folder} and make it again"
    square = images.ndim == 4 and images.shape[1] == 3 and images.shape[2] == images.shape[3]
    if not square or images.dtype != np.uint8:
        found = f"expected (N, 3, S, S) uint8, found {images.shape} {images.dtype}"
        raise DataError(f"{folder / split}_images.npy: {found}; {again}")
    if labels.shape != images.shape[:1] or labels.dtype != np.int64:
        found = f"expected ({len(images)},) int64, found {labels.shape} {labels.dtype}"
        raise DataError(f"{folder / split}_labels.npy: {found}; {again}")
    return images, labels


def _open_array(path: Path) -> NDArray[Any]:
    if not path.is_file():
        raise DataError(f"{path}: no such file; make it with: snakemake {path}")
    try:
        array: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError) as error:
        again = f"delete {path.parent} and make it again"
        raise DataError(f"{path}: expected a whole array, found: {error}; {again}") from None
    return array


def fill(create: Create, split: str, images: Iterable[Images], labels: Labels, *, size: int) -> int:
    """Fill in images (3, size, size), one at a time, and labels; return how many."""
    array = create(f"{split}_images", (len(labels), 3, size, size), np.uint8)
    for number, image in enumerate(images):
        array[number] = image
    create(f"{split}_labels", labels.shape, np.int64)[:] = labels
    return len(labels)


def choose(labels: Labels, count: int | None, what: str) -> Labels:
    """Return the positions of the images to keep, in order; all when `count` is None."""
    if count is None:
        return np.arange(len(labels))
    if count > len(labels):
        raise DataError(f"{what}: expected {count}, found {len(labels)}; ask for no more")
    return stratified(labels, count)


def stratified(labels: Labels, count: int) -> Labels:
    """Return `count` positions, in order, with each class in its proportion.

    Within a class the choice follows hashes of the positions, which no library version changes. A
    larger count gives the same positions and more.
    """
    digests = [hashlib.sha256(str(position).encode()).digest() for position in range(len(labels))]
    shuffled = np.array(sorted(range(len(labels)), key=digests.__getitem__))
    rank = np.empty(len(labels))
    for label in np.unique(labels):
        members = shuffled[labels[shuffled] == label]
        rank[members] = (np.arange(len(members)) + 0.5) / len(members)  # within its class
    return np.sort(np.lexsort((labels, rank))[:count])
