"""Time a whole CF-AMC-SSL step, from bytes to updated parameters, against a published one."""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import replace
from typing import Any

import torch

from benchmarks import parts, record, rounds
from benchmarks.ours import OurStep
from benchmarks.published import PublishedStep
from benchmarks.recipe import Recipe, random_images
from robustviews.machine import runtime

BAR = 2.5
QUICK_BATCH = 4  # images; a step of 100 takes minutes a side on two slow cores


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """Return the options of this benchmark."""
    parser = record.arguments("step", __doc__)
    parser.add_argument("--batch", type=int, help="images of a minibatch (100; --quick: 4)")
    parser.add_argument("--minibatches", type=int, help="of a turn (1; on CUDA 32, --quick: 8)")
    parser.add_argument("--workers", type=int, help="of the published DataLoader (CPU cores)")
    parser.add_argument(
        "--precision",
        choices=("auto", "fp32", "tf32", "bf16"),
        default="auto",
        help="of our side; auto: bf16 where the hardware multiplies it, else fp32",
    )
    options = parser.parse_args(argv)
    options.batch = options.batch or (QUICK_BATCH if options.quick else Recipe.batch)
    # On a GPU the workers run ahead: only for the first minibatch of a turn has one to wait.
    many = 8 if options.quick else 32
    options.minibatches = options.minibatches or (1 if options.device == "cpu" else many)
    options.rounds = options.rounds or (3 if options.quick else 5)
    options.workers = os.cpu_count() if options.workers is None else options.workers
    return options


def measure(options: argparse.Namespace, device: torch.device) -> dict[str, Any]:
    """Time both steps in turns, then their parts."""
    recipe = replace(Recipe(), batch=options.batch)
    precision = best_precision(device) if options.precision == "auto" else options.precision
    images = random_images(recipe.batch * options.minibatches, recipe.size)
    published = PublishedStep(images, recipe, device=device, workers=options.workers)
    ours = OurStep(images, recipe, device=device, precision=precision, compiled=True)
    sides: dict[str, Any] = {"published": published, "ours": ours}
    seconds = rounds.interleave(sides, rounds=options.rounds, device=device)
    split = {name: parts.split(side, device) for name, side in sides.items()}
    row = record.comparison(
        f"training step, {recipe.batch} images x {recipe.crops} crops, m={recipe.replays}",
        seconds,
        ours="ours",
        rival="published",
        bar=BAR,
        note=note(precision),
    )
    return {
        "recipe": recipe.settings(),
        "precision": {"ours": precision, "published": published_precision(device)},
        "compilation": ours.compilation,
        "crop_passes": recipe.crop_passes * options.minibatches,
        "comparisons": [row],
        "parts": split,
    }


def best_precision(device: torch.device) -> str:
    """Return the fastest arithmetic that a training may choose on a device."""
    return "bf16" if runtime.native_bf16(device) else "fp32"


def published_precision(device: torch.device) -> str:
    """Return the arithmetic of the published step: what torch does unless it is told otherwise."""
    return "fp32, convolutions in TF32" if device.type == "cuda" else "fp32"


def note(precision: str) -> str:
    """Return what one must know to read the ratio."""
    return f"ours in {precision}" + ("; no native bf16 here" if precision == "fp32" else "")


def main(argv: list[str] | None = None) -> None:
    """Measure, keep the record, print its table."""
    record.run("step", parse(argv), measure)


if __name__ == "__main__":
    main(sys.argv[1:])
