"""Photographs of torchvision: official splits, every image, and errors that name the folder."""

from __future__ import annotations

import numpy as np
import pytest

from robustviews.datasets import DATASETS, DataError, Folder
from tests.unit.datasets.photographs import WRITERS, fake

kinds = pytest.mark.parametrize("kind", WRITERS)


def prepared(dataset):
    arrays = {}

    def create(name, shape, dtype):
        arrays[name] = np.empty(shape, dtype)
        return arrays[name]

    return dataset.prepare(create), arrays


@kinds
def test_validation_images_are_training_images_and_test_images_are_not(kind, tmp_path, monkeypatch):
    _, arrays = prepared(fake(kind, tmp_path, monkeypatch))
    count = DATASETS[kind].num_classes
    parts = {"flowers102": 2, "textures": 2}.get(kind, 1)
    expected = np.tile(np.arange(count), parts)
    assert np.array_equal(arrays["train_labels"], expected)
    assert np.array_equal(arrays["test_labels"], np.arange(count))
    # The red of a picture is its number: the pictures of the test come last.
    reds = arrays["test_images"][:, 0].mean(axis=(1, 2))
    wanted = (np.arange(count) + parts * count + (kind == "flowers102")) % 256
    assert np.abs(reds - wanted).max() < 3


@kinds
def test_numbers_of_images_and_names_of_classes(kind, tmp_path, monkeypatch):
    count = DATASETS[kind].num_classes
    dataset = fake(kind, tmp_path, monkeypatch, train_images=count, test_images=9)
    summary, arrays = prepared(dataset)
    assert (summary["train"], summary["test"]) == (count, 9) == dataset.counts
    assert len(set(summary["class_names"])) == count
    assert len(arrays["train_labels"]) == count


@kinds
def test_missing_files_are_an_error_that_says_where_they_belong(kind, tmp_path):
    with pytest.raises(DataError, match=r"not found.*; unpack torchvision's .* or set ROBUSTVIEWS"):
        prepared(DATASETS[kind](str(tmp_path)))


def test_a_picture_that_is_listed_but_missing_is_named(tmp_path, monkeypatch):
    dataset = fake("textures", tmp_path, monkeypatch)
    (tmp_path / "dtd/dtd/images/kind03/val.jpg").unlink()
    with pytest.raises(DataError, match=r"kind03/val\.jpg"):
        prepared(dataset)


def test_the_custom_of_each_data_set_decides_its_accuracy():
    by_class = {kind for kind in WRITERS if DATASETS[kind]().accuracy == "mean_per_class"}
    assert by_class == {"flowers102", "pets", "aircraft"}


@pytest.mark.parametrize(
    ("name", "train", "test"), [("clothing", 200, 372), ("sign-digits", 350, 150)]
)
def test_folders_of_real_photographs_are_read_as_they_are(photographs, name, train, test):
    summary, arrays = prepared(Folder(str(photographs / name), size=32, test="test"))
    assert (summary["train"], summary["test"], summary["classes"]) == (train, test, 10)
    assert set(arrays["test_labels"]) == set(range(10))
    assert 60 < arrays["train_images"].mean() < 200
    assert arrays["train_images"].std(axis=(1, 2, 3)).min() > 5
