"""Scenes of digits: masks and boxes are exact, and their bytes never change."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from robustviews.datasets import DATASETS, DataError, Digits, scenes
from tests.unit.datasets.preparing import prepared

SEGMENTATION, DETECTION = DATASETS["scenes_segmentation"], DATASETS["scenes_detection"]
FEW = {"train": 40, "test": 30}
IMAGES = {"train_images": "b72387fe3da6c959", "test_images": "4cd7d1f980ae3d61"}  # of both tasks
SHA256 = {  # with numpy 2.1 and scikit-learn 1.5, and with numpy 2.4 and scikit-learn 1.9
    SEGMENTATION: {"train_labels": "41f2858fb33f9c84", "test_labels": "68ce9898702ea085"},
    DETECTION: {"train_labels": "5f6a18d08e988ff3", "test_labels": "6a53d60532b54ecc"},
}


def test_the_bytes_of_the_default_scenes_are_known():
    for kind, sums in SHA256.items():
        _, arrays = prepared(kind())
        actual = {name: hashlib.sha256(array).hexdigest()[:16] for name, array in arrays.items()}
        assert actual == IMAGES | sums


@pytest.mark.parametrize("size", [32, 48])
def test_masks_and_boxes_agree_exactly(size):
    options = {"size": size, "classes": (3, 8, 0), **FEW}
    (_, pixels), (_, boxes) = prepared(SEGMENTATION(**options)), prepared(DETECTION(**options))
    counts = set()
    for split in FEW:
        images, masks = pixels[f"{split}_images"], pixels[f"{split}_labels"]
        np.testing.assert_array_equal(images, boxes[f"{split}_images"])
        np.testing.assert_array_equal(masks > 0, images[:, 0] > 0.35 * 255)
        for mask, objects in zip(masks, boxes[f"{split}_labels"], strict=True):
            found = objects[objects[:, 4] >= 0]
            counts.add(len(found))
            left = mask.copy()
            for x1, y1, x2, y2, label in found.astype(int):
                part = left[y1:y2, x1:x2] == label + 1
                assert part[[0, -1]].any(axis=1).all()
                assert part[:, [0, -1]].any(axis=0).all()
                assert 11 / 2 <= y2 - y1 <= 16
                left[y1:y2, x1:x2][part] = 0
            assert not left.any(), "each pixel of a digit lies in its box"
    assert counts == {1, 2, 3, 4} if size == 48 else counts <= {1, 2, 3, 4}


def test_each_split_shows_its_own_digits(monkeypatch):
    shown = []
    compose = scenes._compose
    monkeypatch.setattr(
        scenes, "_compose", lambda digits, *others: shown.append(digits) or compose(digits, *others)
    )
    prepared(SEGMENTATION(**FEW))
    _, digits = prepared(Digits(size=8, test=997))
    pool = {split: {one.tobytes() for one in digits[f"{split}_images"][:, 0]} for split in FEW}
    used = {one.tobytes() for each in shown[: FEW["train"]] for one in each}
    tested = {one.tobytes() for each in shown[FEW["train"] :] for one in each}
    assert tested <= pool["test"]
    assert used & pool["train"]
    assert not used & tested


def test_digits_are_enlarged_as_torch_interpolates():
    import torch

    digit = np.random.default_rng(0).integers(0, 256, (8, 8), dtype=np.uint8)
    for side in range(11, 17):
        given = torch.tensor(digit[None, None], dtype=torch.float64)
        expected = torch.nn.functional.interpolate(given, (side, side), mode="bilinear")[0, 0]
        assert np.abs(scenes._enlarge(digit, side) - expected.numpy()).max() <= 0.5 + 1e-9


def test_scenes_do_not_depend_on_their_number_but_on_the_seed():
    few, more, other = (
        prepared(SEGMENTATION(**{**FEW, **options}))[1]["train_images"]
        for options in ({}, {"train": 60}, {"seed": 1})
    )
    np.testing.assert_array_equal(few, more[: len(few)])
    assert (few != other).any(axis=(1, 2, 3)).mean() > 0.9


def test_names_and_numbers_of_classes():
    options = {"classes": (7, 2), **FEW}
    assert prepared(SEGMENTATION(**options))[0]["class_names"] == ["ground", "7", "2"]
    summary, arrays = prepared(DETECTION(**options))
    assert (summary["class_names"], summary["classes"]) == (["7", "2"], 2)
    assert set(arrays["train_labels"][..., 4].ravel()) == {-1, 0, 1}


@pytest.mark.parametrize("classes", [(), (3,), (3, 3)])
def test_too_few_or_repeated_classes_are_refused(classes):
    with pytest.raises(DataError, match="expected at least 2 digits, each once"):
        SEGMENTATION(classes=classes)
