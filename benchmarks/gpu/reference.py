"""The published script as a rival: executed from a folder that the user brings, unchanged.

Source: main_empssl_free_adv.py of github.com/softsys4ai/CF-AMC-SSL (MIT). Nothing of it is here.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import statistics
import sys
import types
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from benchmarks import rounds
from benchmarks.recipe import Recipe

SCRIPT = "main_empssl_free_adv.py"
# Modules that the script imports although no step uses them.
UNUSED = ("func", "matplotlib", "matplotlib.pyplot", "tqdm")
OWN = ("dataset", "model", "loss", "lars")  # modules and packages of its folder


class PublishedScript:
    """The published training; a call trains one pass over the images, workers started anew."""

    def __init__(
        self, folder: Path, images: Tensor, recipe: Recipe, *, device: torch.device, workers: int
    ) -> None:
        """Take (N, 3, H, W) uint8 images; N / batch minibatches are a turn."""
        source = (folder / SCRIPT).read_text(encoding="utf-8")
        source = source.replace("num_workers=16", f"num_workers={workers}")
        if device.type == "cpu":
            source = source.replace(".cuda()", "")
        self.images = Images(images)
        with _imports(folder, self.images), _arguments(recipe), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.space: dict[str, Any] = {"__name__": "reference", "print": _silent}
            exec(compile(source, SCRIPT, "exec"), self.space)

    def __call__(self) -> None:
        """Train on every minibatch once."""
        self.space["main"]()


class Images(torch.utils.data.Dataset[tuple[list[Tensor], int]]):
    """Images in memory instead of the data set that the script would download."""

    transform: Callable[[Image.Image], list[Tensor]]

    def __init__(self, images: Tensor) -> None:
        self.pixels = images.permute(0, 2, 3, 1).numpy()

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.pixels)

    def __getitem__(self, index: int) -> tuple[list[Tensor], int]:
        """Return the crops of an image, and a label that nobody reads."""
        return self.transform(Image.fromarray(self.pixels[index])), 0


def start_up(script: PublishedScript, seconds: list[float], device: torch.device) -> float:
    """Return the seconds of a turn in which workers start: twice a turn, less one twice as long.

    Args:
        script: the rival; its images are doubled for this one turn.
        seconds: of its turns.
        device: of its network.
    """
    pixels = script.images.pixels
    script.images.pixels = pixels.repeat(2, axis=0)
    try:
        twice = rounds.once(script, device)
    finally:
        script.images.pixels = pixels
    return max(0.0, 2 * statistics.median(seconds) - twice)


@contextlib.contextmanager
def _imports(folder: Path, images: Images) -> Iterator[None]:
    """Let a block import the modules of a folder, with stand-ins for what no step uses."""
    names = [*UNUSED, *OWN]
    hidden = {
        name: sys.modules.pop(name)
        for name in list(sys.modules)
        if name in names or name.startswith(tuple(f"{own}." for own in OWN))
    }
    for name in UNUSED:
        sys.modules[name] = types.ModuleType(name)
    sys.modules["func"].chunk_avg = None  # type: ignore[attr-defined]
    sys.modules["matplotlib"].pyplot = sys.modules["matplotlib.pyplot"]  # type: ignore[attr-defined]
    sys.modules["tqdm"].tqdm = lambda rows: rows  # type: ignore[attr-defined]
    sys.path.insert(0, str(folder.resolve()))
    try:
        views = importlib.import_module("dataset.aug").ContrastiveLearningViewGenerator
        _offer(importlib.import_module("dataset.datasets"), images, views)
        yield
    finally:
        sys.path.remove(str(folder.resolve()))
        for name in list(sys.modules):
            if name in names or name.startswith(tuple(f"{own}." for own in OWN)):
                del sys.modules[name]
        sys.modules.update(hidden)


def _offer(datasets: types.ModuleType, images: Images, views: Callable[..., Any]) -> None:
    """Replace the function that loads CIFAR-10 from a file by one that returns the images."""

    def load(args: argparse.Namespace, *_: object, num_patch: int, **__: object) -> Images:
        ranges = {key: getattr(args, key) for key in _RANGES}
        images.transform = views(num_patch=num_patch, **ranges)
        return images

    datasets.load_dataset = load  # type: ignore[attr-defined]


_RANGES = ("scale_min", "scale_max", "ratio_min", "ratio_max")


@contextlib.contextmanager
def _arguments(recipe: Recipe) -> Iterator[None]:
    """Give the script its command line."""
    before = sys.argv
    sizes = {"bs": recipe.batch, "num_patches": recipe.crops, "m": recipe.replays, "epoch": 1}
    sys.argv = [
        SCRIPT,
        *(word for key, value in sizes.items() for word in (f"--{key}", f"{value}")),
    ]
    try:
        yield
    finally:
        sys.argv = before


def _silent(*words: object, **options: object) -> None:
    """Print nothing."""
