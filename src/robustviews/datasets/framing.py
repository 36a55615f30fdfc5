"""How a picture of any size becomes a square: what is cut off, and what is scaled."""

from __future__ import annotations

from typing import TYPE_CHECKING

from robustviews.tasks.protocol import VOID

if TYPE_CHECKING:
    from PIL.Image import Image


def centre(image: Image, size: int) -> Image:
    """Scale the shorter side to `size`, then cut the central square."""
    width, height = (max(size, round(side * size / min(image.size))) for side in image.size)
    left, top = (width - size) // 2, (height - size) // 2
    return _scaled(image, width, height).crop((left, top, left + size, top + size))


def resize_then_centre(image: Image, size: int, *, resize: int) -> Image:
    """Scale the shorter side to `resize`, then cut the central square of `size`.

    Source: torchvision 0.26, `Resize(resize)` and `CenterCrop(size)` of a Pillow image, to the bit:
    it truncates the longer side and rounds the corner half to even.
    """
    width, height = (int(resize * side / min(image.size)) for side in image.size)
    left, top = round((width - size) / 2), round((height - size) / 2)
    return _scaled(image, width, height).crop((left, top, left + size, top + size))


def squeeze(image: Image, size: int) -> Image:
    """Scale both sides to `size`: nothing is cut off, and the proportions change."""
    return _scaled(image, size, size)


def pad(image: Image, size: int) -> Image:
    """Scale the longer side to `size`, then pad at right and bottom with black."""
    return _padded(_scaled(image, *fitted(image.size, size)), size, 0)


def pad_mask(mask: Image, size: int) -> Image:
    """Scale and pad a mask (mode L) as `pad` its image: pixels are the nearest, padding is void."""
    from PIL.Image import Resampling

    return _padded(mask.resize(fitted(mask.size, size), Resampling.NEAREST), size, VOID)


def fitted(sides: tuple[int, int], size: int) -> tuple[int, int]:
    """Return width and height after the longer one is scaled to `size`."""
    width, height = (max(1, round(side * size / max(sides))) for side in sides)
    return width, height


def _padded(image: Image, size: int, fill: int) -> Image:
    from PIL.Image import new

    square = new(image.mode, (size, size), (fill,) * len(image.getbands()))
    square.paste(image)
    return square


def _scaled(image: Image, width: int, height: int) -> Image:
    from PIL.Image import Resampling

    return image.resize((width, height), Resampling.BILINEAR)  # Pillow averages: antialiasing
