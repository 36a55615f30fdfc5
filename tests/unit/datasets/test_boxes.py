"""Data sets for detection: boxes fit their images, and wrong annotations are named."""

from __future__ import annotations

import dataclasses
import json
import logging

import numpy as np
import pytest

from robustviews.datasets import DATASETS, DataError
from tests.unit.datasets.dense_files import (
    HIGH,
    KINDS,
    WIDE,
    coco,
    fake,
    lines,
    picture,
    voc_image,
    xml,
)
from tests.unit.datasets.preparing import message, prepared

WHOLE = ("red", (1, 1, WIDE, HIGH))


def own(root, objects, **options):
    """Return a data set of two images in VOC's layout; the first has some objects."""
    for shade, part, found in ((0, "train", objects), (1, "test", [WHOLE])):
        voc_image(root, shade, part, found, folder="cells")
    options = {"folder": "cells", "train": "train", "classes": KINDS, "size": 2 * WIDE} | options
    return DATASETS["voc_detection"](str(root), **options)


def in_json(root, change=dict.copy, objects=(), **options):
    """Return a data set in COCO's format; its training part has two images, 0 and 1."""
    for part, start, images in (("train2017", 0, 2), ("val2017", 2, 1)):
        content = coco([row(image=start)], images, start)
        if part == "train2017":
            content["annotations"] += objects
            change(content)
        for at in range(start, start + images):
            picture(root / part / f"{at}", at)
        lines(root / "annotations" / f"instances_{part}.json", [json.dumps(content)])
    return DATASETS["coco_detection"](str(root), **{"size": 2 * WIDE} | options)


def row(image=0, category=17, box=(0, 0, WIDE, HIGH), **more):
    return {"image_id": image, "category_id": category, "bbox": list(box), **more}


def test_boxes_of_voc_count_from_one_and_are_scaled_with_their_image(tmp_path):
    objects = [WHOLE, ("green", (5, 3, 8.5, 4))]
    _, arrays = prepared(own(tmp_path, objects))
    labels = arrays["train_labels"]
    assert labels.dtype == np.float32
    np.testing.assert_array_equal(labels[0], [[0, 0, 48, 32, 0], [8, 4, 17, 8, 1]])
    assert not arrays["train_images"][0, :, 32:].any()


def test_boxes_of_coco_are_corner_width_and_height_from_zero(tmp_path):
    objects = [row(category=7, box=(1.5, 2, 3, 4))]
    summary, arrays = prepared(in_json(tmp_path, objects=objects))
    expected = [[0, 0, 48, 32, 1], [3, 4, 9, 12, 0]]
    np.testing.assert_array_equal(arrays["train_labels"][0], expected)
    assert summary["class_names"] == list(KINDS)


def test_rows_without_an_object_have_class_minus_one(tmp_path):
    _, arrays = prepared(in_json(tmp_path, objects=[row()]))
    none = [0, 0, 0, 0, -1]
    np.testing.assert_array_equal(arrays["train_labels"][1], [none, none])
    assert arrays["test_labels"].shape == (1, 1, 5)


def test_boxes_are_clipped_to_their_image(tmp_path):
    objects = [("red", (-5, 3, 2 * WIDE, 4))]
    [[box]] = prepared(own(tmp_path, objects))[1]["train_labels"]
    np.testing.assert_array_equal(box, [0, 4, 48, 8, 0])


EMPTY = {
    "a point": (9, 9, 9, 9),
    "no height": (2, 9, 5, 9),
    "swapped corners": (9, 9, 3, 3),
    "outside": (30, 3, 40, 8),
}


@pytest.mark.parametrize("empty", EMPTY)
def test_a_box_without_area_is_refused_or_dropped_by_name(empty, tmp_path, caplog):
    objects = [WHOLE, ("green", EMPTY[empty])]
    where = f"{tmp_path}/cells/Annotations/000000.xml: boxes without width or height"
    assert message(own(tmp_path / "refused", objects)).startswith(
        where.replace("/cells", "/refused/cells")
    )
    with caplog.at_level(logging.WARNING):
        summary, arrays = prepared(own(tmp_path, objects, degenerate="drop"))
    assert where in caplog.text
    np.testing.assert_array_equal(arrays["train_labels"][0], [[0, 0, 48, 32, 0]])
    assert summary["dropped_boxes"] == {"degenerate": 1, "difficult": 0}


