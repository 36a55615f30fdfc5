"""Time a training in two processes of one thread against one process of two threads, and of one."""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from torch import distributed as processes

from benchmarks import record
from benchmarks.recipe import Recipe, random_images
from robustviews.augment import Views
from robustviews.encoder import build_encoder
from robustviews.machine import runtime
from robustviews.methods import EmpSsl
from robustviews.pretrain import pretrain
from robustviews.regimes import Free

MINIBATCHES = 2  # of a turn
SIDES = {  # name: processes, threads of each
    "2 processes x 1 thread": (2, 1),
    "1 process x 2 threads": (1, 2),
    "1 process x 1 thread": (1, 1),
}


@dataclass(frozen=True)
class Turn:
    """What a process says of a turn: its seconds, those that sums over ranks took, and how many."""

    seconds: float
    talking: float
    sums: int


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """Return the options of this benchmark."""
    parser = record.arguments("ranks", __doc__)
    options = parser.parse_args(argv)
    options.rounds = options.rounds or (2 if options.quick else 5)
    return options


def measure(options: argparse.Namespace, device: torch.device) -> dict[str, Any]:
    """Time the sides in turns; ranks wait for each other in every turn."""
    if device.type != "cpu":
        sys.exit("benchmarks.ranks: measures processes on a CPU; leave --device out")
    recipe = Recipe(batch=128, crops=4, width=16, hidden=512, projection=128)
    if options.quick:
        recipe = Recipe(batch=16, crops=4, width=8, size=16, hidden=256, projection=64)
    seconds: dict[str, list[float]] = {side: [] for side in SIDES}
    talks: list[Turn] = []
    with hired(recipe) as groups:
        for turn in range(options.rounds + 1):
            for side in list(SIDES) if turn % 2 else list(reversed(SIDES)):
                turns = take(groups[side])
                if turn:  # the first is for warming up
                    seconds[side].append(max(each.seconds for each in turns))
                    talks += turns if len(turns) > 1 else []
    ours, *rivals = SIDES
    work = f"training, {recipe.crops} x {recipe.batch} crops, width {recipe.width}"
    shares = [each.talking / each.seconds for each in talks]
    each_sum = statistics.median(each.talking / each.sums for each in talks)
    note = (
        f"{statistics.median(shares):.0%} of the time in {talks[0].sums} sums over ranks, "
        f"{each_sum * 1e3:.1f} ms each, waiting included"
    )
    rows = [record.comparison(work, seconds, ours=ours, rival=rival, note=note) for rival in rivals]
    return {"recipe": recipe.settings(), "talking": shares, "comparisons": rows}


@contextmanager
def hired(recipe: Recipe) -> Iterator[dict[str, list[Connection]]]:
    """Yield lines to processes of every side, each of which trains a turn when it is told to."""
    spawn = multiprocessing.get_context("spawn")
    groups: dict[str, list[Connection]] = {}
    workers = []
    with tempfile.TemporaryDirectory() as folder:
        for number, (side, (ranks, threads)) in enumerate(SIDES.items()):
            groups[side] = []
            for rank in range(ranks):
                here, there = spawn.Pipe()
                arguments = (there, recipe, Path(folder) / str(number), rank, ranks, threads)
                workers.append(spawn.Process(target=serve, args=arguments, daemon=True))
                workers[-1].start()
                groups[side].append(here)
        try:
            yield groups
        finally:
            for line in (line for lines in groups.values() for line in lines):
                line.send(False)
            for worker in workers:
                worker.join(timeout=10)


def take(lines: list[Connection]) -> list[Turn]:
    """Have a group train a turn; return what each process says of it."""
    for line in lines:
        line.send(True)
    return [line.recv() for line in lines]


def serve(
    line: Connection, recipe: Recipe, meeting: Path, rank: int, ranks: int, threads: int
) -> None:
    """Be one process of a side: train whenever the line says so."""
    runtime.configure(threads=threads, deterministic=False)
    sums: list[float] = []
    if ranks > 1:
        processes.init_process_group(
            "gloo", init_method=f"file://{meeting}", rank=rank, world_size=ranks
        )
        clock_sums(sums)
    while line.recv():
        sums.clear()
        seconds = train(recipe)
        line.send(Turn(seconds, sum(sums), len(sums)))
    if ranks > 1:
        processes.destroy_process_group()


def train(recipe: Recipe) -> float:
    """Train a turn; return its seconds."""
    encoder = build_encoder(width=recipe.width, hidden=recipe.hidden, projection=recipe.projection)
    images = random_images(recipe.batch * MINIBATCHES, recipe.size)
    begin = time.perf_counter()
    pretrain(
        encoder,
        images,
        torch.zeros(len(images), dtype=torch.int64),
        method=EmpSsl(tcr_eps=recipe.tcr_eps),
        regime=Free(replays=recipe.replays),
        views=Views(count=recipe.crops, augmentation="emp_ssl"),
        size=recipe.size,
        epochs=1,
        batch_size=recipe.batch,
        optimizer={
            "name": "lars",
            "lr": 0.003,  # with more, so small a network collapses
            "momentum": recipe.momentum,
            "weight_decay": recipe.weight_decay,
            "eta": recipe.eta,
            "schedule": "constant",
            "schedule_horizon": "updates",
        },
    )
    return time.perf_counter() - begin


def clock_sums(seconds: list[float]) -> None:
    """Note the seconds of every sum over ranks from now on."""
    original = processes.all_reduce

    def timed(*arguments: Any, **options: Any) -> Any:  # noqa: ANN401  # torch's own
        begin = time.perf_counter()
        done = original(*arguments, **options)
        seconds.append(time.perf_counter() - begin)
        return done

    processes.all_reduce = timed


def main(argv: list[str] | None = None) -> None:
    """Measure, keep the record, print its table."""
    record.run("ranks", parse(argv), measure)


if __name__ == "__main__":
    main(sys.argv[1:])
