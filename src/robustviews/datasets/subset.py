"""Some classes of another data set, such as one half for pretraining and the other for transfer."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, cast

import numpy as np
from numpy.lib.format import open_memmap
from numpy.typing import NDArray

from robustviews.datasets import shards
from robustviews.datasets.evaluation import EvaluationFolder
from robustviews.datasets.protocol import Accuracy, Dataset
from robustviews.datasets.splits import Create, DataError, open_split
from robustviews.machine.humanize import some
from robustviews.options import option, reporting


@dataclass(frozen=True)
class Subset:
    """The images of some classes of a data set; labels count from 0 in the order of `classes`.

    Attributes:
        of: the data set. Numbers of images that it keeps are numbers before the choice of classes.
        classes: names, or labels in the data set.
        accuracy: as in `digits`. Default: as the data set says.
    """

    of: Dataset
    classes: tuple[int | str, ...] = option(..., ge=0)
    accuracy: Accuracy = reporting(None)
    counts: ClassVar[None] = None

    def __post_init__(self) -> None:
        """Refuse a data set with `classes` of its own, and classes that it does not have."""
        if getattr(self.of, "task", "classification") != "classification":
            raise DataError("of: its images have no class, their pixels or objects have")
        if isinstance(self.of, EvaluationFolder):
            raise DataError("of: has only test images; leave the other classes out of its `labels`")
        if hasattr(self.of, "classes"):
            raise DataError("of: this kind has an option `classes`; choose the classes there")
        stated = cast("Accuracy | None", self.accuracy)  # None, the default, in no study file
        object.__setattr__(self, "accuracy", stated or self.of.accuracy)
        count = self.of.num_classes
        if count is not None:
            _numbers(self.classes, getattr(self.of, "class_names", None), count)

    @property
    def size(self) -> int:
        """Return the size of the images in the data set."""
        return self.of.size

    @property
    def num_classes(self) -> int:
        """Return the number of chosen classes."""
        return len(self.classes)

    @property
    def root(self) -> str | None:
        """Return the folder of the data set."""
        return self.of.root

    @property
    def files(self) -> tuple[str, ...]:
        """Return the folders of the data set."""
        return self.of.files

    def prepare(self, create: Create) -> dict[str, Any]:
        """Prepare the whole data set in temporary files, then write the chosen classes."""
        with tempfile.TemporaryDirectory() as folder:
            whole = Path(folder)

            def keep(name: str, shape: tuple[int, ...], dtype: type[np.generic]) -> NDArray[Any]:
                path = whole / f"{name}.npy"
                return open_memmap(path, mode="w+", dtype=dtype, shape=shape)

            summary = self.of.prepare(keep)
            return self._write(create, whole, summary)

    def _write(self, create: Create, whole: Path, summary: dict[str, Any]) -> dict[str, Any]:
        """Write the chosen classes of a prepared data set."""
        names = summary.get("class_names") or getattr(self.of, "class_names", None)
        numbers = _numbers(self.classes, names, summary["classes"])
        counts = {}
        for split in ("train", "test"):
            images, labels = open_split(whole, split)
            rows = np.flatnonzero(np.isin(labels, numbers))
            new = np.full(summary["classes"], -1, dtype=np.int64)
            new[numbers] = np.arange(len(numbers))
            renumbered = new[labels[rows]]
            empty = sorted(set(range(len(numbers))) - set(renumbered.tolist()))
            if empty:
                missing = some([str(self.classes[number]) for number in empty])
                raise DataError(f"classes: the {split} split has no image of {missing}")
            counts[split] = shards.copy(create, split, images, rows, labels=renumbered)
        return {
            **counts,
            "classes": len(numbers),
            "class_names": [names[number] if names else str(number) for number in numbers],
            "size": self.size,
            "source_hashes": summary["source_hashes"],
        }


def _numbers(classes: Sequence[int | str], names: Sequence[str] | None, count: int) -> list[int]:
    """Return the labels of classes.

    Args:
        classes: names, or labels.
        names: name of each class; None if only the files have them.
        count: number of classes.

    Raises:
        DataError: a class does not exist or occurs twice, or there are fewer than two.
    """
    known = {name: number for number, name in enumerate(names or ())}
    numbers = []
    for one in classes:
        number = known.get(one, -1) if isinstance(one, str) else one
        if isinstance(one, str) and names is None:
            continue  # the files decide
        if not 0 <= number < count:
            named = f" or one of {some(list(known))}" if known else ""
            raise DataError(f"classes: expected a label below {count}{named}, found {one!r}")
        numbers.append(number)
    twice = sorted({number for number in numbers if numbers.count(number) > 1})
    if twice or len(classes) < 2:
        found = f"class {twice[0]} twice" if twice else f"{len(classes)}"
        raise DataError(f"classes: expected at least 2, each once, found {found}")
    return numbers
