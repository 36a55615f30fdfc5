"""Data sets for detection: photographs, and the boxes and classes of the objects in them."""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np

from robustviews.datasets import coco, dense, framing, pictures, voc
from robustviews.datasets.dense import Annotated, Boxes
from robustviews.datasets.splits import Create, DataError, Hash, Images
from robustviews.machine.humanize import some
from robustviews.options import option, plan_only

Example = Callable[[], Annotated]  # reads the objects in an image

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Detection(dense.Photographs):
    """What the data sets of this module share.

    Attributes:
        classes: names of the classes in the order of the labels.
        degenerate: what becomes of a box without width or height within its image.
    """

    classes: tuple[str, ...] | None = None
    degenerate: Literal["refuse", "drop"] = "refuse"
    task: ClassVar[str] = "detection"
    left_out: ClassVar[str]  # objects that are dropped as the options say

    def __post_init__(self) -> None:
        """Refuse no class, and one that occurs twice."""
        names = self.classes
        if names is not None and not 0 < len(names) == len(set(names)):
            raise DataError(f"classes: expected names, each once, found {', '.join(names) or '[]'}")

    @abstractmethod
    def examples(self, part: str, source: Hash) -> Sequence[Example]:
        """Return a function for each image in a part that returns the objects in it.

        Args:
            part: of the data set.
            source: hash, to which the files that state the objects are added, as they are read.
        """

    def prepare(self, create: Create) -> dict[str, Any]:
        """Decode and write all images, and their boxes."""
        names, dropped = self.names(), {"degenerate": 0, self.left_out: 0}
        read = partial(self._read, names=names, dropped=dropped)
        summary = self.write(create, names, self.examples, read, dense.fill_boxes)
        return {**summary, "dropped_boxes": dropped}

    def _read(
        self,
        example: Example,
        *,
        names: Sequence[str],
        source: Hash,
        dropped: dict[str, int],
    ) -> tuple[Images, Boxes]:
        """Return an image (3, size, size) and its boxes; count those that are dropped."""
        one = example()
        image = pictures.read(one.image, source)
        if one.sides not in (None, image.size):
            expected = f"expected the size of {one.image.name}, {image.size}"
            raise DataError(f"{one.file}: {expected}, found {one.sides}; correct it")
        boxes = _scaled(one, names, image.size, self.size)
        whole = (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
        empty = [one.objects[number][1:] for number in np.flatnonzero(~whole)]
        if empty:
            text = f"{one.file}: boxes without width or height within {one.image.name}: {empty}"
            if self.degenerate == "refuse":
                raise DataError(f"{text}; correct them, or drop them: `degenerate: drop`")
            log.warning("%s; dropped", text)
        dropped["degenerate"] += len(empty)
        dropped[self.left_out] += one.left_out
        return dense.pixels(image, self.size), boxes[whole]


def _scaled(one: Annotated, names: Sequence[str], sides: tuple[int, int], size: int) -> Boxes:
    """Return boxes that are clipped to their image, scaled with it, and labelled.

    Raises:
        DataError: an object has another class.
    """
    labels = {name: label for label, name in enumerate(names)}
    other = next((name for name, *_ in one.objects if name not in labels), None)
    if other is not None:
        expected = f"expected a class of {some(names)}"
        raise DataError(f"{one.file}: {expected}, found {other!r}; add it to `classes`")
    rows = [(*corners, labels[name]) for name, *corners in one.objects]
    boxes = np.array(rows, dtype=np.float64).reshape(-1, 5)
    scale = np.divide(framing.fitted(sides, size), sides)
    boxes[:, :4] = boxes[:, :4].clip(0, np.tile(sides, 2)) * np.tile(scale, 2)
    return boxes.astype(np.float32)


def _known(one: Annotated) -> Example:
    return lambda: one


@dataclass(frozen=True)
class VocDetection(Detection):
    """Pascal VOC 2007, 5,011 training and 4,952 test photographs, or others in its layout.

    Attributes:
        root: folder that holds `folder`. Empty: the folder in the environment variable
            ROBUSTVIEWS_DATA, else `data/raw`; VOC 2007 is downloaded if missing.
        train: name of a list in `ImageSets/Main`.
        classes: names of the classes in the order of the labels; null takes the 20 of VOC.
        folder: folder of `JPEGImages`, `Annotations` and `ImageSets`, within `root`.
        difficult: keep objects that are marked as difficult. VOC counts neither their detection nor
            its lack; without them, their detection is a false positive.
    """

    root: str = ""
    train: str = "trainval"
    folder: str = "VOCdevkit/VOC2007"
    difficult: bool = False
    left_out: ClassVar[str] = "difficult"

    @property
    def num_classes(self) -> int:
        """Return the number of classes."""
        return len(self.names())

    @property
    @plan_only
    def files(self) -> tuple[str, ...]:
        """Return the folder."""
        return (self.folder,)

    def names(self) -> Sequence[str]:
        """Return the classes of the study, or those of VOC."""
        return voc.CLASSES if self.classes is None else self.classes

    def examples(self, part: str, source: Hash) -> Sequence[Example]:
        """Return readers of the XML file of each image that the list of a part names."""
        layout = voc.Layout.find(self.root, self.folder, "Main", part)
        files = zip(layout.files("JPEGImages"), layout.files("Annotations"), strict=True)
        return [partial(voc.annotated, *pair, source, difficult=self.difficult) for pair in files]


@dataclass(frozen=True)
class CocoDetection(Detection):
    """COCO 2017, 118,287 training and 5,000 validation photographs, or others in its format.

    Attributes:
        root: folder of images and annotations.
        classes: names of the categories in the order of the labels; null takes all of the training
            part, in the order of their numbers.
        annotations: JSON file of a part, within `root`; {} stands for the folder of its images.
            Boxes of crowds are dropped.
    """

    size: int = option(640, ge=8)
    train: str = "train2017"
    test: str = "val2017"
    annotations: str = "annotations/instances_{}.json"
    left_out: ClassVar[str] = "crowd"

    @property
    def num_classes(self) -> int | None:
        """Return the number of `classes`."""
        return None if self.classes is None else len(self.classes)

    @property
    @plan_only
    def files(self) -> tuple[str, ...]:
        """Return the folders of images."""
        return self.train, self.test

    def names(self) -> Sequence[str]:
        """Return the classes of the study, or the categories of the training part."""
        return self.classes or coco.categories(self._file(self.train))

    def examples(self, part: str, source: Hash) -> Sequence[Example]:
        """Return the objects of each image in the annotations of a part, which are read at once."""
        bring = "unpack the archives of https://cocodataset.org/#download, or correct `root`"
        folder = dense.present(Path(self.root).expanduser() / part, bring)
        return [_known(one) for one in coco.annotated(self._file(part), folder, source)]

    def _file(self, part: str) -> Path:
        return Path(self.root).expanduser() / self.annotations.replace("{}", part)
