"""What `robustviews estimate` says of a study beside what the study takes, in a clean clone.

    python -m benchmarks.estimate [--study params.yaml]

The clone has the last commit. Jobs without a record, such as tables, have no time of their own;
they are a part of the whole. A record has no time of imports and of reading the study.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from robustviews.artifacts.records import Record
from robustviews.machine.humanize import duration

REPOSITORY = Path(__file__).parents[1]


def main(arguments: list[str] | None = None) -> None:
    """Estimate a study, run it, and print both times of each rule."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--study", default="params.yaml", help="study file (%(default)s)")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        clone = Path(folder) / "clone"
        subprocess.run(["git", "clone", "--quiet", REPOSITORY, clone], check=True)
        verb = ["robustviews", "estimate", "--json", "--study", options.study]
        estimate = json.loads(_run(clone, *verb, capture_output=True).stdout)
        start = time.monotonic()
        _run(clone, "snakemake", "--config", f"study={options.study}")
        whole = time.monotonic() - start
        for line in lines(estimate, timed(clone), whole):
            sys.stdout.write(f"{line}\n")


def timed(folder: Path) -> dict[str, float]:
    """Return the seconds of all jobs of each rule, from the records in a folder."""
    seconds: dict[str, float] = defaultdict(float)
    for path in folder.rglob("record.json"):
        record = Record.read(path)
        seconds[record.stage] += record.seconds or 0.0
    return dict(seconds)


def lines(estimate: dict[str, Any], took: dict[str, float], whole: float) -> Iterator[str]:
    """Yield a table: estimated and actual time of each rule and of the whole, and their ratio.

    Args:
        estimate: what `robustviews estimate --json` prints.
        took: seconds of the jobs of each rule.
        whole: seconds of the whole study.
    """
    expected: dict[str, float] = defaultdict(float)
    for job in estimate["jobs"]:
        expected[job["rule"]] += job["seconds"] or 0.0
    at_once = f"whole, {estimate['at_once']} at a time"
    yield f"{'rule':20} {'estimated':>12} {'took':>12} ratio"
    for rule, seconds in [*expected.items(), (at_once, estimate["seconds"])]:
        actual = whole if rule == at_once else took.get(rule)
        shown = ("-", "") if actual is None else (duration(actual), f"{seconds / actual:.2f}")
        yield f"{rule:20} {duration(seconds):>12} {shown[0]:>12} {shown[1]}".rstrip()


def _run(folder: Path, *command: str, **options: Any) -> subprocess.CompletedProcess[str]:  # noqa: ANN401  # of subprocess
    """Run a command with the clone's own code."""
    paths = [str(Path(sys.executable).parent), os.environ.get("PATH", "")]
    env = {**os.environ, "PYTHONPATH": str(folder / "src"), "PATH": os.pathsep.join(paths)}
    return subprocess.run(command, cwd=folder, env=env, check=True, text=True, **options)


if __name__ == "__main__":
    main()
