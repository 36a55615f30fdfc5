"""Small files for segmentation and detection, two or three pictures per split."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image

from robustviews.datasets import DATASETS, voc

WIDE, HIGH = 24, 16  # of a picture
KINDS = ("red", "green")  # of own files


def picture(path: Path, shade: int = 0, size: tuple[int, int] = (WIDE, HIGH)) -> None:
    """Write a picture of its own for each shade."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(shade).integers(0, 256, (*size[::-1], 3), dtype=np.uint8)
    Image.fromarray(noise).save(path.with_suffix(".png"))


def mask(path: Path, values: np.ndarray, *, palette: bool = False) -> None:
    """Write a mask; with a palette as the files of VOC have one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(np.asarray(values, np.uint8))
    if palette:
        image.putpalette(np.random.default_rng(0).integers(0, 256, 768).tolist())
    image.save(path.with_suffix(".png"))


def stripes(values: list[int]) -> np.ndarray:
    """Return a mask of upright stripes, which has all values."""
    return np.repeat(np.resize(values, WIDE)[None], HIGH, axis=0)


def lines(path: Path, text: list[str]) -> None:
    """Write a text file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(text) + "\n", encoding="utf-8")


def xml(objects: list[tuple], size: tuple[int, int] = (WIDE, HIGH)) -> str:
    """Return an annotation of VOC; objects are a name, corners, and perhaps `difficult`."""
    text = f"<annotation><size><width>{size[0]}</width><height>{size[1]}</height></size>"
    for name, corners, *difficult in objects:
        ends = zip(("xmin", "ymin", "xmax", "ymax"), corners, strict=True)
        box = "".join(f"<{end}>{value}</{end}>" for end, value in ends)
        flag = "".join(f"<difficult>{one}</difficult>" for one in difficult)
        text += f"<object><name>{name}</name>{flag}<bndbox>{box}</bndbox></object>"
    return f"{text}</annotation>"


def camvid(root):
    for shade, part in enumerate(("train", "train", "test")):
        picture(root / part / f"{shade}.png", shade)
        mask(root / f"{part}annot" / f"{shade}.png", stripes([*range(11), 11]))


def voc_segmentation(root):
    folder = root / "VOCdevkit" / "VOC2012"
    for shade, part in enumerate(("train", "val")):
        picture(folder / "JPEGImages" / f"2007_{shade}", shade)
        mask(
            folder / "SegmentationClass" / f"2007_{shade}", stripes([*range(21), 255]), palette=True
        )
        lines(folder / "ImageSets" / "Segmentation" / f"{part}.txt", [f"2007_{shade}"])


def segmentation_folder(root):
    for shade, part in enumerate(("train", "train", "test")):
        picture(root / part / "images" / f"{shade}", shade)
        mask(root / part / "masks" / f"{shade}", stripes([0, 1, 255]))


def voc_detection(root):
    objects = [(name, (1 + at, 2, 3 + at, 9)) for at, name in enumerate(voc.CLASSES)]
    for shade, part in enumerate(("trainval", "test")):
        voc_image(root, shade, part, objects)


def voc_image(root, shade, part, objects, folder="VOCdevkit/VOC2007"):
    """Add a picture with objects to a part."""
    folder, name = root / folder, f"{shade:06}"
    picture(folder / "JPEGImages" / name, shade)
    lines(folder / "Annotations" / f"{name}.xml", [xml(objects)])
    listed = folder / "ImageSets" / "Main" / f"{part}.txt"
    before = listed.read_text().split() if listed.exists() else []
    lines(listed, [*before, name])


def coco(objects: list[dict], images: int = 1, start: int = 0) -> dict:
    """Return annotations of some images, numbered from a start."""
    return {
        "categories": [{"id": 10 * at + 7, "name": name} for at, name in enumerate(KINDS)],
        "images": [
            {"id": at, "file_name": f"{at}.png", "width": WIDE, "height": HIGH}
            for at in range(start, start + images)
        ],
        "annotations": objects,
    }


def coco_detection(root):
    for shade, part in enumerate(("train2017", "val2017")):
        picture(root / part / f"{shade}", shade)
        objects = [
            {"image_id": shade, "category_id": number, "bbox": [1, 2, 3.5, 4]} for number in (7, 17)
        ]
        path = root / "annotations" / f"instances_{part}.json"
        lines(path, [json.dumps(coco(objects, start=shade))])


WRITERS = {
    "camvid": (camvid, {}),
    "voc_segmentation": (voc_segmentation, {}),
    "segmentation_folder": (segmentation_folder, {"num_classes": 2}),
    "voc_detection": (voc_detection, {}),
    "coco_detection": (coco_detection, {"classes": KINDS}),
}


def fake(kind, root, monkeypatch=None, **options):
    """Write a data set's files, and return its options, images of 48 pixels."""
    del monkeypatch
    writer, needed = WRITERS[kind]
    writer(Path(root))
    return DATASETS[kind](root=str(root), **{"size": 2 * WIDE, **needed, **options})
