"""Time our training step at several sizes: crop-passes a second, one size changed at a time."""

from __future__ import annotations

import argparse
import statistics
import sys
from dataclasses import replace
from typing import Any

import torch

from benchmarks import record, rounds
from benchmarks.ours import OurStep
from benchmarks.recipe import Recipe, random_images
from benchmarks.step import best_precision

PASSES = 2  # minibatches of a turn, so that a perturbation is carried over once


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """Return the options of this benchmark."""
    parser = record.arguments("scaling", __doc__)
    options = parser.parse_args(argv)
    options.rounds = options.rounds or (2 if options.quick else 5)
    return options


def sizes(options: argparse.Namespace) -> list[tuple[Recipe, int]]:
    """Return recipes, each with the number of images that lie ready; the first is the base."""
    if options.quick:
        base = Recipe(batch=16, crops=4, width=8, size=16, hidden=256, projection=64)
        changes: list[dict[str, int]] = [{"width": 16}]
    elif options.device == "cpu":
        base = Recipe(batch=32, crops=4, width=16, hidden=512, projection=128)
        changes = [{"width": 8}, {"width": 32}, {"size": 16}]
    else:
        base, changes = Recipe(), [{"width": 16}, {"width": 128}, {"size": 64}]
    changes += [{"crops": 2 * base.crops}, {"batch": 2 * base.batch}]
    few = base.batch * PASSES
    rows = [(base, few), *((replace(base, **change), few) for change in changes)]
    return [*rows, (base, 50_000)]


def measure(options: argparse.Namespace, device: torch.device) -> dict[str, Any]:
    """Time a turn at each size."""
    precision = best_precision(device)
    rows = []
    for recipe, count in sizes(options):
        images = random_images(max(count, recipe.batch * PASSES), recipe.size)
        step = OurStep(images, recipe, device=device, precision=precision, minibatches=PASSES)
        seconds = rounds.interleave({"ours": step}, rounds=options.rounds, device=device)["ours"]
        passes = recipe.crop_passes * PASSES
        rows.append(
            {
                **recipe.settings(),
                "images": len(images),
                "precision": precision,
                "seconds": seconds,
                "rate": passes / statistics.median(seconds),
            }
        )
    return {"rates": rows}


def main(argv: list[str] | None = None) -> None:
    """Measure, keep the record, print its table."""
    record.run("scaling", parse(argv), measure)


if __name__ == "__main__":
    main(sys.argv[1:])
