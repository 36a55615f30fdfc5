"""Data sets with test images only: labels from a CSV, and torchvision's preprocessing."""

from __future__ import annotations

import hashlib
import os
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from robustviews import augment, checkpoints
from robustviews.artifacts import new_array
from robustviews.datasets import DataError, EvaluationFolder, open_split

SIDES = ((64, 64), (64, 65), (90, 61), (61, 90), (200, 67), (67, 301), (33, 40), (500, 375))


def photographs(folder, sides=SIDES):
    """Write JPEGs of many sides with a CSV, some of them gray, and return the folder."""
    rng = np.random.default_rng(0)
    (folder / "images").mkdir(parents=True)
    lines = ["file,wnid,label"]
    for number, (width, height) in enumerate(sides):
        coarse = rng.integers(0, 256, (height // 8 + 1, width // 8 + 1, 3), dtype=np.uint8)
        picture = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
        name = f"images/{number}.jpg"
        (picture.convert("L") if number % 4 == 3 else picture).save(folder / name)
        lines.append(f"{name},n{number:08},{number * 5}")
    (folder / "labels.csv").write_text("\n".join(lines) + "\n")
    return folder


def prepared(options, folder):
    folder.mkdir()
    summary = options.prepare(
        lambda name, shape, dtype: new_array(folder / f"{name}.npy", shape, dtype)
    )
    return summary, open_split(folder, "train"), open_split(folder, "test")


def test_there_are_only_test_images_in_the_order_of_the_csv(tmp_path):
    root = photographs(tmp_path / "source")
    options = EvaluationFolder(str(root), 1000, labels="labels.csv", size=32, resize=36)
    summary, (none, no_labels), (images, labels) = prepared(options, tmp_path / "arrays")
    assert none.shape == (0, 3, 32, 32)
    assert len(no_labels) == 0
    assert labels.tolist() == [5 * number for number in range(len(SIDES))]
    assert len(images) == len(SIDES)
    csv = hashlib.sha256((root / "labels.csv").read_bytes()).hexdigest()
    assert summary["source_hashes"]["labels.csv"] == f"sha256:{csv}"
    assert {key: summary[key] for key in ("train", "test", "classes", "size")} == {
        "train": 0,
        "test": len(SIDES),
        "classes": 1000,
        "size": 32,
    }


@pytest.mark.parametrize(("size", "resize"), [(32, 36), (32, 32), (31, 36), (57, 64)])
def test_pixels_are_those_of_torchvision(size, resize, tmp_path):
    from torchvision.transforms import v2

    root = photographs(tmp_path / "source")
    options = EvaluationFolder(str(root), 1000, labels="labels.csv", size=size, resize=resize)
    _, _, (images, _) = prepared(options, tmp_path / "arrays")
    theirs = v2.Compose([v2.Resize(resize, antialias=True), v2.CenterCrop(size)])
    for number, image in enumerate(images):
        picture = Image.open(root / f"images/{number}.jpg").convert("RGB")
        assert np.array_equal(image.transpose(1, 2, 0), np.asarray(theirs(picture)))


def test_class_folders_are_labelled_in_the_order_of_their_names(tmp_path):
    for name in ("b", "a"):
        photographs(tmp_path / "source" / name / "x", SIDES[:2])
        (tmp_path / "source" / name / "x/labels.csv").unlink()
    options = EvaluationFolder(str(tmp_path / "source"), 2, size=8, resize=8, test_images=3)
    _, _, (_, labels) = prepared(options, tmp_path / "arrays")
    assert labels.tolist() == [0, 0, 1]
    with pytest.raises(DataError, match=r"expected 3 class folders .*found 2; .*`labels`"):
        EvaluationFolder(str(tmp_path / "source"), 3).prepare(np.empty)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "line 1: expected one column file, found nothing; .* `columns`"),
        ("file,index\n", "line 1: expected one column label, found file,index; .* `columns`"),
        ("file,label\n", "expected a line for each file, found none"),
        ("file,label\na.jpg,0\n\na.jpg,1\n", "line 4, column file: a.jpg is on line 2, too"),
        ("file,label\nno.jpg,0\n", "line 2, column file: .*no.jpg: no such file"),
        ("file,label\n../a.jpg,0\n", "line 2, column file: expected a path within"),
        ("file,label\na.jpg,10\n", "line 2, column label: expected 0 to 9, found '10'"),
        ("file,label\na.jpg,-1\n", "line 2, column label: expected 0 to 9, found '-1'"),
        ("file,label\na.jpg,cat\n", "line 2, column label: expected 0 to 9, found 'cat'"),
        ("file,label\na.jpg\n", "line 2, column 1: expected 2 columns, found 1"),
        ('file,label\n"a.jpg,0\n', "line 2: unexpected end of data"),
        (b"file,label\n\xff\n", "not UTF-8 text .* at byte 11"),
    ],
)
def test_a_bad_csv_is_refused_with_line_and_column(content, message, tmp_path):
    Image.new("RGB", (9, 9)).save(tmp_path / "a.jpg")
    data = content if isinstance(content, bytes) else content.encode()
    (tmp_path / "labels.csv").write_bytes(data)
    options = EvaluationFolder(str(tmp_path), 10, labels="labels.csv", size=8, resize=8)
    with pytest.raises(DataError, match=f"labels.csv: {message}"):
        options.prepare(np.empty)


def source(folder):
    """Return ImageNet photographs where a variable names their pack, else synthetic ones."""
    packs = os.environ.get("ROBUSTVIEWS_CIFAR_PACKS", "")
    pack = Path(packs) / "imagenet_samples.tar"
    if not packs or not pack.is_file():
        sides = ((300, 300), (500, 375), (375, 501), (256, 700), (90, 86), (1280, 640))
        return photographs(folder, sides), ("file", "label")
    with tarfile.open(pack) as archive:
        archive.extractall(folder, filter="data")
    (csv,) = folder.rglob("labels.csv")
    return csv.parent, ("file", "index")


@pytest.mark.slow
def test_an_imported_resnet50_has_the_logits_of_torchvision(tmp_path):
    from torchvision import models

    torch.manual_seed(0)
    theirs = models.resnet50(weights=None)
    theirs.train()(torch.randn(4, 3, 64, 64))  # statistics unlike those of a new network
    torch.save(theirs.eval().state_dict(), tmp_path / "resnet50.pth")
    network = checkpoints.bring(tmp_path / "resnet50.pth", normalise="imagenet").network()
    root, columns = source(tmp_path / "source")
    options = EvaluationFolder(str(root), 1000, labels="labels.csv", columns=columns)
    _, _, (images, _) = prepared(options, tmp_path / "arrays")
    preset = models.ResNet50_Weights.IMAGENET1K_V1.transforms()  # Resize(256), CenterCrop(224)
    lines = (root / "labels.csv").read_text().splitlines()[1:]
    with torch.no_grad():
        for line, image in zip(lines[::6], images[::6], strict=True):
            picture = Image.open(root / line.split(",")[0]).convert("RGB")
            expected = theirs(preset(picture)[None])
            logits = network(augment.to_float(torch.tensor(image)[None], 224))
            torch.testing.assert_close(logits, expected, rtol=0, atol=1e-5)
