"""Files laid out as torchvision expects them, one small picture per class and split."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import torchvision.datasets
from PIL import Image
from scipy.io import savemat

from robustviews.datasets import DATASETS


def fake(kind, root, monkeypatch, **options):
    """Write a data set's files, and return its options, images of 8 pixels."""
    count = DATASETS[kind].num_classes
    WRITERS[kind](Path(root) / DATASETS[kind].files[0], count, monkeypatch)
    return DATASETS[kind](str(root), size=8, **options)


def picture(path: Path, shade: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (12, 8), (shade % 256, 40, 200)).save(path)


def lines(path: Path, text: list[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(text) + "\n", encoding="utf-8")


def flowers(folder, count, monkeypatch):
    number = np.arange(3 * count) + 1
    for each in number:
        picture(folder / "jpg" / f"image_{each:05d}.jpg", each)
    savemat(folder / "imagelabels.mat", {"labels": (number - 1) % count + 1})
    splits = dict(zip(("trnid", "valid", "tstid"), number.reshape(3, count), strict=True))
    savemat(folder / "setid.mat", splits)
    sums = {
        key: (name, hashlib.md5((folder / name).read_bytes(), usedforsecurity=False).hexdigest())
        for key, name in (("label", "imagelabels.mat"), ("setid", "setid.mat"))
    }
    official = torchvision.datasets.Flowers102
    monkeypatch.setattr(official, "_file_dict", official._file_dict | sums)


def pets(folder, count, monkeypatch):
    del monkeypatch
    for first, split in ((0, "trainval"), (count, "test")):
        names = [f"breed_{label:02d}_{first + label}" for label in range(count)]
        for label, name in enumerate(names):
            picture(folder / "images" / f"{name}.jpg", first + label)
        rows = [f"{name} {label + 1} 1 1" for label, name in enumerate(names)]
        lines(folder / "annotations" / f"{split}.txt", rows)


def textures(folder, count, monkeypatch):
    del monkeypatch
    for number, split in enumerate(("train", "val", "test")):
        names = [f"kind{label:02d}/{split}.jpg" for label in range(count)]
        for label, name in enumerate(names):
            picture(folder / "dtd" / "images" / name, number * count + label)
        lines(folder / "dtd" / "labels" / f"{split}1.txt", names)


def aircraft(folder, count, monkeypatch):
    del monkeypatch
    data, variants = folder / "data", [f"A {label}" for label in range(count)]
    lines(data / "variants.txt", variants)
    for first, split in ((0, "trainval"), (count, "test")):
        for label in range(count):
            picture(data / "images" / f"{first + label:07d}.jpg", first + label)
        rows = [f"{first + label:07d} {name}" for label, name in enumerate(variants)]
        lines(data / f"images_variant_{split}.txt", rows)


def food(folder, count, monkeypatch):
    del monkeypatch
    for first, split in ((0, "train"), (count, "test")):
        listed = {f"dish{label:03d}": [f"dish{label:03d}/{split}"] for label in range(count)}
        for label, name in enumerate(listed):
            picture(folder / "images" / name / f"{split}.jpg", first + label)
        (folder / "meta").mkdir(exist_ok=True)
        (folder / "meta" / f"{split}.json").write_text(json.dumps(listed), encoding="utf-8")


WRITERS = {
    "flowers102": flowers,
    "pets": pets,
    "textures": textures,
    "aircraft": aircraft,
    "food101": food,
}