def test_difficult_objects_and_crowds_are_dropped_and_counted(tmp_path):
    objects = [WHOLE, (*WHOLE, 1), (*WHOLE, 0)]
    summary, arrays = prepared(own(tmp_path / "voc", objects))
    assert arrays["train_labels"].shape == (1, 2, 5)
    assert summary["dropped_boxes"]["difficult"] == 1
    summary, arrays = prepared(own(tmp_path / "kept", objects, difficult=True))
    assert arrays["train_labels"].shape == (1, 3, 5)
    assert summary["dropped_boxes"]["difficult"] == 0
    summary, arrays = prepared(in_json(tmp_path / "coco", objects=[row(iscrowd=1)]))
    assert arrays["train_labels"].shape == (2, 1, 5)
    assert summary["dropped_boxes"] == {"degenerate": 0, "crowd": 1}


def test_the_source_hash_covers_annotations(tmp_path):
    before = prepared(own(tmp_path, [WHOLE]))[0]["source_hashes"]
    lines(tmp_path / "cells" / "Annotations" / "000000.xml", [xml([(*WHOLE, 0)])])
    options = {"folder": "cells", "train": "train", "classes": KINDS}
    after = prepared(DATASETS["voc_detection"](str(tmp_path), **options))[0]["source_hashes"]
    assert before["train"] != after["train"]
    assert before["test"] == after["test"]


def laughs(levels=9):
    defined = "".join(f'<!ENTITY l{at} "{f"&l{at - 1};" * 10}">' for at in range(1, levels))
    start = f'<?xml version="1.0"?><!DOCTYPE lolz [<!ENTITY l0 "lol">{defined}]>'
    return f"{start}<annotation>&l{levels - 1};</annotation>"


OUTSIDE = '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><annotation>&x;</annotation>'
WRONG_XML = {
    "entities in entities": (laughs().encode(), "has a document type"),
    "in UTF-16": (laughs().partition("?>")[2].encode("utf-16"), "has a document type"),
    "a file of others": (OUTSIDE.encode(), "has a document type"),
    "huge": (b" " * 10_000_001, "expected at most 10000000 bytes"),
    "cut off": (xml([WHOLE]).encode()[:90], "no XML ("),
    "empty": (b"", "no XML ("),
    "another class": (
        xml([("blue", (1, 1, 5, 5))]).encode(), "expected a class of red, green, found 'blue'"
    ),
    "no name": (xml([("", (1, 1, 5, 5))]).encode(), "found ''"),
    "no number": (xml([("red", (1, "x", 5, 5))]).encode(), "expected a bndbox with numbers xmin"),
    "not finite": (xml([("red", (1, "nan", 5, 5))]).encode(), "expected a bndbox with numbers"),
    "no size": (xml([("red", (1, "", 5, 5))], ("9" * 5000, 0)).encode(), "expected a bndbox"),
    "deep": (b"<a>" * 300_000, "no XML ("),
    "no box": (b"<annotation><object><name>red</name></object></annotation>", "expected a bndbox"),
    "of another image": (xml([WHOLE], (64, 48)).encode(), "expected the size of 000000.png, (24,"),
}  # fmt: skip


@pytest.mark.parametrize("wrong", WRONG_XML)
def test_a_wrong_annotation_is_named_in_one_line(wrong, tmp_path):
    dataset = own(tmp_path, [WHOLE])
    path = tmp_path / "cells" / "Annotations" / "000000.xml"
    content, words = WRONG_XML[wrong]
    path.write_bytes(content)
    text = message(dataset)
    assert text.startswith(f"{path}: ")
    assert words in text
    assert "\n" not in text


def lists(words):
    return lambda content: content["images"].append(content["images"][0] | words)


WRONG_JSON = {
    "no list": (lambda content: content.pop("images"), "images: expected a list"),
    "a number as name": (lists({"id": 9, "file_name": 5}), "file_name: expected str, found 5"),
    "an image twice": (lists({"file_name": "9.png"}), "[2]: an image with the id 0 is above"),
    "a file outside": (lists({"id": 9, "file_name": "../9.png"}), "expected a file within"),
    "another size": (lists({"id": 9, "width": 5}), "0.png, (24, 16), found (5, 16)"),
    "no image": (lambda content: content["annotations"].append(row(image=9)), "no image 9; add"),
    "no category": (
        lambda content: content["annotations"].append(row(category=9)), "there is no category 9"
    ),
    "a far corner": (
        lambda content: content["annotations"].append(row(box=(1, 2, 3, 10**400))), "bbox: expected"
    ),
    "three numbers": (
        lambda content: content["annotations"].append(row(box=(1, 2, 3))),
        "annotations[1]: bbox: expected x, y, width, height, found [1, 2, 3]",
    ),
    "not finite": (
        lambda content: content["annotations"].append(row(box=(1, 2, 3, float("nan")))),
        "annotations[1]: bbox: expected x, y, width, height",
    ),
    "a name twice": (
        lambda content: content["categories"].append({"id": 1, "name": "red"}),
        "categories: expected ids and names, each once",
    ),
}  # fmt: skip


