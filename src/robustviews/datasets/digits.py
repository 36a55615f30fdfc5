"""Handwritten digits: the data set that needs no files."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from robustviews.datasets.protocol import Accuracy
from robustviews.datasets.splits import Create, DataError, Images, fill, stratified
from robustviews.options import option, plan_only, reporting

_DIGITS = 1797  # images in both splits
# Hash of the 1,797 digits of scikit-learn 1.9 and their labels, as uint8 and int64.
_DIGITS_SHA256 = "65e5b4619795efb40c1082f4c350c049e4ad552200d369b6ae99e21eef5e72c5"


@dataclass(frozen=True)
class Digits:
    """Handwritten digits: the 1,797 images of 8x8 pixels in scikit-learn; no download.

    Attributes:
        size: height and width after bilinear enlargement, in pixels.
        test: images in the test split, in the proportions of the classes; the rest is for training.
        accuracy: `top1`, or `mean_per_class`: the mean over classes of the share of right images.
    """

    size: int = option(32, ge=8)
    test: int = option(597, ge=1, le=1000)
    accuracy: Accuracy = reporting("top1")
    num_classes: ClassVar[int] = 10
    class_names: ClassVar[tuple[str, ...]] = tuple("0123456789")
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


def _enlarge(images: Images, size: int) -> Images:
    """Enlarge gray images (N, 8, 8) in 0 to 16 bilinearly to (N, 3, size, size) in 0 to 255."""
    old = images.shape[-1]
    centre = np.clip((np.arange(size) + 0.5) * old / size - 0.5, 0, old - 1)
    weights = np.clip(1 - np.abs(centre[:, None] - np.arange(old)), 0, None)  # (size, 8)
    gray = np.rint(weights @ (images * (255 / 16)) @ weights.T).astype(np.uint8)
    return np.repeat(gray[:, None], 3, axis=1)
