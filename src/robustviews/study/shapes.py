"""The shape of a data set, from its summary or its options."""

from __future__ import annotations

from dataclasses import dataclass, fields

from robustviews import artifacts
from robustviews.artifacts import ArtifactError
from robustviews.study import folders
from robustviews.study.schema import Study


@dataclass(frozen=True)
class Shape:
    """Shape of a data set: images per split, classes, and the side of an image in pixels."""

    train: int
    test: int
    classes: int
    size: int

    @property
    def image(self) -> int:
        """Bytes of an image."""
        return 3 * self.size**2


def shape_of(study: Study, dataset: str) -> Shape | None:
    """Return the shape of a data set, or None if neither summary nor options state it."""
    summary = folders.data_folder(study, dataset) / folders.SUMMARY
    options = study.datasets[dataset]
    if summary.is_file():
        stated = artifacts.read_json(summary)
        names = [field.name for field in fields(Shape)]
        found = [stated.get(name) for name in names] if isinstance(stated, dict) else []
        least = {"train": 0}  # a data set may have test images only
        values = [
            value
            for name, value in zip(names, found, strict=False)
            if isinstance(value, int) and value >= least.get(name, 1)
        ]
        if len(values) < len(names):
            text = f"expected the numbers {', '.join(names)}; delete {summary.parent}"
            raise ArtifactError(f"{summary}: damaged ({text}), then make it with:", summary)
        return Shape(*values)
    if options.counts is None or options.num_classes is None:
        return None
    return Shape(*options.counts, options.num_classes, options.size)
