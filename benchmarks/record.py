"""Keep what was measured, and on what, as JSON under `benchmarks/results`."""

from __future__ import annotations

import argparse
import datetime
import functools
import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks import table
from benchmarks.rounds import Seconds, ratio
from robustviews.machine import runtime

ROOT = Path(__file__).parents[1]
Measure = Callable[[argparse.Namespace, torch.device], dict[str, Any]]


def arguments(name: str, description: str | None, *, threads: int = 2) -> argparse.ArgumentParser:
    """Return a parser of the options that all benchmarks have.

    Args:
        name: of the benchmark.
        description: docstring of its module.
        threads: of torch on the CPU, unless told otherwise.
    """
    summary = (description or "").partition("\n")[0]
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{name}", description=summary)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--quick", action="store_true", help="small sizes: all in five minutes")
    parser.add_argument("--threads", type=int, default=threads, help="of torch (%(default)s)")
    parser.add_argument("--rounds", type=int, help="measured turns of each side")
    parser.add_argument("--out", type=Path, default=table.RESULTS, help="folder of the JSON")
    return parser


def run(name: str, options: argparse.Namespace, measure: Measure) -> Path:
    """Set the process up as a training does, measure, keep the record, and print its tables.

    Args:
        name: of the benchmark.
        options: as given on the command line.
        measure: returns what it found, given the options and the device.

    Returns:
        The path of the record.
    """
    runtime.configure(threads=options.threads, deterministic=False, tuned=True)
    device = runtime.choose_device(options.device)
    revision()  # of the code that is about to run, not of what another commit makes of it meanwhile
    path = write(name, measure(options, device), options=options, device=device)
    print(table.markdown([path]), flush=True)
    return path


def comparison(
    work: str,
    seconds: Seconds,
    *,
    ours: str,
    rival: str,
    bar: float | None = None,
    note: str = "",
) -> dict[str, Any]:
    """Return a row: how many times faster ours did some work than a rival.

    Args:
        work: what was done, with its sizes.
        seconds: of each side, a round each.
        ours: name of our side.
        rival: name of the other one.
        bar: ratio that is aimed at.
        note: what one must know to read the ratio.
    """
    return {
        **{"work": work, "ours": ours, "rival": rival, "bar": bar, "note": note},
        "seconds": {ours: seconds[ours], rival: seconds[rival]},
        "ratio": ratio(seconds[rival], seconds[ours]),
    }


def write(
    name: str,
    measured: dict[str, Any],
    *,
    options: argparse.Namespace,
    device: torch.device,
) -> Path:
    """Write a record and return its path.

    Args:
        name: of the benchmark, and of the file.
        measured: its rows and whatever else it found.
        options: as given on the command line.
        device: that was measured.
    """
    settings = {key: value for key, value in vars(options).items() if key != "out"}
    record = {
        "benchmark": name,
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        **revision(),
        "cores": os.cpu_count(),
        **runtime.environment(device),
        "native_bf16": runtime.native_bf16(device),
        "options": settings,
        **measured,
    }
    options.out.mkdir(parents=True, exist_ok=True)
    path: Path = options.out / f"{name}.json"
    path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    return path


@functools.cache
def revision() -> dict[str, Any]:
    """Return the commit, as of the first call in this process, and whether files differ from it."""
    return {
        "commit": _git("rev-parse", "--short", "HEAD"),
        "modified": bool(_git("status", "--porcelain", "--", "src", "benchmarks")),
    }


def _git(*words: str) -> str | None:
    """Return what git says; None without git or a repository."""
    try:
        done = subprocess.run(["git", *words], cwd=ROOT, check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()
