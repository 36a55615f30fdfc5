"""Kinds of data sets: how each is read, verified, split, and stored as plain arrays.

A prepared data set is a folder of {train,test}_images.npy, (N, 3, S, S) uint8, and
{train,test}_labels.npy, whose form depends on the task: see `splits.open_split`. Images that do not
fit in their file go on in {train,test}_images-00001.npy and so on.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np

from robustviews.datasets import framing, names, pictures, shards
from robustviews.datasets.boxes import CocoDetection, VocDetection
from robustviews.datasets.digits import Digits
from robustviews.datasets.evaluation import EvaluationFolder
from robustviews.datasets.masks import Camvid, SegmentationFolder, VocSegmentation
from robustviews.datasets.photographs import Aircraft, Flowers102, Food101, Pets, Textures
from robustviews.datasets.protocol import Accuracy, Dataset, Kept
from robustviews.datasets.scenes import ScenesDetection, ScenesSegmentation
from robustviews.datasets.sources import cifar_trouble, source_folder
from robustviews.datasets.splits import Create, DataError, choose, fill
from robustviews.datasets.subset import Subset
from robustviews.options import option, plan_only, reporting


@dataclass(frozen=True)
class Cifar10(Kept):
    """CIFAR-10: 50,000 training and 10,000 test images of 32x32 pixels in 10 classes.

    Attributes:
        root: folder that holds `cifar-10-batches-py` (`cifar-100-python`). Empty: the folder in the
            environment variable ROBUSTVIEWS_DATA, else `data/raw`, downloaded if missing.
        train_images: number to keep, in the proportions of the classes; null keeps all.
        test_images: the same for the test split.
        accuracy: as in `digits`.
    """

    root: str = ""
    train_images: int | None = option(None, ge=1, le=50_000)
    test_images: int | None = option(None, ge=1, le=10_000)
    accuracy: Accuracy = reporting("top1")
    size: ClassVar[int] = 32
    num_classes: ClassVar[int] = 10
    class_names: ClassVar[tuple[str, ...]] = names.CIFAR10
    files: ClassVar[tuple[str, ...]] = ("cifar-10-batches-py",)
    totals: ClassVar[tuple[int, int]] = 50_000, 10_000
    _torchvision_name: ClassVar[str] = "CIFAR10"

    def prepare(self, create: Create) -> dict[str, Any]:
        """Verify the files with torchvision, choose and write."""
        from torchvision import datasets

        kind = getattr(datasets, self._torchvision_name)
        root, downloads = source_folder(self.root)
        assert root is not None
        counts = {}
        for split, count in self.requested.items():
            try:
                data = kind(root, train=split == "train", download=downloads)
            except (OSError, RuntimeError) as error:
                raise DataError(cifar_trouble(kind, root, error)) from None
            labels = np.array(data.targets, dtype=np.int64)
            chosen = choose(labels, count, f"{root}: {split}_images")
            images = data.data[chosen].transpose(0, 3, 1, 2)  # (N, 3, 32, 32)
            counts[split] = fill(create, split, images, labels[chosen], size=self.size)
        hashes = {name: f"md5:{md5}" for name, md5 in kind.train_list + kind.test_list}
        return {**counts, "classes": self.num_classes, "size": self.size, "source_hashes": hashes}


@dataclass(frozen=True)
class Cifar100(Cifar10):
    """CIFAR-100: images as in CIFAR-10, in 100 classes; the options are those of CIFAR-10."""

    num_classes: ClassVar[int] = 100
    class_names: ClassVar[tuple[str, ...]] = names.CIFAR100
    files: ClassVar[tuple[str, ...]] = ("cifar-100-python",)
    _torchvision_name: ClassVar[str] = "CIFAR100"


@dataclass(frozen=True)
class Folder(Kept):
    """Image files in one folder per split and class, such as ImageNet-100.

    Attributes:
        root: folder of the two splits.
        size: height and width in pixels: the shorter side is resized to it, then the centre is cut.
        classes: names of the class folders; null uses `class_list`.
        class_list: text file with one class folder per line; lines that begin with # are
            comments. Empty uses all folders of the training split. The usual choice for
            ImageNet-100 is imagenet100.txt of github.com/HobbitLong/CMC (Tian et al.).
        train: folder of the training split, within `root`.
        test: folder of the test split, within `root`.
        train_images: number to keep, in the proportions of the classes; null keeps all.
        test_images: the same for the test split.
        store: what random crops of a training image can see. `centre_crop`: its central square.
            `resize`: all of it, with both sides resized to `size`, which changes its proportions.
            Test images are central squares.
        shard_images: images in a file of the prepared data set. Several files are decoded by all
            cores, a file by each, and an interrupted preparation resumes. null: what 1 GiB holds,
            7,133 images of 224 pixels.
        accuracy: as in `digits`.
    """

    root: str
    size: int = option(224, ge=1)
    classes: tuple[str, ...] | None = None
    class_list: str = ""
    train: str = "train"
    test: str = "val"
    train_images: int | None = option(None, ge=1)
    test_images: int | None = option(None, ge=1)
    store: Literal["centre_crop", "resize"] = "centre_crop"
    shard_images: int | None = option(None, ge=1)
    accuracy: Accuracy = reporting("top1")

    def __post_init__(self) -> None:
        """Refuse two sources of classes, fewer than two, and a class that occurs twice."""
        if self.classes is not None:
            if self.class_list:
                raise DataError("classes and class_list: give only one of them")
            pictures.check_names(self.classes, "classes")

    @property
    def num_classes(self) -> int | None:
        """Return the number of `classes`."""
        return None if self.classes is None else len(self.classes)

    @property
    @plan_only
    def files(self) -> tuple[str, ...]:
        """Return the folders of both splits."""
        return self.train, self.test

    def prepare(self, create: Create) -> dict[str, Any]:
        """Decode and write all images."""
        root = Path(self.root).expanduser()
        train, test = root / self.train, root / self.test
        classes = self.classes or pictures.class_names(self.class_list, train, test)
        counts, hashes = {}, {}
        for split, folder in (("train", self.train), ("test", self.test)):
            files, labels = pictures.find_images(root / folder, classes)
            squeezed = split == "train" and self.store == "resize"
            counts[split], sha256 = shards.fill(
                create,
                split,
                files,
                labels,
                folder=root / folder,
                size=self.size,
                count=self.requested[split],
                frame=framing.squeeze if squeezed else framing.centre,
                shard=self.shard_images,
            )
            hashes[folder] = f"sha256:{sha256}"
        return {**counts, "classes": len(classes), "size": self.size, "source_hashes": hashes}


DATASETS: dict[str, type[Dataset]] = {
    "digits": Digits,
    "cifar10": Cifar10,
    "cifar100": Cifar100,
    "folder": Folder,
    "evaluation_folder": EvaluationFolder,
    "subset": Subset,
    "flowers102": Flowers102,
    "pets": Pets,
    "textures": Textures,
    "aircraft": Aircraft,
    "food101": Food101,
    "scenes_segmentation": ScenesSegmentation,
    "scenes_detection": ScenesDetection,
    "camvid": Camvid,
    "voc_segmentation": VocSegmentation,
    "segmentation_folder": SegmentationFolder,
    "voc_detection": VocDetection,
    "coco_detection": CocoDetection,
}
