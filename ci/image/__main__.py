"""Time the demonstration in the image and on the host, in turns: `python -m ci.image`."""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from ci.image.machine import REPOSITORY, machine, obstacle
from tests.workflow.project import Project

ROUNDS = 3
STUDY = REPOSITORY / "params.yaml"


def seconds(function: Callable[..., object], *arguments: object) -> float:
    """Return how long a call takes."""
    start = time.monotonic()
    function(*arguments)
    return time.monotonic() - start


reason = obstacle()
if reason:
    sys.exit(reason)
with machine() as here, tempfile.TemporaryDirectory() as folder:
    here.check_out(STUDY)
    print(f"image, cold: {seconds(here.make, 'image'):.1f} s")
    print(f"image, again: {seconds(here.make, 'image'):.1f} s", flush=True)
    ratios = []
    for turn in range(ROUNDS):
        host = Project.create(Path(folder) / str(turn), STUDY)
        sides = {
            "image": lambda turn=turn: here.make("demo-in-image", f"FOLDER=demo{turn}"),
            "host": lambda host=host: host.snakemake().said(),
        }
        order = list(sides) if turn % 2 else list(reversed(sides))
        took = {side: seconds(sides[side]) for side in order}
        ratios.append(took["image"] / took["host"])
        print(f"image {took['image']:.1f} s, host {took['host']:.1f} s", flush=True)
    median, low, high = statistics.median(ratios), min(ratios), max(ratios)
    print(f"demonstration, image against host: {median:.2f} ({low:.2f}-{high:.2f})")
