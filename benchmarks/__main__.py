"""Run all benchmarks, and print all their tables at the end: `python -m benchmarks --quick`."""

from __future__ import annotations

import sys
import time

from benchmarks import (
    augmentation,
    coding_rate,
    evaluation,
    methods,
    precision,
    profile_step,
    record,
    scaling,
    step,
    table,
)

BENCHMARKS = {
    "step": step,
    "augmentation": augmentation,
    "coding_rate": coding_rate,
    "precision": precision,
    "evaluation": evaluation,
    "scaling": scaling,
    "profile_step": profile_step,
    "methods": methods,
}


def main(argv: list[str]) -> None:
    """Run each benchmark with the arguments given, which all of them take."""
    paths = []
    start = time.monotonic()
    for name, module in BENCHMARKS.items():
        print(f"\n== {name}, after {time.monotonic() - start:.0f} s", flush=True)
        paths.append(record.run(name, module.parse(argv), module.measure))
    print(f"\n== all, after {time.monotonic() - start:.0f} s\n\n{table.markdown(paths)}")


if __name__ == "__main__":
    main(sys.argv[1:])
