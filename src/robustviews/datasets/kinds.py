"""Kinds of data sets: how each is read, verified, split, and stored as plain arrays.

A prepared data set is a folder of {train,test}_images.npy, (N, 3, S, S) uint8, and
{train,test}_labels.npy, (N,) int64.
"""

from __future__ import annotations

import difflib
import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np

from robustviews.datasets.sources import cifar_trouble, source_folder
from robustviews.datasets.splits import Create, DataError, Images, Labels, choose, fill, stratified
from robustviews.options import option, plan_only

_DIGITS = 1797  # images in both splits
# Hash of the 1,797 digits of scikit-learn 1.9 and their labels, as uint8 and int64.
_DIGITS_SHA256 = "65e5b4619795efb40c1082f4c350c049e4ad552200d369b6ae99e21eef5e72c5"


class Dataset(Protocol):
    """What a data set must offer; a row in `DATASETS` makes it a name for study files."""

    @property
    def size(self) -> int:
        """Height and width of a prepared image, in pixels."""

    @property
    def num_classes(self) -> int | None:
        """Number of classes; None if only the files show it."""

    @property
    def counts(self) -> tuple[int, int] | None:
        """Numbers of training and test images; None if only the files show them."""

    @property
    def root(self) -> str | None:
        """Folder of the source files; empty for the default folder, None if no files are needed."""

    @property
    def files(self) -> tuple[str, ...]:
        """Folders that must exist in the source folder."""

    def prepare(self, create: Create) -> dict[str, Any]:
        """Fill {train,test}_images and {train,test}_labels; after a DataError they are invalid.

        Returns:
            `train` and `test` (numbers of images), `classes`, `size`, and `source_hashes` by name.
        """


@dataclass(frozen=True)
class Digits:
    """Handwritten digits: the 1,797 images of 8x8 pixels in scikit-learn; no download.

    Attributes:
        size: height and width after bilinear enlargement, in pixels.
        test: images in the test split, in the proportions of the classes; the rest is for training.
    """

    size: int = option(32, ge=8)
    test: int = option(597, ge=1, le=1000)
    num_classes: ClassVar[int] = 10
    root: ClassVar[None] = None
    files: ClassVar[tuple[str, ...]] = ()

    @property
    @plan_only
    def counts(self) -> tuple[int, int]:
        """Return the sizes of the training and the test split."""
        return _DIGITS - self.test, self.test

    def prepare(self, create: Create) -> dict[str, Any]:
        """Enlarge, split and write the digits."""
        from sklearn.datasets import load_digits

        pixels, labels = load_digits(return_X_y=True)
        pixels, labels = pixels.astype(np.uint8), labels.astype(np.int64)
        sha256 = hashlib.sha256(pixels.tobytes() + labels.tobytes()).hexdigest()
        if sha256 != _DIGITS_SHA256:
            fix = "type: pip install --force-reinstall --no-deps scikit-learn"
            raise DataError(f"digits: expected sha256 {_DIGITS_SHA256}, found {sha256}; {fix}")
        images = _enlarge(pixels.reshape(-1, 8, 8), self.size)
        test = stratified(labels, self.test)
        train = np.setdiff1d(np.arange(len(labels)), test)
        return {
            "train": fill(create, "train", images[train], labels[train], size=self.size),
            "test": fill(create, "test", images[test], labels[test], size=self.size),
            "classes": self.num_classes,
            "size": self.size,
            "source_hashes": {"digits": f"sha256:{sha256}"},
        }


@dataclass(frozen=True)
class Cifar10:
    """CIFAR-10: 50,000 training and 10,000 test images of 32x32 pixels in 10 classes.

    Attributes:
        root: folder that holds `cifar-10-batches-py` (`cifar-100-python`). Empty: the folder in the
            environment variable ROBUSTVIEWS_DATA, else `data/raw`, downloaded if missing.
        train_images: number to keep, in the proportions of the classes; null keeps all.
        test_images: the same for the test split.
    """

    root: str = ""
    train_images: int | None = option(None, ge=1, le=50_000)
    test_images: int | None = option(None, ge=1, le=10_000)
    size: ClassVar[int] = 32
    num_classes: ClassVar[int] = 10
    files: ClassVar[tuple[str, ...]] = ("cifar-10-batches-py",)
    _torchvision_name: ClassVar[str] = "CIFAR10"

    @property
    @plan_only
    def counts(self) -> tuple[int, int]:
        """Return the numbers of images that are kept."""
        return self.train_images or 50_000, self.test_images or 10_000

    def prepare(self, create: Create) -> dict[str, Any]:
        """Verify the files with torchvision, choose and write."""
        from torchvision import datasets

        kind = getattr(datasets, self._torchvision_name)
        root, downloads = source_folder(self.root)
        assert root is not None
        requested = {"train": self.train_images, "test": self.test_images}
        counts = {}
        for split, count in requested.items():
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
    files: ClassVar[tuple[str, ...]] = ("cifar-100-python",)
    _torchvision_name: ClassVar[str] = "CIFAR100"