@pytest.mark.parametrize("wrong", WRONG_JSON)
def test_a_wrong_entry_of_a_json_file_is_named_in_one_line(wrong, tmp_path):
    change, words = WRONG_JSON[wrong]
    text = message(in_json(tmp_path, change))
    assert text.startswith(f"{tmp_path / 'annotations' / 'instances_train2017.json'}: ")
    assert words in text
    assert "\n" not in text


@pytest.mark.parametrize("content", ["{", "[1]", "null", '"' + "\\ud800", "[" * 100_000])
def test_a_file_that_is_no_annotations_is_named(content, tmp_path):
    dataset = in_json(tmp_path)
    path = tmp_path / "annotations" / "instances_train2017.json"
    path.write_text(content)
    assert message(dataset).startswith(f"{path}: ")


def test_a_category_that_the_study_does_not_name_is_refused(tmp_path):
    text = message(in_json(tmp_path, classes=("red", "blue")))
    assert "expected a class of red, blue, found 'green'; add it to `classes`" in text


def test_parts_without_objects_or_images_are_refused(tmp_path):
    assert "train: no object in any of 1 images" in message(own(tmp_path / "a", []))
    dataset = own(tmp_path / "b", [WHOLE])
    lines(tmp_path / "b" / "cells" / "ImageSets" / "Main" / "test.txt", ["# none"])
    assert "test_images: no image" in message(dataset)


@pytest.mark.parametrize("gone", ["JPEGImages/000000.png", "Annotations/000000.xml"])
def test_a_listed_image_without_its_files_is_named(gone, tmp_path):
    dataset = own(tmp_path, [WHOLE])
    path = tmp_path / "cells" / gone
    path.unlink()
    text = message(dataset)
    assert text.startswith(f"{path.with_suffix('')}.*: no such file, but ")


def test_an_image_that_is_listed_twice_is_named(tmp_path):
    dataset = own(tmp_path, [WHOLE])
    path = tmp_path / "cells" / "ImageSets" / "Main" / "train.txt"
    lines(path, ["000000", "000001", "000000"])
    assert message(dataset).startswith(f"{path}: '000000' occurs twice")


def test_files_that_are_not_here_are_named_with_where_they_are_from(tmp_path, monkeypatch):
    assert "https://cocodataset.org/#download" in message(
        DATASETS["coco_detection"](str(tmp_path), classes=KINDS)
    )
    text = message(DATASETS["voc_detection"](str(tmp_path)))
    assert "VOCdevkit/VOC2007/ImageSets/Main/trainval.txt: no such list; correct" in text
    assert "host.robots.ox.ac.uk" in text
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ROBUSTVIEWS_DATA", raising=False)
    own_folder = message(DATASETS["voc_detection"](folder="cells"))
    assert "data/raw/cells/ImageSets/Main/trainval.txt: no such list (Unknown value" in own_folder


def test_voc_is_downloaded_only_without_a_named_folder(tmp_path, monkeypatch):
    from torchvision.datasets import voc as official

    downloaded = []

    def download(url, root, **_):
        downloaded.append(url.rpartition("/")[2])
        fake("voc_detection", root)

    monkeypatch.setattr(official, "download_and_extract_archive", download)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ROBUSTVIEWS_DATA", raising=False)
    summary, _ = prepared(DATASETS["voc_detection"](size=WIDE))
    assert downloaded == ["VOCtrainval_06-Nov-2007.tar"]
    assert summary["classes"] == 20
    message(DATASETS["voc_detection"](str(tmp_path / "elsewhere")))
    assert len(downloaded) == 1


@pytest.mark.parametrize("classes", [(), ("red", "red")])
def test_classes_that_are_not_each_once_are_refused(classes):
    with pytest.raises(DataError, match="classes: expected names, each once"):
        DATASETS["coco_detection"]("nowhere", classes=classes)


@pytest.mark.slow
def test_real_cells_have_two_boxes_without_area(dense_photographs):
    options = {"folder": "BCCD", "train": "trainval", "classes": ("RBC", "WBC", "Platelets")}
    dataset = DATASETS["voc_detection"](str(dense_photographs), size=64, **options)
    assert "Annotations/BloodImage_00338.xml: boxes without width or height" in message(dataset)
    summary, arrays = prepared(dataclasses.replace(dataset, degenerate="drop"))
    assert (summary["train"], summary["test"]) == (292, 72)
    assert summary["dropped_boxes"]["degenerate"] == 2
    labels = [arrays[f"{split}_labels"][..., 4].ravel() for split in ("train", "test")]
    counts = np.bincount(np.concatenate(labels).astype(int) + 1)[1:]
    np.testing.assert_array_equal(counts, [4155 - 2, 372, 361])
