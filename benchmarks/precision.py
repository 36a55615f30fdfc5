"""Time our training step in each arithmetic that a study may choose; accuracy is another matter."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from typing import Any

import torch

from benchmarks import record, rounds
from benchmarks.ours import OurStep
from benchmarks.recipe import Recipe, random_images
from robustviews.machine import runtime


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """Return the options of this benchmark."""
    parser = record.arguments("precision", __doc__)
    parser.add_argument("--batch", type=int, help="images of a minibatch (100; --quick: 4)")
    options = parser.parse_args(argv)
    options.batch = options.batch or (4 if options.quick else Recipe.batch)
    options.rounds = options.rounds or (3 if options.quick else 5)
    return options


def measure(options: argparse.Namespace, device: torch.device) -> dict[str, Any]:
    """Time one update of the same encoder in turns."""
    recipe = replace(Recipe(), batch=options.batch, replays=1)
    images = random_images(recipe.batch, recipe.size)
    sides = {
        precision: OurStep(images, recipe, device=device, precision=precision)
        for precision in precisions(device)
    }
    seconds = rounds.interleave(sides, rounds=options.rounds, device=device)
    work = f"our update, {recipe.batch} images x {recipe.crops} crops, eager"
    native = runtime.native_bf16(device)
    rows = [
        record.comparison(
            work,
            seconds,
            ours=precision,
            rival="fp32",
            note="" if native or precision != "bf16" else "bf16 is emulated here",
        )
        for precision in list(sides)[1:]
    ]
    return {"recipe": recipe.settings(), "comparisons": rows}


def precisions(device: torch.device) -> tuple[str, ...]:
    """Return the names of what differs on a device, fp32 first."""
    return ("fp32", "tf32", "bf16") if device.type == "cuda" else ("fp32", "bf16")


def main(argv: list[str] | None = None) -> None:
    """Measure, keep the record, print its table."""
    record.run("precision", parse(argv), measure)


if __name__ == "__main__":
    main(sys.argv[1:])
