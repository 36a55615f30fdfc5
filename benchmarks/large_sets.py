"""Memory that sets of more and more photographs take: decoded into shards, and read for a training.

    python -m benchmarks.large_sets [--images 1000 4000 16000] [--shard 500]

Each file is a link to one of 100 JPEG photographs of 500 x 375 pixels. The processes are new for
each number of images. `decode` is the process that starts the others, `worker` the largest of the
two that decode, `read` one that reads every image once in a random order.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.decoding import photographs
from robustviews.artifacts import new_array
from robustviews.datasets import open_split, shards

SIZE, BATCH, PROCESSES = 224, 256, 2


def main(arguments: list[str] | None = None) -> None:
    """Print a line per number of images."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, nargs="+", default=[1000, 4000, 16000])
    parser.add_argument("--shard", type=int, default=500, help="images in a file (%(default)s)")
    options = parser.parse_args(arguments)
    sys.stdout.write("images  files     GB  decode MB  worker MB  images/s  read MB  images/s\n")
    for count in options.images:
        with tempfile.TemporaryDirectory() as name:
            found = sorted(photographs(Path(name) / "photographs").iterdir())
            source, made = Path(name) / "source", Path(name) / "made"
            source.mkdir()
            made.mkdir()
            for number in range(count):
                os.link(found[number % len(found)], source / f"{number:07}.jpg")
            seconds, own, worker = _alone(_decode, source, made, options.shard)
            read_seconds, read, _ = _alone(_read, made)
            files = list(made.glob("*_images*.npy"))
            size = sum(path.stat().st_size for path in files) / 1e9
        sys.stdout.write(
            f"{count:>6}  {len(files):>5}  {size:>5.2f}  {own:>9.0f}  {worker:>9.0f}  "
            f"{count / seconds:>8.0f}  {read:>7.0f}  {count / read_seconds:>8.0f}\n"
        )


def _alone(function: Callable[..., None], *arguments: Any) -> tuple[float, float, float]:  # noqa: ANN401
    """Return the seconds of a function in a new process, and the peaks of it and its children."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_measured, function, *arguments).result()


def _measured(function: Callable[..., None], *arguments: Any) -> tuple[float, float, float]:  # noqa: ANN401
    started = time.perf_counter()
    function(*arguments)
    seconds = time.perf_counter() - started
    unit = 1e3 if sys.platform == "linux" else 1e6  # KiB, or bytes on a Mac
    own, children = (
        resource.getrusage(who).ru_maxrss / unit
        for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    return seconds, own, children


def _decode(source: Path, made: Path, shard: int) -> None:
    files = sorted(source.iterdir())
    shards.fill(
        lambda name, shape, dtype: new_array(made / f"{name}.npy", shape, dtype),
        "train",
        files,
        np.zeros(len(files), dtype=np.int64),
        folder=source,
        size=SIZE,
        shard=shard,
        processes=PROCESSES,
    )


def _read(made: Path) -> None:
    import torch  # not at the top: each decoding process imports this module

    from robustviews.machine.feed import Mapped

    images, _ = open_split(made, "train")
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    for _ in Mapped(images, torch.device("cpu")).batches(order.split(BATCH)):
        pass


if __name__ == "__main__":
    main()
