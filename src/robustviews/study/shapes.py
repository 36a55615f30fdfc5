"""The shape of a data set, from its summary or its options."""

from __future__ import annotations

from dataclasses import dataclass

from robustviews import artifacts
from robustviews.artifacts import ArtifactError
from robustviews.study import folders
from robustviews.study.schema import Study
from robustviews.tasks.classification import CLASSIFICATION
from robustviews.tasks.detection import DETECTION
from robustviews.tasks.protocol import Task
from robustviews.tasks.segmentation import SEGMENTATION
from robustviews.tasks.table import task_of

_STATED = ("train", "test", "classes", "size")  # in a summary
_OBJECTS = 10  # boxes of an image, of which no data set states how many there are at most


@dataclass(frozen=True)
class Shape:
    """Shape of a data set: images per split, classes, the side of an image in pixels, its task."""

    train: int
    test: int
    classes: int
    size: int
    task: Task = CLASSIFICATION

    @property
    def image(self) -> int:
        """Bytes of an image."""
        return 3 * self.size**2

    @property
    def example(self) -> int:
        """Bytes of an image with its label."""
        if self.task is SEGMENTATION:
            return self.image + self.size**2
        return self.image + (20 * _OBJECTS if self.task is DETECTION else 8)


def shape_of(study: Study, dataset: str) -> Shape | None:
    """Return the shape of a data set, or None if neither summary nor options state it."""
    summary = folders.data_folder(study, dataset) / folders.SUMMARY
    options = study.datasets[dataset]
    if summary.is_file():
        stated = artifacts.read_json(summary)
        found = [stated.get(name) for name in _STATED] if isinstance(stated, dict) else []
        least = {"train": 0}  # a data set may have test images only
        values = [
            value
            for name, value in zip(_STATED, found, strict=False)
            if isinstance(value, int) and value >= least.get(name, 1)
        ]
        if len(values) < len(_STATED):
            text = f"expected the numbers {', '.join(_STATED)}; delete {summary.parent}"
            raise ArtifactError(f"{summary}: damaged ({text}), then make it with:", summary)
        train, test, classes, size = values
        return Shape(train, test, classes, size, task_of(options))
    if options.counts is None or options.num_classes is None:
        return None
    return Shape(*options.counts, options.num_classes, options.size, task_of(options))