@dataclass(frozen=True)
class Folder:
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
    """

    root: str
    size: int = option(224, ge=1)
    classes: tuple[str, ...] | None = None
    class_list: str = ""
    train: str = "train"
    test: str = "val"
    train_images: int | None = option(None, ge=1)
    test_images: int | None = option(None, ge=1)

    def __post_init__(self) -> None:
        """Refuse two sources of classes, an empty list, and a class that occurs twice."""
        if self.classes is not None:
            if self.class_list:
                raise DataError("classes and class_list: give only one of them")
            _check_names(self.classes, "classes")

    @property
    def num_classes(self) -> int | None:
        """Return the number of `classes`."""
        return None if self.classes is None else len(self.classes)

    @property
    @plan_only
    def counts(self) -> tuple[int, int] | None:
        """Return the numbers of images that are kept, if the study states both."""
        if self.train_images is None or self.test_images is None:
            return None
        return self.train_images, self.test_images

    @property
    @plan_only
    def files(self) -> tuple[str, ...]:
        """Return the folders of both splits."""
        return self.train, self.test

    def prepare(self, create: Create) -> dict[str, Any]:
        """Decode and write all images."""
        root = Path(self.root).expanduser()
        names = self.classes or _class_names(self.class_list, root / self.train)
        requested = {"train": self.train_images, "test": self.test_images}
        counts, hashes = {}, {}
        for split, folder in (("train", self.train), ("test", self.test)):
            files, labels = _find_images(root / folder, names)
            chosen = choose(labels, requested[split], f"{root / folder}: {split}_images")
            source = hashlib.sha256()
            images = (_decode(files[number], self.size, source) for number in chosen)
            counts[split] = fill(create, split, images, labels[chosen], size=self.size)
            hashes[folder] = f"sha256:{source.hexdigest()}"
        return {**counts, "classes": len(names), "size": self.size, "source_hashes": hashes}


def _enlarge(images: Images, size: int) -> Images:
    """Enlarge gray images (N, 8, 8) in 0 to 16 bilinearly to (N, 3, size, size) in 0 to 255."""
    old = images.shape[-1]
    centre = np.clip((np.arange(size) + 0.5) * old / size - 0.5, 0, old - 1)
    weights = np.clip(1 - np.abs(centre[:, None] - np.arange(old)), 0, None)  # (size, 8)
    gray = np.rint(weights @ (images * (255 / 16)) @ weights.T).astype(np.uint8)
    return np.repeat(gray[:, None], 3, axis=1)


def _class_names(class_list: str, train: Path) -> Sequence[str]:
    """Return the classes in a list file; without a file, the folders of the training split."""
    if not class_list:
        return _subfolders(train)
    path = Path(class_list).expanduser()
    if not path.is_file():
        raise DataError(f"{path}: no such class list; correct `class_list`")
    lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    names = [line for line in lines if line and not line.startswith("#")]
    _check_names(names, str(path))
    return names


def _check_names(names: Sequence[str], where: str) -> None:
    """Refuse a list of classes that is empty or contains a name twice."""
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated or not names:
        mistake = f"`{repeated[0]}` twice" if repeated else "none"
        raise DataError(f"{where}: expected class folders, each once, found {mistake}; correct it")


def _subfolders(folder: Path) -> list[str]:
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; correct `root`, `train` or `test`")
    names = sorted(path.name for path in folder.iterdir() if path.is_dir())
    if not names:
        raise DataError(f"{folder}: expected a folder for each class, found none; correct `root`")
    return names


def _find_images(folder: Path, names: Sequence[str]) -> tuple[list[Path], Labels]:
    """Return the files of the named classes, without hidden files, and their labels."""
    folders, files, labels = _subfolders(folder), [], []
    for label, name in enumerate(names):
        if name not in folders:
            close = difflib.get_close_matches(name, folders, n=1, cutoff=0)
            raise DataError(f"{folder / name}: no such class folder; the nearest is `{close[0]}`")
        images = sorted(path for path in (folder / name).rglob("[!.]*") if path.is_file())
        if not images:
            raise DataError(f"{folder / name}: no image in it; add some or leave the class out")
        files += images
        labels += [label] * len(images)
    return files, np.array(labels, dtype=np.int64)


def _decode(path: Path, size: int, source: Any) -> Images:  # noqa: ANN401  # hashlib has no public type
    """Return the central square of an image file, (3, size, size), and hash the file."""
    from PIL import Image

    content = path.read_bytes()
    source.update(f"{path.parent.name}/{path.name}:{len(content)}:".encode() + content)
    try:
        with Image.open(io.BytesIO(content)) as file:
            image = file.convert("RGB")
    except (OSError, SyntaxError, ValueError) as error:
        raise DataError(f"{path}: damaged, or no image ({error}); replace or remove it") from None
    width, height = (max(size, round(side * size / min(image.size))) for side in image.size)
    left, top = (width - size) // 2, (height - size) // 2
    image = image.resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(image.crop((left, top, left + size, top + size))).transpose(2, 0, 1)


DATASETS: dict[str, type[Dataset]] = {
    "digits": Digits,
    "cifar10": Cifar10,
    "cifar100": Cifar100,
    "folder": Folder,
}
