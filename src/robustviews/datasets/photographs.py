"""Data sets of photographs that torchvision downloads and splits: targets of transfer.

Each is one class of options. Official splits: training and validation images together are the
training split, from which probes hold out their own images. Custom decides how accuracy is counted
(Kornblith et al. 2019, Table 1).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from robustviews.datasets import shards
from robustviews.datasets.protocol import Accuracy, Kept
from robustviews.datasets.sources import ENVIRONMENT, source_folder
from robustviews.datasets.splits import Create, DataError
from robustviews.options import option, reporting


@dataclass(frozen=True)
class Photographs(Kept):
    """What the data sets of this module share.

    Attributes:
        root: folder that holds the folder of the data set. Empty: the folder in the environment
            variable ROBUSTVIEWS_DATA, else `data/raw`, downloaded if missing.
        size: height and width in pixels: the shorter side is resized to it, then the centre is cut.
        train_images: number to keep, in the proportions of the classes; null keeps all.
        test_images: the same for the test split.
        accuracy: `top1`, or `mean_per_class`: the mean over classes of the share of right images.
    """

    root: str = ""
    size: int = option(224, ge=1)
    train_images: int | None = option(None, ge=1)
    test_images: int | None = option(None, ge=1)
    accuracy: Accuracy = reporting("top1")
    num_classes: ClassVar[int]
    files: ClassVar[tuple[str, ...]]
    _torchvision_name: ClassVar[str]
    _training: ClassVar[tuple[str, ...]] = ("train",)  # torchvision's splits

    def prepare(self, create: Create) -> dict[str, Any]:
        """Find the images with torchvision, choose, decode and write."""
        counts, hashes = dict[str, int](), dict[str, str]()
        summary: dict[str, Any] = {"classes": self.num_classes, "size": self.size}
        for split, parts in (("train", self._training), ("test", ("test",))):
            sources = [self._open(part) for part in parts]
            files = [Path(file) for source in sources for file in _files(source)]
            labels = np.concatenate([np.array(one._labels, dtype=np.int64) for one in sources])
            folder = Path(sources[0].root) / self.files[0]
            count = self.requested[split]
            counts[split], sha256 = shards.fill(
                create, split, files, labels, folder=folder, size=self.size, count=count
            )
            hashes[split] = f"sha256:{sha256}"
            if hasattr(sources[0], "classes"):
                summary["class_names"] = list(sources[0].classes)
        return {**summary, **counts, "source_hashes": hashes}

    def _open(self, part: str) -> Any:  # noqa: ANN401  # torchvision has no types
        """Return a split of torchvision's data set."""
        from torchvision import datasets

        kind = getattr(datasets, self._torchvision_name)
        root, downloads = source_folder(self.root)
        assert root is not None
        try:
            return kind(root, split=part, download=downloads)
        except (OSError, RuntimeError) as error:
            reason = str(error).partition(". You can use")[0]
            raise DataError(
                f"{root / self.files[0]}: {reason}; unpack torchvision's {self._torchvision_name} "
                f"in {root}, or set {ENVIRONMENT} to the folder that has it"
            ) from None


def _files(source: Any) -> list[Any]:  # noqa: ANN401
    """Return the image files of torchvision's data set."""
    return list(source._images if hasattr(source, "_images") else source._image_files)


@dataclass(frozen=True)
class Flowers102(Photographs):
    """Oxford 102 Flowers: 2,040 training (and validation) and 6,149 test images, 102 classes."""

    accuracy: Accuracy = reporting("mean_per_class")
    num_classes: ClassVar[int] = 102
    files: ClassVar[tuple[str, ...]] = ("flowers-102",)
    _torchvision_name: ClassVar[str] = "Flowers102"
    _training: ClassVar[tuple[str, ...]] = ("train", "val")
    totals: ClassVar[tuple[int, int]] = 2_040, 6_149


@dataclass(frozen=True)
class Pets(Photographs):
    """Oxford-IIIT Pets: 3,680 training and 3,669 test images of 37 breeds of cats and dogs."""

    accuracy: Accuracy = reporting("mean_per_class")
    num_classes: ClassVar[int] = 37
    files: ClassVar[tuple[str, ...]] = ("oxford-iiit-pet",)
    _torchvision_name: ClassVar[str] = "OxfordIIITPet"
    _training: ClassVar[tuple[str, ...]] = ("trainval",)
    totals: ClassVar[tuple[int, int]] = 3_680, 3_669


@dataclass(frozen=True)
class Textures(Photographs):
    """DTD, describable textures, first partition: 3,760 training and 1,880 test images, 47."""

    num_classes: ClassVar[int] = 47
    files: ClassVar[tuple[str, ...]] = ("dtd",)
    _torchvision_name: ClassVar[str] = "DTD"
    _training: ClassVar[tuple[str, ...]] = ("train", "val")
    totals: ClassVar[tuple[int, int]] = 3_760, 1_880


@dataclass(frozen=True)
class Aircraft(Photographs):
    """FGVC-Aircraft: 6,667 training and 3,333 test images of 100 variants of aircraft."""

    accuracy: Accuracy = reporting("mean_per_class")
    num_classes: ClassVar[int] = 100
    files: ClassVar[tuple[str, ...]] = ("fgvc-aircraft-2013b",)
    _torchvision_name: ClassVar[str] = "FGVCAircraft"
    _training: ClassVar[tuple[str, ...]] = ("trainval",)
    totals: ClassVar[tuple[int, int]] = 6_667, 3_333


@dataclass(frozen=True)
class Food101(Photographs):
    """Food-101: 75,750 training and 25,250 test images of 101 dishes."""

    num_classes: ClassVar[int] = 101
    files: ClassVar[tuple[str, ...]] = ("food-101",)
    _torchvision_name: ClassVar[str] = "Food101"
    totals: ClassVar[tuple[int, int]] = 75_750, 25_250
