"""Measure the start of a job: Python, imports, and the first use of libraries.

In a small study the start takes most of the time. A new process measures it by running the smallest
possible job of a rule.
"""

from __future__ import annotations

import contextlib
import importlib
import itertools
import math
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from robustviews.augment import Views
from robustviews.datasets import Digits
from robustviews.methods import SimClr
from robustviews.regimes import Standard
from robustviews.study.schema import Encoder, Optimizer
from robustviews.workflow import server

if TYPE_CHECKING:
    import torch

_BEGIN = "import sys; from robustviews.estimating.start_up import begin; begin(*sys.argv[1:])"
_RSS_UNIT = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss, in bytes


def starts(
    abouts: Sequence[dict[str, Any]], device: torch.device, seconds: float, *, at_once: int
) -> list[dict[str, float]]:
    """Answer questions `start` with as many processes at a time as jobs will run.

    Starts slow each other down: they wait for the same cores, files and memory.

    Args:
        abouts: options of the questions: the kind of job, as in `begin`.
        device: device of the processes; GPU memory is not counted.
        seconds: time limit of a process, at least a minute.
        at_once: jobs at a time; questions are repeated until so many processes run to the end.

    Returns:
        For each question, seconds of a process before its work, and bytes of host memory.
    """
    count = at_once * math.ceil(len(abouts) / at_once)
    repeated = itertools.islice(itertools.cycle(abouts), count)
    with ThreadPoolExecutor(at_once) as pool:
        answers = list(pool.map(lambda about: _start(about, device, seconds), repeated))
    return answers[: len(abouts)]


def _start(about: dict[str, Any], device: torch.device, seconds: float) -> dict[str, float]:
    """On a CPU, jobs are forks of a server, which has imported what they need."""
    arguments = [about["kind"], str(device), str(about["threads"])]
    before = time.monotonic()
    process = subprocess.run(
        [sys.executable, "-c", _BEGIN, *arguments],
        capture_output=True,
        text=True,
        check=True,
        timeout=max(60.0, seconds),
    )
    took, (forked, peak) = time.monotonic() - before, map(float, process.stdout.split()[-2:])
    if device.type == "cpu" and server.is_possible():
        took = forked
    return {"seconds": took, "bytes": peak}


def begin(kind: str, device: str, threads: str) -> None:
    """Run the smallest possible job of a rule; print its seconds after imports, and peak bytes.

    Args:
        kind: `data`, `train` (pretraining, probes and attacks), `table` or `figure`.
        device: device of the job.
        threads: threads of the job.
    """
    beginnings: dict[str, tuple[str, Callable[[], None]]] = {
        "data": ("data", _data),
        "train": ("pretrain", lambda: _training(device, int(threads))),
        "table": ("table", lambda: _import("cli.report")),
        "figure": ("figure", _figure),
    }
    verb, run = beginnings[kind]
    server.import_for(verb)
    imported = time.monotonic()
    run()
    peak = 0 if device.startswith("cuda") else _peak_bytes()
    sys.stdout.write(f"{time.monotonic() - imported} {peak}\n")


def _peak_bytes() -> int:
    """Return the peak memory of this process in bytes."""
    with contextlib.suppress(OSError), Path("/proc/self/status").open(encoding="utf-8") as lines:
        for line in lines:
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    # Outside Linux; on Linux this value is at least that of the parent process.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _RSS_UNIT


def _import(*modules: str) -> None:
    for module in modules:
        importlib.import_module(f"robustviews.{module}")


def _data() -> None:
    _import("cli.stages")
    Digits().prepare(lambda _, shape, dtype: np.empty(shape, dtype))


def _training(device: str, threads: int) -> None:
    import torch

    from robustviews.estimating import measure
    from robustviews.machine import runtime

    _import("cli.stages")
    runtime.configure(threads=threads, deterministic=True)
    about = {
        "method": SimClr(),
        "regime": Standard(),
        "views": Views(),
        "encoder": Encoder(width=2, hidden=8, projection=4),
        "optimizer": Optimizer(),
        "batch_size": 2,
        "classes": 0,
        "precision": "fp32",
        "size": 8,
    }
    next(measure.training_step(about, torch.device(device), 0.0))


def _figure() -> None:
    from matplotlib.figure import Figure

    from robustviews.reporting import figures

    _import("cli.report", "pages.report")
    drawing = Figure()
    drawing.subplots().plot([0, 1], label="line")
    figures.to_svg(drawing)
    figures.to_png(drawing)
