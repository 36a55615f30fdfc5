"""How large a data set is, as far as its record or its options say."""

from __future__ import annotations

from dataclasses import dataclass

from robustviews import artifacts
from robustviews.datasets import Cifar10, Digits
from robustviews.study import folders
from robustviews.study.schema import Study

_DIGITS = 1797  # images, of both splits


@dataclass(frozen=True)
class Shape:
    """A data set: images of its splits, classes, and the side of an image in pixels."""

    train: int
    test: int
    classes: int
    size: int

    @property
    def image(self) -> int:
        """Bytes of an image."""
        return 3 * self.size**2


def shape_of(study: Study, dataset: str) -> Shape | None:
    """Return the shape of a data set by its record or its options; None when neither says it."""
    summary = folders.data_folder(study, dataset) / "summary.json"
    options = study.datasets[dataset]
    if summary.is_file():
        said = artifacts.read_json(summary)
        return Shape(said["train"], said["test"], said["classes"], said["size"])
    if isinstance(options, Digits):
        return Shape(_DIGITS - options.test, options.test, options.num_classes, options.size)
    if isinstance(options, Cifar10):
        train, test = options.train_images or 50_000, options.test_images or 10_000
        return Shape(train, test, options.num_classes, options.size)
    return None
