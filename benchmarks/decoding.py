"""Decode a folder of photographs in shards with 1, 2, ... processes, in turns; same bytes.

    python -m benchmarks.decoding [--folder FOLDER] [--images 400]

Without a folder the photographs are noise, saved as JPEG of 500 x 375 pixels.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from robustviews.artifacts import new_array, sha256
from robustviews.datasets import framing, shards

SIZE, SHARD, ROUNDS = 224, 50, 5


def main(arguments: list[str] | None = None) -> None:
    """Decode, and print the median seconds and images per second of each number of processes."""
    import torch  # not at the top: each decoding process imports this module

    from benchmarks import rounds

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, help="of image files, without folders in it")
    parser.add_argument("--images", type=int, default=400, help="to decode (%(default)s)")
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2])
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as name:
        folder = options.folder or photographs(Path(name) / "photographs")
        found = sorted(path for path in folder.iterdir() if path.suffix.lower() != ".csv")
        files = [found[number % len(found)] for number in range(options.images)]
        hashes: set[str] = set()
        seconds = rounds.interleave(
            {
                str(count): partial(_add, hashes, files, Path(name), count)
                for count in options.processes
            },
            rounds=ROUNDS,
            device=torch.device("cpu"),
        )
    if len(hashes) != 1:
        raise SystemExit("the number of processes changed the bytes")
    first = sorted(seconds[str(options.processes[0])])[ROUNDS // 2]
    sys.stdout.write("processes  seconds  images/s  ratio\n")
    for count, times in seconds.items():
        median = sorted(times)[ROUNDS // 2]
        rate = options.images / median
        sys.stdout.write(f"{count:>9}  {median:>7.2f}  {rate:>8.0f}  {first / median:>5.2f}\n")


def _add(hashes: set[str], files: list[Path], folder: Path, processes: int) -> None:
    hashes.add(_decode(files, folder, processes))


def _decode(files: list[Path], folder: Path, processes: int) -> str:
    """Decode into a new file, and return its hash."""
    shards.discard_journals(folder)
    shards.fill(
        lambda name, shape, dtype: new_array(folder / f"{name}.npy", shape, dtype),
        "train",
        files,
        np.zeros(len(files), dtype=np.int64),
        folder=folder,
        size=SIZE,
        frame=framing.centre,
        shard=SHARD,
        processes=processes,
    )
    return sha256(folder / "train_images.npy")


def photographs(folder: Path) -> Path:
    """Write 100 JPEG files of 500 x 375 pixels into a new folder, which is returned."""
    folder.mkdir()
    random = np.random.default_rng(0)
    for number in range(100):
        coarse = random.integers(0, 256, (47, 63, 3), dtype=np.uint8)
        picture = Image.fromarray(coarse).resize((500, 375), Image.Resampling.BICUBIC)
        picture.save(folder / f"{number}.jpg", quality=95)
    return folder


if __name__ == "__main__":
    main()
