"""The format of COCO: all annotations of a part in one JSON file."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from robustviews.datasets import splits
from robustviews.datasets.dense import Annotated
from robustviews.datasets.splits import DataError, Hash

_KEYS = {
    "categories": ("id", "name"),
    "images": ("id", "file_name", "width", "height"),
    "annotations": ("image_id", "category_id", "bbox"),
}
_KINDS = {"file_name": str, "name": str, "bbox": list}  # the others are whole numbers
_FAR = 1e9  # pixels; further, and not a number, is no place in an image
Row = dict[str, Any]


def categories(path: Path) -> Sequence[str]:
    """Return the names of the categories in the order of their numbers."""
    found = _named(path, _load(path, hashlib.sha256()))
    return [found[number] for number in sorted(found)]


def annotated(path: Path, folder: Path, source: Hash) -> list[Annotated]:
    """Return the images of a file, in its order, with their objects.

    Args:
        path: JSON file.
        folder: folder of the images.
        source: hash, which is given the content of the file.

    Raises:
        DataError: the file has another form.
    """
    content = _load(path, source)
    names, found = _named(path, content), dict[int, Annotated]()
    for number, row in enumerate(content["images"]):
        where = f"{path}: images[{number}]"
        if row["id"] in found:
            raise DataError(f"{where}: an image with the id {row['id']} is above; correct one")
        name = PurePosixPath(row["file_name"])
        if name.is_absolute() or ".." in name.parts:
            raise DataError(f"{where}: expected a file within {folder}, found {str(name)!r}")
        sides = row["width"], row["height"]
        found[row["id"]] = Annotated(folder / name, path, sides, [], 0)
    for number, row in enumerate(content["annotations"]):
        where = f"{path}: annotations[{number}]"
        image, category = row["image_id"], row["category_id"]
        if image not in found or category not in names:
            lacking = f"image {image}" if image not in found else f"category {category}"
            raise DataError(f"{where}: there is no {lacking}; add it, or remove the annotation")
        one = found[image]
        if row.get("iscrowd"):
            found[image] = one._replace(left_out=one.left_out + 1)
        else:
            one.objects.append((names[category], *_corners(where, row["bbox"])))
    return list(found.values())


def _corners(where: str, box: Sequence[Any]) -> tuple[float, ...]:
    """Return x1, y1, x2, y2 of a box that is stated as x1, y1, width, height."""
    numbers = [isinstance(value, int | float) and abs(value) < _FAR for value in box]
    if len(box) != 4 or not all(numbers):
        raise DataError(f"{where}: bbox: expected x, y, width, height, found {box}; correct it")
    left, top, width, height = box
    return left, top, left + width, top + height


def _named(path: Path, content: dict[str, list[Row]]) -> dict[int, str]:
    """Return the names of the categories by number."""
    rows = content["categories"]
    names = {row["id"]: row["name"] for row in rows}
    if not len(rows) == len(names) == len(set(names.values())) or not names:
        raise DataError(f"{path}: categories: expected ids and names, each once; correct them")
    return names


def _load(path: Path, source: Hash) -> dict[str, list[Row]]:
    """Return the rows of a file, whose keys and kinds of values are those of the format."""
    content = splits.content(path, "correct `root` or `annotations`")
    try:
        read = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: no JSON ({error}); correct the file") from None
    source.update(f"{path.name}:{len(content)}:".encode() + content)
    for block, keys in _KEYS.items():
        rows = read.get(block) if isinstance(read, dict) else None
        if not isinstance(rows, list):
            raise DataError(f"{path}: {block}: expected a list, as in COCO's instances_*.json")
        for number, row in enumerate(rows):
            for key in keys:
                value = row.get(key) if isinstance(row, dict) else None
                if not isinstance(value, _KINDS.get(key, int)):
                    kind = _KINDS.get(key, int).__name__
                    text = f"expected {kind}, found {value!r}"
                    raise DataError(f"{path}: {block}[{number}]: {key}: {text}; correct it")
    result: dict[str, list[Row]] = read
    return result
