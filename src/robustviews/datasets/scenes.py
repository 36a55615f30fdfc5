"""Scenes that are composed of scikit-learn's digits: masks and boxes are known exactly."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from robustviews.datasets import dense
from robustviews.datasets.dense import Boxes, Masks
from robustviews.datasets.digits import Digits
from robustviews.datasets.protocol import Accuracy
from robustviews.datasets.splits import Create, DataError, Images
from robustviews.options import option, plan_only

_SIDES = (11, 16)  # smallest and largest digit, in pixels
_MOST = 4  # digits in a scene
_INK = 90  # least value of a pixel that belongs to a digit: more than .35 of white


class Scene(NamedTuple):
    """A scene: its image (3, S, S), the class of each pixel, and its objects."""

    image: Images
    mask: Masks
    boxes: Boxes


@dataclass(frozen=True)
class Scenes:
    """White digits on black, of 11 to 16 pixels, 1 to 4 in a scene, which do not overlap.

    Source: own. Pixels brighter than .35 belong to a digit, and its box is
    the extent of these pixels. Test scenes have the digits of the test split of `digits` with
    `test: 597`, which are among those of every larger test split.

    Attributes:
        size: height and width, in pixels.
        classes: digits that occur, in the order of the labels.
        train: training scenes.
        test: test scenes.
        seed: other scenes for other seeds.
    """

    size: int = option(32, ge=_SIDES[1])
    classes: tuple[int, ...] = option((0, 1, 2, 3, 4), ge=0, le=9)
    train: int = option(600, ge=1)
    test: int = option(200, ge=1)
    seed: int = option(0, ge=0)
    accuracy: ClassVar[Accuracy] = "top1"
    root: ClassVar[None] = None
    files: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self) -> None:
        """Refuse fewer than two classes, and one that occurs twice."""
        if not 1 < len(self.classes) == len(set(self.classes)):
            found = ", ".join(map(str, self.classes)) or "none"
            raise DataError(f"classes: expected at least 2 digits, each once, found {found}")

    @property
    @plan_only
    def counts(self) -> tuple[int, int]:
        """Return the numbers of scenes."""
        return self.train, self.test

    def scenes(self) -> tuple[dict[str, Iterator[Scene]], dict[str, Any]]:
        """Return the scenes of both splits, and what a summary says of them."""
        digits: dict[str, NDArray[Any]] = {}

        def keep(name: str, shape: tuple[int, ...], dtype: type[np.generic]) -> NDArray[Any]:
            digits[name] = np.empty(shape, dtype)
            return digits[name]

        source = Digits(size=8).prepare(keep)["source_hashes"]
        counts = {"train": self.train, "test": self.test}
        splits = {
            split: self._scenes(digits[f"{split}_images"][:, 0], digits[f"{split}_labels"], split)
            for split in counts
        }
        return splits, {**counts, "size": self.size, "source_hashes": source}

    def _scenes(
        self, digits: NDArray[np.uint8], labels: NDArray[np.int64], split: str
    ) -> Iterator[Scene]:
        """Yield the scenes of a split, composed of digits (N, 8, 8)."""
        pool = np.flatnonzero(np.isin(labels, self.classes))
        for number in range(getattr(self, split)):
            # The same in every release of numpy, unlike what a Generator makes of it.
            draw = np.random.PCG64([self.seed, int(split == "test"), number]).random_raw
            chosen = [pool[draw() % len(pool)] for _ in range(1 + draw() % _MOST)]
            kinds = [self.classes.index(labels[one]) for one in chosen]
            yield _compose([digits[one] for one in chosen], kinds, self.size, draw)


@dataclass(frozen=True)
class ScenesSegmentation(Scenes):
    """Scenes of digits and the class of each pixel: 0 is the ground, then come the `classes`."""

    task: ClassVar[str] = "segmentation"

    @property
    def num_classes(self) -> int:
        """Return the number of digits that occur, and one for the ground."""
        return 1 + len(self.classes)

    def prepare(self, create: Create) -> dict[str, Any]:
        """Compose and write the scenes and their masks."""
        splits, summary = self.scenes()
        for split, scenes in splits.items():
            pairs = ((scene.image, scene.mask) for scene in scenes)
            dense.fill_masks(create, split, pairs, count=summary[split], size=self.size)
        names = ["ground", *map(str, self.classes)]
        return {**summary, "classes": self.num_classes, "class_names": names}


@dataclass(frozen=True)
class ScenesDetection(Scenes):
    """The scenes of `scenes_segmentation`, and the box and class of each digit."""

    task: ClassVar[str] = "detection"

    @property
    def num_classes(self) -> int:
        """Return the number of digits that occur."""
        return len(self.classes)

    def prepare(self, create: Create) -> dict[str, Any]:
        """Compose and write the scenes and their boxes."""
        splits, summary = self.scenes()
        for split, scenes in splits.items():
            pairs = ((scene.image, scene.boxes) for scene in scenes)
            dense.fill_boxes(create, split, pairs, count=summary[split], size=self.size)
        names = [str(digit) for digit in self.classes]
        return {**summary, "classes": self.num_classes, "class_names": names, "dropped_boxes": {}}


def _compose(
    digits: Sequence[NDArray[np.uint8]], kinds: Sequence[int], size: int, draw: Callable[[], int]
) -> Scene:
    """Place digits (8, 8) one after another where there is room, and leave out the others."""
    image, mask = np.zeros((size, size), np.uint8), np.zeros((size, size), np.uint8)
    taken, boxes = np.zeros((size, size), bool), []
    for digit, kind in zip(digits, kinds, strict=True):
        side = _SIDES[0] + draw() % (_SIDES[1] - _SIDES[0] + 1)
        used = sliding_window_view(taken, (side, side)).any(axis=(2, 3))
        free = np.argwhere(~used)
        if not len(free):
            continue
        top, left = free[draw() % len(free)]
        place = slice(top, top + side), slice(left, left + side)
        taken[place], image[place] = True, _enlarge(digit, side)
        ink = image[place] >= _INK
        mask[place][ink] = 1 + kind
        rows, columns = np.nonzero(ink)
        ends = columns.min(), rows.min(), columns.max() + 1, rows.max() + 1
        boxes.append((*np.add(ends, (left, top, left, top)), kind))
    return Scene(np.repeat(image[None], 3, axis=0), mask, np.array(boxes, np.float32))


def _enlarge(digit: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """Enlarge a digit (8, 8) bilinearly to (side, side).

    In whole numbers: sums of floats, and so the rounding of ties, differ between libraries.
    """
    old = len(digit)
    centres = np.clip((2 * np.arange(side) + 1) * old - side, 0, 2 * side * (old - 1))
    distances = np.abs(centres[:, None] - 2 * side * np.arange(old))  # in 1 / (2 side)
    weights = np.clip(2 * side - distances, 0, None)  # (side, 8), sums are 2 side
    total = weights @ digit.astype(np.int64) @ weights.T
    whole = (2 * side) ** 2
    enlarged: NDArray[np.uint8] = ((total + whole // 2) // whole).astype(np.uint8)
    return enlarged
