"""Subsets of classes: the images of these classes alone, with labels from 0."""

from __future__ import annotations

import numpy as np
import pytest

from robustviews.datasets import (
    Cifar10,
    Cifar100,
    DataError,
    Digits,
    EvaluationFolder,
    Folder,
    Pets,
    Subset,
    splits,
)
from tests.unit.datasets.test_photographs import prepared

DIGITS = Digits(size=8, test=200)


def test_a_subset_has_the_images_of_its_classes_in_their_order_and_splits():
    _, whole = prepared(DIGITS)
    summary, arrays = prepared(Subset(DIGITS, (7, 2, "5")))
    assert summary["class_names"] == ["7", "2", "5"]
    assert summary["classes"] == 3
    for split in ("train", "test"):
        old = whole[f"{split}_labels"]
        chosen = np.isin(old, (7, 2, 5))
        assert np.array_equal(arrays[f"{split}_images"], whole[f"{split}_images"][chosen])
        assert np.array_equal(np.array([7, 2, 5])[arrays[f"{split}_labels"]], old[chosen])
        assert summary[split] == chosen.sum()


def test_a_subset_that_does_not_fit_a_file_goes_on_in_others(monkeypatch):
    _, whole = prepared(Subset(DIGITS, (7, 2)))
    monkeypatch.setattr(splits, "FILE_BYTES", 100 * 3 * 8**2)
    summary, arrays = prepared(Subset(DIGITS, (7, 2)))
    names = sorted(name for name in arrays if name.startswith("train_images-"))
    images = np.concatenate([arrays["train_images"], *(arrays[name] for name in names)])
    assert [len(arrays[name]) for name in names] == [100, 100, summary["train"] - 300]
    assert np.array_equal(images, whole["train_images"])


def test_two_halves_are_the_whole():
    halves = tuple(range(5)), tuple(range(5, 10))
    sizes = [prepared(Subset(DIGITS, classes))[0]["train"] for classes in halves]
    assert sum(sizes) == prepared(DIGITS)[0]["train"]


@pytest.mark.parametrize(
    ("of", "classes", "message"),
    [
        (DIGITS, (1, 10), "expected a label below 10 or one of 0, 1, .* found 10"),
        (Cifar10(), ("cat", "cow"), "expected a label below 10 or one of airplane, .* found 'cow'"),
        (DIGITS, (3,), "at least 2, each once, found 1"),
        (DIGITS, (3, "3"), "at least 2, each once, found class 3 twice"),
        (Folder("x"), ("a", "b"), "this kind has an option `classes`; choose the classes there"),
        (Subset(DIGITS, (1, 2)), (0, 1), "this kind has an option `classes`"),
        (EvaluationFolder("x", num_classes=10), (0, 1), "has only test images"),
    ],
)
def test_wrong_classes_are_refused_before_anything_runs(of, classes, message):
    with pytest.raises(DataError, match=message):
        Subset(of, classes)


def test_a_subset_is_scored_as_its_data_set_unless_it_says_otherwise():
    assert Subset(Pets(), (0, 1)).accuracy == "mean_per_class"
    assert Subset(Pets(), (0, 1), accuracy="top1").accuracy == "top1"


def test_names_of_classes_are_those_of_the_official_files():
    assert Cifar10.class_names[3] == "cat"
    assert len(set(Cifar100.class_names)) == Cifar100.num_classes == 100
    assert list(Cifar100.class_names) == sorted(Cifar100.class_names)
