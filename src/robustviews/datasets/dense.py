"""What data sets for segmentation and detection share: options, and how labels are written."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from robustviews.datasets import framing
from robustviews.datasets.protocol import Accuracy
from robustviews.datasets.splits import Create, DataError, Images, choose
from robustviews.options import option, plan_only

if TYPE_CHECKING:
    from PIL.Image import Image

Masks = NDArray[np.uint8]  # (S, S): the class of each pixel, or VOID
Boxes = NDArray[np.float32]  # (objects, 5): x1, y1, x2, y2 in pixels, and the class
S = TypeVar("S")
T = TypeVar("T")

_LISTED = 10  # problems that a message lists


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
class Photographs:
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

    @property
    @plan_only
    def counts(self) -> tuple[int, int] | None:
        """Return the numbers of images that are kept, if the study states both."""
        if self.train_images is None or self.test_images is None:
            return None
        return self.train_images, self.test_images

    def parts(self) -> Iterator[tuple[str, str, int | None]]:
        """Yield each split, the name of its part, and the number of images to keep."""
        yield "train", self.train, self.train_images
        yield "test", self.test, self.test_images


def keep(examples: Sequence[T], count: int | None, what: str) -> list[T]:
    """Return the examples to keep, in order: a fixed choice of `count`; all if it is None.

    Raises:
        DataError: there are fewer, or none.
    """
    if not examples:
        raise DataError(f"{what}: no image; add some")
    chosen = choose(np.zeros(len(examples), np.int64), count, what)
    return [examples[number] for number in chosen]


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
        more = f"\nand {len(problems) - _LISTED} more" if len(problems) > _LISTED else ""
        raise DataError("\n".join(problems[:_LISTED]) + more)


def pixels(image: Image, size: int) -> Images:
    """Return an RGB image, scaled and padded, as an array (3, size, size)."""
    return np.asarray(framing.pad(image, size)).transpose(2, 0, 1)


def fill_masks(
    create: Create, split: str, examples: Iterable[tuple[Images, Masks]], *, count: int, size: int
) -> int:
    """Write images (3, size, size) and masks (size, size), one at a time; return their number."""
    images = create(f"{split}_images", (count, 3, size, size), np.uint8)
    masks = create(f"{split}_labels", (count, size, size), np.uint8)
    for number, (image, mask) in enumerate(examples):
        images[number], masks[number] = image, mask
    return count


def fill_boxes(
    create: Create, split: str, examples: Iterable[tuple[Images, Boxes]], *, count: int, size: int
) -> int:
    """Write images (3, size, size), one at a time, and boxes; return the number of images.

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
    return count


def present(folder: Path, bring: str) -> Path:
    """Return a folder that exists.

    Args:
        folder: the folder.
        bring: what a message tells to do if it does not exist.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; {bring}")
    return folder
