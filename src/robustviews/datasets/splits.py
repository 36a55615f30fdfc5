"""Splits of a prepared data set: how they are selected, written, and opened."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from robustviews.machine.mapping import Shards, drop_pages

Images = NDArray[np.uint8]
Labels = NDArray[np.int64]
Rows = Images | Shards

# Bytes of the images in a file, 7,133 of 224 pixels: ImageNet takes 180 files for training, and a
# process decodes a file in minutes.
FILE_BYTES = 2**30
PAGED = 64  # images whose pages of a mapped file may be in memory


class Create(Protocol):
    """Creates an array to fill: in memory (`numpy.empty`) or in a file."""

    def __call__(self, name: str, shape: tuple[int, ...], dtype: type[np.generic]) -> NDArray[Any]:
        """Return an array with a name such as `train_images`."""


class Hash(Protocol):
    """A hash of source files, as those of hashlib, whose class is not public."""

    def update(self, data: bytes, /) -> None:
        """Add some content."""


class DataError(ValueError):
    """Data is missing, damaged, or not as requested; the message names it and the fix."""


def content(path: Path, fix: str) -> bytes:
    """Return the content of a file, or raise DataError with a fix."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}; {fix}") from None


def text_lines(path: Path, content: bytes) -> list[str]:
    """Return the lines of a file with this content, or raise DataError if it is no UTF-8 text."""
    try:
        return content.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 text ({error.reason} at byte {error.start})") from None


def images_in_file(size: int) -> int:
    """Return how many images of a size, in pixels, a file of a prepared data set may hold."""
    return max(1, FILE_BYTES // (3 * size**2))


def images_name(split: str, number: int) -> str:
    """Return the name, without `.npy`, of a file of images; most splits have only number 0."""
    return f"{split}_images-{number:05}" if number else f"{split}_images"


def open_split(folder: Path, split: str) -> tuple[Rows, NDArray[Any]]:
    """Open a split, `train` or `test`, of a prepared data set.

    Returns:
        Images (N, 3, S, S) uint8 and labels, mapped from their files, read-only. Labels are (N,)
        int64 classes of images; (N, S, S) uint8 classes of pixels, or VOID; or (N, M, 5) float32
        objects: x1, y1, x2, y2 in pixels and the class, -1 in rows without an object.

    Raises:
        DataError: a file is missing, damaged, or of another shape.
    """
    path, of_labels = folder / f"{images_name(split, 0)}.npy", folder / f"{split}_labels.npy"
    images, labels = _open_images(path), _open_array(of_labels)
    count, side = len(images), images.shape[-1]
    if 0 < count < labels.size:
        count = max(count, len(labels))  # the other images are in further files
    objects = labels.shape[1] if labels.ndim == 3 else 0
    forms = {
        np.dtype(np.int64): (count,),
        np.dtype(np.uint8): (count, side, side),
        np.dtype(np.float32): (count, objects, 5),
    }
    if labels.shape != forms.get(labels.dtype):
        expected = f"({count},) int64, ({count}, {side}, {side}) uint8 or ({count}, M, 5) float32"
        mismatch = f"expected {expected}, found {labels.shape} {labels.dtype}"
        raise DataError(f"{of_labels}: {mismatch}; {_again(folder)}")
    if count == len(images):
        return images, labels
    files = [path, *_further(folder, split, images, count)]
    return Shards(files, (count, *images.shape[1:]), len(images)), labels


def _further(folder: Path, split: str, images: Images, count: int) -> Iterator[Path]:
    """Yield the files of the images that do not fit in their first file."""
    for number, first in enumerate(range(len(images), count, len(images)), start=1):
        path = folder / f"{images_name(split, number)}.npy"
        if not path.is_file():
            text = f"no such file, though {split}_labels.npy has {count} labels"
            raise DataError(f"{path}: {text}; restore it, or {_again(folder)}")
        found = _open_images(path).shape
        expected = (min(len(images), count - first), *images.shape[1:])
        if found != expected:
            raise DataError(f"{path}: expected {expected}, found {found}; {_again(folder)}")
        yield path


def _open_images(path: Path) -> Images:
    images = _open_array(path)
    square = images.ndim == 4 and images.shape[1] == 3 and images.shape[2] == images.shape[3]
    if not square or images.dtype != np.uint8:
        mismatch = f"expected (N, 3, S, S) uint8, found {images.shape} {images.dtype}"
        raise DataError(f"{path}: {mismatch}; {_again(path.parent)}")
    return images


def _open_array(path: Path) -> NDArray[Any]:
    if not path.is_file():
        raise DataError(f"{path}: no such file; make it with: snakemake {path}")
    try:
        array: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError) as error:
        text = f"expected a whole array, found: {error}"
        raise DataError(f"{path}: {text}; {_again(path.parent)}") from None
    return array


def _again(folder: Path) -> str:
    return f"delete {folder} and prepare the data set again"


def fill(create: Create, split: str, images: Iterable[Images], labels: Labels, *, size: int) -> int:
    """Write images (3, size, size), one at a time, and labels; return the number of images."""
    array = create(f"{split}_images", (len(labels), 3, size, size), np.uint8)
    for number, image in enumerate(images):
        array[number] = image
    create(f"{split}_labels", labels.shape, np.int64)[:] = labels
    return len(labels)


def equal_images(folder: Path) -> dict[str, int]:
    """Count the images of a prepared data set that have the pixels of another one.

    Returns:
        Training images that repeat an earlier one under `train`, the same under `test`, and test
        images that are also training images under `shared`.
    """
    train, test = (_digests(open_split(folder, split)[0]) for split in ("train", "test"))
    repeated = {"train": len(train) - len(set(train)), "test": len(test) - len(set(test))}
    known = set(train)
    return {**repeated, "shared": sum(digest in known for digest in test)}


def _digests(images: Rows) -> list[bytes]:
    digests = []
    for first in range(0, len(images), PAGED):
        digests += [hashlib.sha256(image).digest() for image in images[first : first + PAGED]]
        drop_pages(images)
    return digests


def choose(labels: Labels, count: int | None, what: str) -> Labels:
    """Return the positions of the images to keep, in order; all if `count` is None."""
    if count is None:
        return np.arange(len(labels))
    if count > len(labels):
        raise DataError(f"{what}: expected {count}, found {len(labels)}; lower it")
    return stratified(labels, count)


def stratified(labels: Labels, count: int) -> Labels:
    """Return `count` positions, in order, in the proportions of the classes.

    Within a class, positions are chosen by their hashes, which are the same in every library
    version. A larger count returns the same positions and more.
    """
    digests = [hashlib.sha256(str(position).encode()).digest() for position in range(len(labels))]
    shuffled = np.array(sorted(range(len(labels)), key=digests.__getitem__))
    rank = np.empty(len(labels))
    for label in np.unique(labels):
        members = shuffled[labels[shuffled] == label]
        rank[members] = (np.arange(len(members)) + 0.5) / len(members)  # within its class
    return np.sort(np.lexsort((labels, rank))[:count])
