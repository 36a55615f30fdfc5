"""Time EMP-SSL's views of a batch, ours against PIL, torchvision and kornia."""

from __future__ import annotations

import argparse
import importlib.util
import sys
from collections.abc import Callable
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn
from torchvision.transforms import v2

from benchmarks import published, record, rounds
from benchmarks.recipe import Recipe, random_images
from robustviews import augment

BAR = 2.0
PIL, TORCHVISION = "PIL", "torchvision v2, a sample at a time"
ON_CPU = "rival on one CPU thread, and not yet copied to the device"
SCALE, RATIO = (0.08, 1.0), (3 / 4, 4 / 3)
JITTER = {"brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "hue": 0.2}
TAPS, SIGMA = 13, (0.1, 2.0)  # of the blur
KORNIA_CHUNK = 256  # crops at a time: what a CPU's cache holds; a GPU takes all
Pipeline = Callable[[Tensor], Tensor]


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """Return the options of this benchmark."""
    parser = record.arguments("augmentation", __doc__, threads=1)
    parser.add_argument("--images", type=int, help="of a batch (100; --quick: 25)")
    parser.add_argument("--no-compile", action="store_true", help="leave torch.compile out")
    options = parser.parse_args(argv)
    options.images = options.images or (25 if options.quick else Recipe.batch)
    options.rounds = options.rounds or 5
    return options


def measure(options: argparse.Namespace, device: torch.device) -> dict[str, Any]:
    """Time all pipelines in turns on the same images."""
    recipe = Recipe()
    images = random_images(options.images, recipe.size)
    there = images.to(device)
    sides: dict[str, rounds.Work] = {
        PIL: lambda: pil(images, recipe),
        TORCHVISION: lambda: torchvision(images, recipe),
        "ours, eager": lambda: ours(there, recipe),
    }
    skipped = []
    if options.no_compile or options.quick:
        skipped.append(
            {"rival": "ours, compiled", "reason": "compiling takes a minute; not with --quick"}
        )
    else:
        sides["ours, compiled"] = torch.compile(
            lambda: ours(there, recipe), dynamic=False, fullgraph=True
        )
    if importlib.util.find_spec("kornia") is None:
        skipped.append({"rival": "kornia", "reason": "kornia is not installed: make setup"})
    else:
        pipeline = kornia(recipe)
        sides["kornia"] = lambda: in_chunks(pipeline, there, recipe.crops)
    skipped.extend(failing(sides))
    work = f"views of {options.images} images x {recipe.crops} crops"
    seconds = rounds.interleave(sides, rounds=options.rounds, device=device)
    return {
        "crops": options.images * recipe.crops,
        "comparisons": compared(work, seconds, on_gpu=device.type == "cuda"),
        "skipped": [{"work": work, **row} for row in skipped],
    }


def compared(work: str, seconds: rounds.Seconds, *, on_gpu: bool) -> list[dict[str, Any]]:
    """Return ours, eager, against everything, and compiled against PIL."""
    eager, compiled = "ours, eager", "ours, compiled"
    pairs = [(eager, rival) for rival in seconds if rival not in (eager, compiled)]
    if compiled in seconds:
        pairs.append((compiled, PIL))
    return [
        record.comparison(
            work,
            seconds,
            ours=side,
            rival=rival,
            bar=BAR if (side, rival) == (eager, PIL) else None,
            note=ON_CPU if on_gpu and rival in (PIL, TORCHVISION) else "",
        )
        for side, rival in pairs
    ]


def failing(sides: dict[str, rounds.Work]) -> list[dict[str, str]]:
    """Drop the compiled side where compiling fails; return why."""
    name = "ours, compiled"
    if name not in sides:
        return []
    try:
        sides[name]()
    except Exception as error:  # a compiler fails in many ways
        del sides[name]
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        return [{"rival": name, "reason": reason[:120]}]
    return []


def ours(images: Tensor, recipe: Recipe) -> Tensor:
    """Return the views (V, B, 3, S, S) of images (B, 3, H, W) uint8, on their device."""
    counters = torch.arange(len(images), device=images.device)
    views = augment.Views(count=recipe.crops, augmentation="emp_ssl")
    return augment.make_views(images, views, size=recipe.size, key=1, counters=counters)


def pil(images: Tensor, recipe: Recipe) -> Tensor:
    """Return views (B V, 3, S, S), as a published script makes them."""
    transform = published.pil_transform(recipe.size)
    made: list[Tensor] = []
    for array in images.permute(0, 2, 3, 1).numpy():
        image = Image.fromarray(array)
        made.extend(transform(image) for _ in range(recipe.crops))
    return torch.stack(made)


def torchvision(images: Tensor, recipe: Recipe) -> Tensor:
    """Return views (B V, 3, S, S), made one at a time by torchvision's tensor transforms."""
    transform = v2.Compose(
        [
            v2.RandomResizedCrop(recipe.size, scale=SCALE, ratio=RATIO, antialias=True),
            v2.RandomHorizontalFlip(0.5),
            v2.RandomApply([v2.ColorJitter(**JITTER)], p=0.8),
            v2.RandomGrayscale(0.2),
            v2.RandomApply([v2.GaussianBlur(TAPS, SIGMA)], p=0.1),
            v2.RandomSolarize(threshold=128, p=0.1),
            v2.ToDtype(torch.float32, scale=True),
        ]
    )
    return torch.stack([transform(image) for image in images for _ in range(recipe.crops)])


def kornia(recipe: Recipe) -> nn.Module:
    """Return kornia's transforms of a float batch (N, 3, S, S), drawn anew for each sample."""
    import kornia.augmentation as k  # as in kornia's own examples

    size = (recipe.size, recipe.size)
    return nn.Sequential(
        k.RandomResizedCrop(size, scale=SCALE, ratio=RATIO),
        k.RandomHorizontalFlip(p=0.5),
        k.ColorJitter(**JITTER, p=0.8),
        k.RandomGrayscale(p=0.2),
        k.RandomGaussianBlur((TAPS, TAPS), SIGMA, p=0.1),
        k.RandomSolarize(thresholds=(0.5, 0.5), additions=(0.0, 0.0), p=0.1),
    )


def in_chunks(pipeline: nn.Module, images: Tensor, crops: int) -> Tensor:
    """Return views (V B, 3, S, S) of images (B, 3, H, W) uint8, some at a time on a CPU."""
    repeated = (images.float() / 255.0).repeat(crops, 1, 1, 1)
    chunk = KORNIA_CHUNK if images.device.type == "cpu" else len(repeated)
    return torch.cat([pipeline(part) for part in repeated.split(chunk)])


def main(argv: list[str] | None = None) -> None:
    """Measure, keep the record, print its table."""
    record.run("augmentation", parse(argv), measure)


if __name__ == "__main__":
    main(sys.argv[1:])
