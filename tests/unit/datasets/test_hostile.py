"""Pictures and names that attack who reads them: what a person sees, or refused by name."""

from __future__ import annotations

import io
import random
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from robustviews.datasets import DataError, Folder

PIXELS = np.random.default_rng(0).integers(0, 256, (12, 16, 3), dtype=np.uint8)
SEEN = Image.fromarray(PIXELS)
DEEP = np.arange(0, 48_000, 250, dtype=np.uint16).reshape(12, 16)  # white, if clipped to 8 bits
CLEAR = SEEN.convert("RGBA")
CLEAR.putpixel((0, 0), (0, 0, 0, 0))


def saved(image, kind, **options):
    content = io.BytesIO()
    image.save(content, kind, **options)
    return content.getvalue()


def chunk(name, data):
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def bomb(side):
    """Return a small PNG file of a picture of side x side pixels."""
    head = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    data = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0" * 1000))
    return b"\x89PNG\r\n\x1a\n" + data + chunk(b"IEND", b"")


PICTURES = {
    "PNG, RGB": (saved(SEEN, "PNG"), ""),
    "PNG, opaque alpha": (saved(SEEN.convert("RGBA"), "PNG"), ""),
    "WEBP, opaque alpha": (saved(SEEN.convert("RGBA"), "WEBP", lossless=True), ""),
    "BMP": (saved(SEEN, "BMP"), ""),
    "TIFF, CMYK": (saved(SEEN.convert("CMYK"), "TIFF"), ""),
    "PNG, transparent": (saved(CLEAR, "PNG"), "transparent pixels"),
    "PNG, gray and transparent": (saved(CLEAR.convert("LA"), "PNG"), "transparent pixels"),
    "GIF, transparent": (saved(CLEAR.quantize(), "GIF", transparency=0), "transparent pixels"),
    "PNG, 16 bits": (saved(Image.fromarray(DEEP), "PNG"), "more than 8 bits"),
    "TIFF, 16 bits": (saved(Image.fromarray(DEEP), "TIFF"), "more than 8 bits"),
    "TIFF, float": (saved(Image.fromarray(DEEP.astype(np.float32)), "TIFF"), "more than 8 bits"),
    "PNG, half": (saved(SEEN, "PNG")[:200], "damaged, or no image"),
    "JPEG, half": (saved(SEEN, "JPEG")[:400], "damaged, or no image"),
    "PNG, bomb": (bomb(60_000), "damaged, or no image"),
    "empty": (b"", "damaged, or no image"),
    "a program": (b"#!/bin/sh\ntouch run\n", "damaged, or no image"),
}


def prepared(tmp_path, content, name="b.png", folder="two"):
    """Prepare a data set with one strange picture or name; return the pixels of that picture."""
    for split in ("train", "val"):
        for label in ("one", folder):
            (tmp_path / split / label).mkdir(parents=True)
            SEEN.save(tmp_path / split / label / "a.png")
    (tmp_path / "train" / folder / name).write_bytes(content)
    arrays = {}

    def create(name, shape, dtype):
        arrays[name] = np.empty(shape, dtype)
        return arrays[name]

    Folder(str(tmp_path), size=12).prepare(create)
    return arrays["train_images"][2]


@pytest.mark.parametrize("picture", PICTURES)
def test_a_picture_becomes_what_a_person_sees_or_is_refused_by_name(picture, tmp_path):
    content, problem = PICTURES[picture]
    if problem:
        with pytest.raises(DataError, match=problem) as refused:
            prepared(tmp_path, content)
        assert str(tmp_path / "train" / "two" / "b.png") in str(refused.value)
        assert "object at 0x" not in str(refused.value)
        assert not list(tmp_path.rglob("run"))
    else:
        np.testing.assert_array_equal(
            prepared(tmp_path, content), PIXELS[:, 2:14].transpose(2, 0, 1)
        )


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(
    "picture", [name for name, (_, problem) in PICTURES.items() if not problem]
)
def test_a_damaged_picture_is_read_or_refused(picture, tmp_path):
    chance = random.Random(picture)
    for number in range(30):
        content = bytearray(PICTURES[picture][0])
        for _ in range(chance.randint(1, 5)):
            content[chance.randrange(min(len(content), 200))] = chance.randrange(256)
        try:
            prepared(tmp_path / str(number), bytes(content))
        except DataError as error:
            assert "b.png" in str(error)  # noqa: PT017  # either is right


NAMES = {
    "control character": ("a\x1b[2J.png", "control characters"),
    "new line": ("a\nb.png", "control characters"),
    "right to left": ("a\u202egnp.exe", "control characters"),
    "not UTF-8": ("ol\udce9", "not UTF-8"),
    "HTML": ("<img src=x onerror=alert(1)>.png", ""),
    "longest": ("x" * 251 + ".png", ""),
    "right-to-left script": ("\u05d0\u05d1.png", ""),
    "shell": ("$(touch run); x.png", ""),
}


@pytest.mark.parametrize("what", ["file", "class"])
@pytest.mark.parametrize("kind", NAMES)
def test_a_name_is_used_as_it_is_or_refused_without_being_shown_as_it_is(kind, what, tmp_path):
    name, problem = NAMES[kind]
    names = {"name": name} if what == "file" else {"folder": name}
    if problem:
        with pytest.raises(DataError, match=problem) as refused:
            prepared(tmp_path, saved(SEEN, "PNG"), **names)
        assert name not in str(refused.value)
    else:
        prepared(tmp_path, saved(SEEN, "PNG"), **names)
    assert not list(tmp_path.rglob("run"))


@pytest.mark.parametrize("name", ["../two", "/etc", "", ".", "x" * 300])
def test_a_class_is_a_folder_of_the_split_and_nothing_else(name, tmp_path):
    prepared(tmp_path, saved(SEEN, "PNG"))
    with pytest.raises(DataError, match="no such class folder"):
        Folder(str(tmp_path), size=12, classes=("one", name)).prepare(np.empty)
