"""Image files for a test alone: nothing is trained on them."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from robustviews.datasets import framing, pictures, shards, splits
from robustviews.datasets.protocol import Accuracy
from robustviews.datasets.splits import Create, DataError, Labels, fill, text_lines
from robustviews.machine.humanize import some
from robustviews.options import option, plan_only, reporting


@dataclass(frozen=True)
class EvaluationFolder:
    """Image files with labels and without a training split, such as ImageNet's validation images.

    Attributes:
        root: folder of the image files.
        num_classes: number of classes, of which the files may show a part.
        labels: CSV file within `root`. Empty: `root` has one folder per class, labelled in the
            order of their names.
        columns: columns of the CSV that hold the path of a file, within `root`, and its label, from
            0; other columns are ignored.
        classes_of: data set of the study with the same classes, on which probes are trained. Empty:
            only networks with a classifier of their own are evaluated.
        size: height and width in pixels.
        resize: length to which the shorter side is resized before the centre is cut, as in
            torchvision's presets for ImageNet.
        test_images: number to keep, in the proportions of the classes; null keeps all.
        accuracy: as in `digits`.
    """

    root: str
    num_classes: int = option(..., ge=2)
    labels: str = ""
    columns: tuple[str, str] = ("file", "label")
    classes_of: str = field(default="", metadata={"decides": False})  # of jobs, not of the pixels
    size: int = option(224, ge=1)
    resize: int = option(256, ge=1)
    test_images: int | None = option(None, ge=1)
    accuracy: Accuracy = reporting("top1")

    def __post_init__(self) -> None:
        """Refuse a square that is larger than the picture from which it is cut."""
        if self.resize < self.size:
            raise DataError(f"resize: expected at least size, {self.size}, found {self.resize}")

    @property
    @plan_only
    def counts(self) -> tuple[int, int] | None:
        """Return no training images, and the test images that are kept, if the study states it."""
        return None if self.test_images is None else (0, self.test_images)

    @property
    @plan_only
    def files(self) -> tuple[str, ...]:
        """Return the folder itself."""
        return (".",)

    def prepare(self, create: Create) -> dict[str, Any]:
        """Decode and write all images; the training split is empty."""
        root, hashes = Path(self.root).expanduser(), dict[str, str]()
        if self.labels:
            content = splits.content(root / self.labels, "correct `labels`")
            hashes[self.labels] = f"sha256:{hashlib.sha256(content).hexdigest()}"
            files, labels = _listed(root, self.labels, content, self.columns, self.num_classes)
        else:
            names = pictures.class_names("", root, root)
            if len(names) != self.num_classes:
                expected = f"expected {self.num_classes} class folders (num_classes)"
                fix = "correct it, or name the label of each file in a CSV: `labels`"
                raise DataError(f"{root}: {expected}, found {len(names)}; {fix}")
            files, labels = pictures.find_images(root, names)
        test, source = shards.fill(
            create,
            "test",
            files,
            labels,
            folder=root,
            size=self.size,
            count=self.test_images,
            frame=partial(framing.resize_then_centre, resize=self.resize),
        )
        train = fill(create, "train", [], labels[:0], size=self.size)
        hashes["test"] = f"sha256:{source}"
        counts = {"train": train, "test": test, "classes": self.num_classes, "size": self.size}
        return {**counts, "source_hashes": hashes}


def _listed(
    root: Path, name: str, content: bytes, columns: tuple[str, str], classes: int
) -> tuple[list[Path], Labels]:
    """Return the files that a CSV lists, in its order, and their labels.

    Raises:
        DataError: with all lines that are wrong.
    """
    files, labels, problems = dict[str, int](), list[int](), list[str]()
    for line, file, label in _rows(root / name, content, columns):
        reason = _file_reason(root, file, files)
        if reason:
            problems.append(f"line {line}, column {columns[0]}: {reason}")
        if not (label.isascii() and label.isdigit() and int(label) < classes):
            expected = f"expected 0 to {classes - 1}, found {label!r}"
            problems.append(f"line {line}, column {columns[1]}: {expected}")
            continue
        files.setdefault(file, line)
        labels.append(int(label))
    if not files and not problems:
        problems = ["expected a line for each file, found none"]
    if problems:
        raise DataError(some([f"{root / name}: {problem}" for problem in problems], between="\n"))
    return [root / file for file in files], np.array(labels, dtype=np.int64)


def _file_reason(root: Path, file: str, earlier: dict[str, int]) -> str:
    """Return what is wrong with a path in a CSV; empty if nothing is."""
    if file in earlier:
        return f"{file} is on line {earlier[file]}, too; remove one of both"
    if Path(file).is_absolute() or ".." in Path(file).parts:
        return f"expected a path within {root}, found {file!r}"
    if not (root / file).is_file():
        return f"{root / file}: no such file; correct the path or remove the line"
    return ""


def _rows(path: Path, content: bytes, columns: tuple[str, str]) -> Iterator[tuple[int, str, str]]:
    """Yield the number and the values of two columns of each line below the header of a CSV."""
    reader = csv.reader(text_lines(path, content), strict=True)
    try:
        header = next(reader, [])
        missing = [name for name in columns if header.count(name) != 1]
        if missing:
            expected = f"expected one column {missing[0]}, found {','.join(header) or 'nothing'}"
            raise DataError(f"{path}: line 1: {expected}; correct it or the option `columns`")
        for row in reader:
            if row and len(row) != len(header):
                expected = f"expected {len(header)} columns, found {len(row)}"
                raise DataError(f"{path}: line {reader.line_num}, column {len(row)}: {expected}")
            if row:
                file, label = (row[header.index(name)].strip() for name in columns)
                yield reader.line_num, file, label
    except csv.Error as error:
        raise DataError(f"{path}: line {reader.line_num}: {error}; correct the line") from None
