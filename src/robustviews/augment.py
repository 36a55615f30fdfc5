"""Views of images: crops and colour changes of a whole batch, on the device of the batch.

Parameters are drawn first, from random numbers that depend only on a key and a sample's counter,
not on its batch. Then they are applied; the result equals torchvision's functions on float images.

Source: arXiv 2501.03507 and its reference code, which uses torchvision's transforms on PIL images.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

from robustviews.options import LazyModule, option, switch
from robustviews.recipes import AUGMENTATIONS, SECOND, Colour

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from robustviews import colours
    from robustviews.machine import compiler, runtime
else:
    torch, runtime = LazyModule("torch"), LazyModule("robustviews.machine.runtime")
    colours = LazyModule("robustviews.colours")
    compiler = LazyModule("robustviews.machine.compiler")

_FLIP = 0.5  # probability of a horizontal flip, in every recipe
_TRIES = 10  # random windows before the central window, as in torchvision's RandomResizedCrop
_WINDOW_DRAWS, _CHANGE_DRAWS = 2 * _TRIES + 3, 13  # numbers for one view
_CPU_CHUNK, _DEVICE_CHUNK = 2**18, 2**27  # pixel values per chunk: a CPU's cache; 0.5 GiB
_ALL = slice(None)
LARGE = 96  # pixels of a view from which its changes, some 280 kernels, are worth compiling


@dataclass(frozen=True)
class Views:
    """How views of an image are drawn.

    Attributes:
        count: views V per image.
        crop: `resized` is a random window, resized to the view (RandomResizedCrop); `padded` is a
            random window of the image with a black border (supervised recipe); `none` is all of it.
        scale: smallest and largest share of the area in a window. Patches: [0.25, 0.25].
        ratio: smallest and largest width / height of a window. Patches: [1, 1].
        padding: width of the border in pixels; only for `padded`.
        augmentation: colour changes, after a horizontal flip. `simclr` has hue 0.1, no blur, no
            solarize; `simclr_blur` adds EMP-SSL's blur; `geometry` is crop and flip only.
            Recipes of solo-learn: `symmetric` (SimCLR, SwAV), `symmetric_weak` (SimSiam), and
            `asymmetric` (BYOL, MoCo v3, DINO, Barlow Twins), which solarizes every second view.
    """

    count: int = option(2, ge=1)
    crop: Literal["resized", "padded", "none"] = "resized"
    scale: tuple[float, float] = option((0.08, 1.0), gt=0, le=1)
    ratio: tuple[float, float] = option((0.75, 4 / 3), gt=0)
    padding: int = option(5, ge=0)
    augmentation: Literal[
        "emp_ssl",
        "simclr",
        "simclr_blur",
        "geometry",
        "symmetric",
        "symmetric_weak",
        "asymmetric",
    ] = switch(
        "simclr",
        code={"simclr": ("simclr",)},
        paper={"simclr": ("simclr_blur",)},
        name="simclr_augmentation",
    )

    def __post_init__(self) -> None:
        """Refuse ranges whose ends are swapped."""
        for name, (low, high) in (("scale", self.scale), ("ratio", self.ratio)):
            if low > high:
                fix = f"write {name}: [{high:g}, {low:g}]"
                raise ValueError(f"{name}: smallest first; found [{low:g}, {high:g}]; {fix}")


class Window(NamedTuple):
    """The part of an image that a view shows: (B, V) int64, in pixels."""

    top: Tensor  # in the image including its border
    left: Tensor
    height: Tensor
    width: Tensor
    flip: Tensor  # bool


class Change(NamedTuple):
    """Colour changes of a view; a change that is not applied has its neutral value."""

    order: Tensor  # (B, V, 4) int64: which change of the jitter comes first, second, ...
    factors: Tensor  # (B, V, 4): brightness, contrast, saturation (1: none), hue shift (0: none)
    gray: Tensor  # (B, V) bool
    sigma: Tensor  # (B, V): width of the blur, in pixels (0: none)
    solarize: Tensor  # (B, V) bool


def make_views(
    images: Tensor,
    views: Views,
    *,
    size: int,
    key: int,
    counters: Tensor,
    only: slice = _ALL,
    compiled: bool = False,
) -> Tensor:
    """Make the views of a batch.

    Args:
        images: (B, 3, H, W) uint8, or float in [0, 1]; any device.
        views: how views are drawn.
        size: height and width of a view, in pixels.
        key: key of the random numbers, from `runtime.counter_key`; another epoch needs another key.
        counters: (B,) int64, one number per sample, such as its index.
        only: numbers of the views to make.
        compiled: whether colour changes are compiled; only rounding depends on it.

    Returns:
        (V, B, 3, size, size) float32 in [0, 1], on the device of `images`.

    Raises:
        ValueError: shapes do not fit together.
    """
    if images.ndim != 4 or images.shape[1] != 3 or counters.shape != images.shape[:1]:
        shapes = f"{tuple(images.shape)} and {tuple(counters.shape)}"
        raise ValueError(f"images and counters: expected (B, 3, H, W) and (B,), found {shapes}")
    batch, _, height, width = images.shape
    draws = _WINDOW_DRAWS + _CHANGE_DRAWS
    numbers = runtime.counter_uniform(key, counters.to(images.device), views.count * draws)
    numbers = numbers.view(batch, views.count, draws)[:, only]
    window = draw_window(numbers[..., :_WINDOW_DRAWS], views, shape=(height, width))
    changes = [
        (shown, draw_change(numbers[:, shown, _WINDOW_DRAWS:], colour), colour)
        for shown, colour in _recipes(views, range(views.count)[only])
    ]
    result = torch.empty((numbers.shape[1], batch, 3, size, size), device=images.device)
    border = views.padding if views.crop == "padded" else 0
    chunk = _CPU_CHUNK if images.device.type == "cpu" else _DEVICE_CHUNK
    step = max(1, chunk // (views.count * 3 * size**2))
    apply = compiler.compiled(apply_change) if compiled else apply_change
    # The precision of the encoder's training must not apply to the matrix products here.
    exact = torch.autocast(images.device.type, enabled=False)
    with torch.no_grad(), exact, runtime.tf32(allowed=False):
        for first in range(0, batch, step):
            part = slice(first, first + step)
            floats = torch.nn.functional.pad(_unit(images[part]), [border] * 4)
            crops = apply_window(floats, Window(*(value[part] for value in window)), size=size)
            for shown, change, colour in changes:
                own = Change(*(value[part] for value in change))
                changed = apply(crops[:, shown], own, colour)
                result[shown, part] = changed.transpose(0, 1)
    return result.clamp_(0.0, 1.0)  # rounding can make a sum of weights exceed 1


def _recipes(views: Views, numbers: range) -> list[tuple[slice, Colour]]:
    """Return the recipe of each of the views with these numbers; all have one, or two alternate."""
    first = AUGMENTATIONS[views.augmentation]
    second = SECOND.get(views.augmentation, first)
    if first == second:
        return [(_ALL, first)]
    pair = (first, second) if numbers.start % 2 == 0 else (second, first)
    return [(slice(start, None, 2), colour) for start, colour in enumerate(pair)]


def to_float(images: Tensor, size: int) -> Tensor:
    """Turn whole images (B, 3, H, W), uint8 or float in [0, 1], into (B, 3, size, size) float32."""
    floats = _unit(images)
    if floats.shape[-2:] == (size, size):
        return floats
    return torch.nn.functional.interpolate(floats, (size, size), mode="bilinear", antialias=True)


def draw_window(numbers: Tensor, views: Views, *, shape: tuple[int, int]) -> Window:
    """Choose windows in images of a shape (H, W), distributed as in torchvision's random crops.

    `numbers` are (B, V, 23), uniform in [0, 1).
    """
    height, width = shape
    numbers = numbers.double()  # so that rounding to whole pixels is the same on every device
    flip = numbers[..., -1] < _FLIP
    if views.crop != "resized":
        free = 2 * views.padding if views.crop == "padded" else 0
        start = (numbers[..., -3:-1] * (free + 1)).long()
        none = torch.zeros_like(start[..., 0])
        return Window(start[..., 0], start[..., 1], none + height, none + width, flip)
    heights, widths, valid = _draw_sizes(numbers[..., : 2 * _TRIES], views, height, width)
    top = (numbers[..., -3] * (height - heights + 1)).long().where(valid, (height - heights) // 2)
    left = (numbers[..., -2] * (width - widths + 1)).long().where(valid, (width - widths) // 2)
    return Window(top, left, heights, widths, flip)


def draw_change(numbers: Tensor, colour: Colour) -> Change:
    """Choose colour changes, distributed as in torchvision's RandomApply(ColorJitter) and so on.

    `numbers` are (B, V, 13), uniform in [0, 1).
    """
    jitter, gray, blur, sigma, solarize = numbers[..., :5].unbind(-1)
    spread = (2.0 * numbers[..., 5:9] - 1.0) * (jitter < colour.jitter).unsqueeze(-1)
    factors = 1.0 + colour.strength * spread  # (B, V, 4)
    if colour.saturation is not None:
        factors[..., colours.SATURATION] = 1.0 + colour.saturation * spread[..., colours.SATURATION]
    factors[..., colours.HUE] = colour.hue * spread[..., colours.HUE]
    low, high = colour.sigma
    return Change(
        order=numbers[..., 9:13].argsort(dim=-1, stable=True),
        factors=factors,
        gray=gray < colour.grayscale,
        sigma=(low + (high - low) * sigma) * (blur < colour.blur),
        solarize=solarize < colour.solarize,
    )


def apply_window(images: Tensor, window: Window, *, size: int) -> Tensor:
    """Cut windows out of images (B, 3, H, W), resize them bilinearly with antialiasing, flip them.

    Returns:
        (B, V, 3, size, size): row-selecting matrix @ image @ column-selecting matrix.
    """
    height, width = images.shape[-2:]
    never = torch.zeros_like(window.flip)
    rows = _resize_matrix(window.top, window.height, never, size, height)
    columns = _resize_matrix(window.left, window.width, window.flip, size, width)
    crops: Tensor = torch.einsum("bvyh,bchw,bvxw->bvcyx", rows, images, columns)
    return crops.contiguous()


def apply_change(images: Tensor, change: Change, colour: Colour) -> Tensor:
    """Change colours of images (B, V, 3, S, S) in [0, 1]: jitter, then grayscale, blur, solarize.

    Changes with probability 0 in the recipe `colour` are skipped.
    """
    size = images.shape[-1]
    flat = Change(*(value.flatten(0, 1) for value in change))
    x = images.flatten(0, 1).flatten(2)  # (N, 3, P), N = B V and P = S S
    if colour.jitter:
        x = colours.jitter(x, flat.order, flat.factors)
    if colour.grayscale:
        x = torch.lerp(x, colours.gray(x), flat.gray.to(x.dtype).view(-1, 1, 1))
    if colour.blur:
        sigma_max = colour.sigma[1]
        matrix = colours.blur_matrix(flat.sigma, size=size, sigma_max=sigma_max)  # (N, S, S)
        x = (x.view(-1, 3 * size, size) @ matrix.mT).view(-1, 3, size, size)
        x = (matrix.unsqueeze(1) @ x).flatten(2)
    if colour.solarize:
        # min(x, 1 - x) inverts what is above 1/2; min(x, 2 - x) is x.
        x = torch.minimum(x, (2.0 - flat.solarize.to(x.dtype)).view(-1, 1, 1) - x)
    return x.view(images.shape)


def _unit(images: Tensor) -> Tensor:
    """Return images as float32 in [0, 1]; bytes are divided by 255."""
    return images.float() / 255.0 if images.dtype == torch.uint8 else images.float()


def _draw_sizes(numbers: Tensor, views: Views, height: int, width: int) -> tuple[Tensor, ...]:
    """Return the first heights and widths that fit, int64, and whether any fits; each (B, V)."""
    scale, ratio = views.scale, views.ratio
    area = height * width * (scale[0] + (scale[1] - scale[0]) * numbers[..., :_TRIES])
    low, high = math.log(ratio[0]), math.log(ratio[1])
    aspect = (low + (high - low) * numbers[..., _TRIES:]).exp()  # (B, V, tries)
    heights, widths = (area / aspect).sqrt().round().long(), (area * aspect).sqrt().round().long()
    fits = (widths > 0) & (widths <= width) & (heights > 0) & (heights <= height)
    valid, first = fits.any(-1), fits.int().argmax(-1, keepdim=True)
    # If none fits: the largest central window with a valid ratio.
    central_height = max(1, min(height, round(width / ratio[0])))
    central_width = max(1, min(width, round(height * ratio[1])))
    heights = heights.gather(-1, first).squeeze(-1).where(valid, central_height)
    widths = widths.gather(-1, first).squeeze(-1).where(valid, central_width)
    return heights, widths, valid


def _resize_matrix(start: Tensor, length: Tensor, flip: Tensor, size: int, extent: int) -> Tensor:
    """Return the weight of each of `extent` pixels in each of `size` pixels of a resized window.

    `start`, `length` and `flip` are (B, V); the result is (B, V, size, extent).
    Source: the triangle filter of torchvision's antialiased bilinear resize.
    """
    position = torch.arange(size, device=start.device)
    position = torch.where(flip.unsqueeze(-1), size - 1 - position, position)  # (B, V, size)
    scale = (length.float() / size).unsqueeze(-1)
    centre = (position + 0.5) * scale  # (B, V, size), from the start of the window
    pixel = torch.arange(extent, device=start.device) - start.unsqueeze(-1)  # (B, V, extent)
    inside = (pixel >= 0) & (pixel < length.unsqueeze(-1))
    distance = (pixel.unsqueeze(-2) + 0.5 - centre.unsqueeze(-1)).abs_()  # (B, V, size, extent)
    weights = (1.0 - distance / scale.clamp(min=1.0).unsqueeze(-1)).clamp_(min=0.0)
    weights *= inside.unsqueeze(-2)
    return weights / weights.sum(-1, keepdim=True)
