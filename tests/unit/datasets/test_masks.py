"""Data sets for segmentation: masks fit their images, and wrong ones are named."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from PIL import Image

from robustviews.datasets import DATASETS, DataError, SegmentationFolder, Subset
from tests.unit.datasets import dense_files
from tests.unit.datasets.dense_files import HIGH, WIDE, fake, mask, picture, stripes
from tests.unit.datasets.preparing import message, prepared


@pytest.mark.parametrize("upright", [False, True])
def test_masks_are_scaled_and_padded_as_their_images(upright, tmp_path):
    values = np.random.default_rng(0).integers(0, 3, (3, 5), dtype=np.uint8)
    values = values.T if upright else values
    for part in ("train", "test"):
        mask(tmp_path / part / "masks" / "a", values)
        (tmp_path / part / "images").mkdir()
        Image.fromarray(100 * values).convert("RGB").save(tmp_path / part / "images" / "a.png")
    dataset = SegmentationFolder(root=str(tmp_path), num_classes=3, size=200)
    _, arrays = prepared(dataset)
    high, wide = (200, 120) if upright else (120, 200)
    [labels], [image] = arrays["test_labels"], arrays["test_images"]
    np.testing.assert_array_equal(labels[:high, :wide], np.kron(values, np.ones((40, 40))))
    assert (labels[high:] == 255).all()
    assert (labels[:, wide:] == 255).all()
    assert not image[:, high:].any()
    assert not image[:, :, wide:].any()
    inner = image[:, :high, :wide][:, 20::40, 20::40].astype(int)  # the centres of pixels
    assert np.abs(inner - 100 * values).max() <= 5, "bilinear: others lie between them"


@pytest.mark.parametrize(
    ("kind", "void"), [("camvid", 11), ("voc_segmentation", 255), ("segmentation_folder", 255)]
)
def test_the_void_of_each_kind_becomes_void_and_no_class_does(kind, void, tmp_path):
    summary, arrays = prepared(fake(kind, tmp_path, size=WIDE))
    classes = summary["classes"]
    values = [*range(classes), void] if kind != "segmentation_folder" else [0, 1, 255]
    expected = stripes(values)
    expected[expected == void] = 255
    np.testing.assert_array_equal(arrays["train_labels"][0, :HIGH], expected)
    assert len(set(summary["class_names"])) == classes


def test_void_may_be_any_value_or_none(tmp_path):
    dataset = fake("segmentation_folder", tmp_path, num_classes=255, void=None)
    assert "expected values below 255, found 255" in message(dataset)
    for part in ("train", "test"):
        for path in (tmp_path / part / "masks").iterdir():
            mask(path, stripes([0, 1, 2]))
    dataset = SegmentationFolder(root=str(tmp_path), num_classes=3, void=1, size=WIDE)
    labels = prepared(dataset)[1]["test_labels"]
    np.testing.assert_array_equal(labels[0, 0, :6], [0, 255, 2, 0, 255, 2])


def test_a_fixed_choice_of_the_images_is_kept(tmp_path):
    summary, few = prepared(fake("camvid", tmp_path, train_images=1, test_images=1))
    assert (summary["train"], few["train_images"].shape[0]) == (1, 1)
    assert DATASETS["camvid"](str(tmp_path), train_images=1, test_images=1).counts == (1, 1)
    more = message(DATASETS["camvid"](str(tmp_path), train_images=3))
    assert "train_images: expected 3, found 2; lower it" in more


def test_the_source_hash_covers_masks(tmp_path):
    before = prepared(fake("camvid", tmp_path))[0]["source_hashes"]
    mask(tmp_path / "testannot" / "2", stripes([0, 1]))
    after = prepared(DATASETS["camvid"](str(tmp_path), size=48))[0]["source_hashes"]
    assert before["train"] == after["train"]
    assert before["test"] != after["test"]


def other_size(path):
    mask(path, stripes([0])[:, 1:])


def colours(path):
    picture(path)


WRONG = {
    "another size": (other_size, f"expected the size of its image, {WIDE} x {HIGH}, found 23 x 16"),
    "a label out of range": (
        lambda path: mask(path, stripes([0, 1, 2, 255])), "expected values below 2, or 255, found 2"
    ),
    "void alone": (lambda path: mask(path, stripes([255])), "no pixel has a class"),
    "colours": (colours, "expected a PNG file of class numbers (gray or palette, 8 bits), found"),
    "16 bits": (
        lambda path: Image.fromarray(np.zeros((HIGH, WIDE), np.uint16)).save(path), "mode I;16"
    ),
    "text": (lambda path: path.write_text("0 1 1"), "damaged, or no image (none of PNG)"),
    "half": (lambda path: path.write_bytes(path.read_bytes()[:45]), "damaged, or no image"),
    "a JPEG": (
        lambda path: Image.new("L", (WIDE, HIGH)).save(path, "JPEG"), "no image (none of PNG)"
    ),
}  # fmt: skip


@pytest.mark.parametrize("wrong", WRONG)
def test_a_mask_that_does_not_fit_is_named_in_one_line(wrong, tmp_path):
    dataset = fake("segmentation_folder", tmp_path)
    path = tmp_path / "train" / "masks" / "1.png"
    change, words = WRONG[wrong]
    change(path)
    text = message(dataset)
    assert text.startswith(f"{path}: ")
    assert words in text
    assert "\n" not in text


def test_all_wrong_masks_are_named(tmp_path):
    dataset = fake("segmentation_folder", tmp_path)
    for path in (tmp_path / "train" / "masks").iterdir():
        other_size(path)
    assert len(message(dataset).splitlines()) == 2


@pytest.mark.parametrize(
    ("gone", "words"),
    [
        ("train/masks/1.png", "train/masks/1.*: no such file, but "),
        ("train/images/1.png", "train/images/1.*: no such file, but "),
        ("test/masks", "test/masks: no such folder; correct `root`, `train` or `test`"),
    ],
)
def test_a_missing_file_is_named(gone, words, tmp_path):
    dataset = fake("segmentation_folder", tmp_path)
    path = tmp_path / gone
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert words in message(dataset)


def test_files_that_are_not_here_are_named_with_where_they_are_from(tmp_path):
    assert "CamVid of github.com/alexgkendall" in message(DATASETS["camvid"](str(tmp_path)))
    text = message(DATASETS["voc_segmentation"](str(tmp_path)))
    assert f"{tmp_path}/VOCdevkit/VOC2012/ImageSets/Segmentation/train.txt: no such list" in text
    assert "bring the archives of http://host.robots.ox.ac.uk/pascal/VOC, unpacked in" in text


@pytest.mark.parametrize("names", [("a",), ("a", "b", "c"), ("a", "a")])
def test_names_that_are_not_one_for_each_class_are_refused(names):
    with pytest.raises(DataError, match="class_names: expected 2 different names"):
        SegmentationFolder(root="nowhere", num_classes=2, class_names=names)


def test_classes_of_pixels_make_no_subset(tmp_path):
    with pytest.raises(DataError, match="of: its images have no class"):
        Subset(dense_files.fake("camvid", tmp_path), (0, 1))


@pytest.mark.slow
def test_real_streets_have_all_classes(dense_photographs):
    summary, arrays = prepared(DATASETS["camvid"](str(dense_photographs / "camvid")))
    assert (summary["train"], summary["test"]) == (60, 40)
    for split in ("train", "test"):
        labels = arrays[f"{split}_labels"]
        assert sorted(np.unique(labels)) == [*range(11), 255]
        assert 0.01 < (labels[:, :360] == 255).mean() < 0.06
