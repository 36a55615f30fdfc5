"""Profile one training step of each side: which operators its time goes to."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from typing import Any

import torch
from torch.autograd import DeviceType  # type: ignore[attr-defined]
from torch.profiler import ProfilerActivity, profile

from benchmarks import record, rounds
from benchmarks.ours import OurStep
from benchmarks.published import PublishedStep
from benchmarks.recipe import Recipe, random_images
from benchmarks.step import best_precision

KEPT = 20  # operators of each side


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """Return the options of this benchmark."""
    parser = record.arguments("profile_step", __doc__)
    parser.add_argument("--batch", type=int, help="images of a minibatch (100; --quick: 4)")
    options = parser.parse_args(argv)
    options.batch = options.batch or (4 if options.quick else Recipe.batch)
    return options


def measure(options: argparse.Namespace, device: torch.device) -> dict[str, Any]:
    """Profile a step of each side after one that warms it up; keep the whole tables as text."""
    recipe = replace(Recipe(), batch=options.batch, replays=1)
    images = random_images(recipe.batch, recipe.size)
    precision = best_precision(device)
    sides: dict[str, rounds.Work] = {
        "published": PublishedStep(images, recipe, device=device, workers=0),
        "ours": OurStep(images, recipe, device=device, precision=precision),
    }
    found = {}
    options.out.mkdir(parents=True, exist_ok=True)
    for name, side in sides.items():
        rounds.once(side, device)
        averages = profiled(side, device).key_averages()
        text = averages.table(sort_by=own_time(device), row_limit=KEPT, max_name_column_width=60)
        (options.out / f"profile_{name}.txt").write_text(text, encoding="utf-8")
        found[name] = operators(averages, device)
    return {"recipe": recipe.settings(), "precision": precision, "operators": found}


def profiled(side: rounds.Work, device: torch.device) -> Any:  # noqa: ANN401  # a profile
    """Return torch's profile of one call."""
    activities = [ProfilerActivity.CPU]
    if device.type == "cuda":
        activities.append(ProfilerActivity.CUDA)
    with profile(activities=activities, acc_events=True) as profiler:
        rounds.once(side, device)
    return profiler


def operators(averages: Any, device: torch.device) -> list[dict[str, Any]]:  # noqa: ANN401
    """Return the dearest operators: name, calls, seconds of its own and their share of all."""
    rows = own_rows(averages, device)
    own = {row.key: getattr(row, own_time(device)) * 1e-6 for row in rows}
    calls = {row.key: row.count for row in rows}
    total = sum(own.values())
    dearest = sorted(own, key=own.__getitem__, reverse=True)[:KEPT]
    return [
        {"name": key, "calls": calls[key], "seconds": own[key], "share": own[key] / total}
        for key in dearest
    ]


def own_rows(rows: Any, device: torch.device) -> list[Any]:  # noqa: ANN401
    """Return the events or averages that happened on a device: kernels on a GPU.

    An operator on the host repeats the time of its kernels, and an annotation that of all inside.
    """
    kind = DeviceType.CUDA if device.type == "cuda" else DeviceType.CPU
    return [row for row in rows if row.device_type == kind and not row.is_user_annotation]


def own_time(device: torch.device) -> str:
    """Return torch's name for the microseconds of an operator without those that it calls."""
    return f"self_{'device' if device.type == 'cuda' else 'cpu'}_time_total"


def main(argv: list[str] | None = None) -> None:
    """Measure, keep the record, print its table."""
    record.run("profile_step", parse(argv), measure)


if __name__ == "__main__":
    main(sys.argv[1:])
