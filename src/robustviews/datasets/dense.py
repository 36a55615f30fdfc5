"""What data sets for segmentation and detection share: options, and how labels are written."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from robustviews.datasets import framing
from robustviews.datasets.protocol import Accuracy, Kept
from robustviews.datasets.splits import Create, DataError, Hash, Images, choose
from robustviews.machine.humanize import some
from robustviews.options import option

if TYPE_CHECKING:
    from PIL.Image import Image

Masks = NDArray[np.uint8]  # (S, S): the class of each pixel, or VOID
Boxes = NDArray[np.float32]  # (objects, 5): x1, y1, x2, y2 in pixels, and the class
S = TypeVar("S")
T = TypeVar("T")


class Annotated(NamedTuple):
    """An image file, and the objects in the image.

    Attributes:
        image: the file.
        file: file that states the objects, for messages.
        sides: width and height of the image as `file` states them; None if it does not.
        objects: class and x1, y1, x2, y2 in pixels of the image.
        left_out: number of other objects, which the options leave out.
    """

    image: Path
    file: Path
    sides: tuple[int, int] | None
    objects: list[tuple[Any, ...]]
    left_out: int


@dataclass(frozen=True)
class Photographs(Kept, ABC):
    """Photographs with labels of pixels or boxes.

    Attributes:
        root: folder of the files.
        size: height and width in pixels: the longer side is scaled to it, and the rest, at right
            or bottom, is black.
        train: folder of the training part, within `root`.
        test: the same for the test part.
        train_images: number to keep, a fixed choice; null keeps all.
        test_images: the same for the test part.
    """

    root: str
    size: int = option(512, ge=8)
    train: str = "train"
    test: str = "test"
    train_images: int | None = option(None, ge=1)
    test_images: int | None = option(None, ge=1)
    accuracy: ClassVar[Accuracy] = "top1"

    @abstractmethod
    def names(self) -> Sequence[str]:
        """Return the names of the classes in the order of the labels."""

    def write(
        self,
        create: Create,
        names: Sequence[str],
        examples: Callable[[str, Hash], Sequence[Any]],
        read: Callable[..., tuple[Images, NDArray[Any]]],
        fill: Callable[..., None],
    ) -> dict[str, Any]:
        """Write the images of both parts and their labels, and return the summary.

        Args:
            create: creates the arrays.
            names: of the classes.
            examples: returns the examples of a part, and adds what it reads to a hash.
            read: returns the image (3, size, size) and the labels of an example, and adds their
                files to the hash `source`.
            fill: `fill_masks` or `fill_boxes`.

        Raises:
            DataError: an example cannot be used, or there are fewer than the options keep, or none.
        """
        counts, hashes = dict[str, int](), dict[str, str]()
        for split, part in (("train", self.train), ("test", self.test)):
            source, what = hashlib.sha256(), f"{self.root}: {split}_images"
            found = examples(part, source)
            if not found:
                raise DataError(f"{what}: no image; add some")
            chosen = choose(np.zeros(len(found), np.int64), self.requested[split], what)
            pairs = read_all([found[number] for number in chosen], partial(read, source=source))
            fill(create, split, pairs, count=len(chosen), size=self.size)
            counts[split] = len(chosen)
            hashes[split] = f"sha256:{source.hexdigest()}"
        summary = {**counts, "classes": len(names), "class_names": list(names), "size": self.size}
        return {**summary, "source_hashes": hashes}


def read_all(examples: Iterable[S], read: Callable[[S], T]) -> Iterator[T]:
    """Yield what is read of each example.

    Raises:
        DataError: at the end, with a line for each example that cannot be used.
    """
    problems = []
    for example in examples:
        try:
            yield read(example)
        except DataError as error:
            problems.append(str(error))
    if problems:
        raise DataError(some(problems, between="\n"))


def pixels(image: Image, size: int) -> Images:
    """Return an RGB image, scaled and padded, as an array (3, size, size)."""
    return np.asarray(framing.pad(image, size)).transpose(2, 0, 1)


def fill_masks(
    create: Create, split: str, examples: Iterable[tuple[Images, Masks]], *, count: int, size: int
) -> None:
    """Write images (3, size, size) and masks (size, size), one at a time."""
    images = create(f"{split}_images", (count, 3, size, size), np.uint8)
    masks = create(f"{split}_labels", (count, size, size), np.uint8)
    for number, (image, mask) in enumerate(examples):
        images[number], masks[number] = image, mask


def fill_boxes(
    create: Create, split: str, examples: Iterable[tuple[Images, Boxes]], *, count: int, size: int
) -> None:
    """Write images (3, size, size), one at a time, and boxes.

    Raises:
        DataError: no image has an object.
    """
    images = create(f"{split}_images", (count, 3, size, size), np.uint8)
    found = []
    for number, (image, boxes) in enumerate(examples):
        images[number] = image
        found.append(boxes)
    most = max(len(boxes) for boxes in found)
    if not most:
        raise DataError(f"{split}: no object in any of {count} images; correct the annotations")
    labels: NDArray[Any] = create(f"{split}_labels", (count, most, 5), np.float32)
    labels[:] = 0, 0, 0, 0, -1
    for number, boxes in enumerate(found):
        labels[number, : len(boxes)] = boxes


def present(folder: Path, bring: str) -> Path:
    """Return a folder that exists.

    Args:
        folder: the folder.
        bring: what a message tells to do if it does not exist.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; {bring}")
    return folder
