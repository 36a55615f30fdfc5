"""Print what benchmarks found as Markdown: `python -m benchmarks.table [record.json ...]`."""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

Record = dict[str, Any]
RESULTS = Path(__file__).parent / "results"
ORDER = (
    *("step", "augmentation", "coding_rate", "precision", "evaluation", "scaling"),
    *("profile_step", "methods", "ranks"),
)
PARTS = ("data", "forward", "loss", "backward", "optimizer", "perturbation")


def markdown(paths: Iterable[Path]) -> str:
    """Return the tables of some records: ratios, parts of a step, rates, and on what."""
    records = [json.loads(path.read_text(encoding="utf-8")) for path in paths]
    tables = [comparisons(records), parts(records), rates(records), operators(records)]
    return "\n\n".join([*filter(None, tables), *machines(records)])


def comparisons(records: list[Record]) -> str:
    """Return how many times faster ours was, a row each."""
    rows = []
    for record in records:
        for row in record.get("comparisons", []):
            bar = "" if row["bar"] is None else f">= {row['bar']:g}x"
            slow, fast = (seconds(row["seconds"][row[side]]) for side in ("rival", "ours"))
            rows.append([row["work"], row["ours"], row["rival"], fast, slow, spread(row), bar])
            rows[-1].append(row["note"])
        rows.extend(
            [row["work"], "", row["rival"], "", "", "not measured", "", row["reason"]]
            for row in record.get("skipped", [])
        )
    head = ["work", "ours", "against", "ours, s", "against, s", "ratio (range)", "bar", "note"]
    return grid(head, rows, align="lllrrrrl")


def parts(records: list[Record]) -> str:
    """Return how the seconds of a step split."""
    rows = []
    for record in records:
        for side, split in record.get("parts", {}).items():
            total = sum(split.values())
            cells = [f"{split.get(part, 0.0):.2f}" for part in PARTS]
            rows.append([side, *cells, f"{total:.2f}"])
    return grid(["parts of the step, s", *PARTS, "sum"], rows, align="lrrrrrrr")


def rates(records: list[Record]) -> str:
    """Return crop-passes a second at several sizes."""
    rows = []
    for record in records:
        for row in record.get("rates", []):
            sizes = [str(row[key]) for key in ("crops", "batch", "images", "size", "width")]
            rows.append([*sizes, row["precision"], f"{row['rate']:.0f}"])
    head = ["crops", "batch", "images", "pixels", "width", "precision", "crop-passes/s"]
    return grid(head, rows, align="rrrrrlr")


def operators(records: list[Record]) -> str:
    """Return the five dearest operators of a step of each side."""
    rows: list[list[str]] = []
    for record in records:
        for side, found in record.get("operators", {}).items():
            rows.extend(
                [side, f"`{row['name'][:60]}`", str(row["calls"]), f"{row['share']:.1%}"]
                for row in found[:5]
            )
    return grid(["dearest operators", "operator", "calls", "share"], rows, align="llrr")


def machines(records: list[Record]) -> list[str]:
    """Return on what the records were made, one line for records that agree."""
    lines: dict[str, list[str]] = {}
    for record in records:
        changed = " with changes" if record["modified"] else ""
        line = (
            f"{record['device']}, {record['cores']} cores, {record['threads']} threads, "
            f"torch {record['torch']}, commit {record['commit']}{changed}, {record['date'][:10]}"
        )
        lines.setdefault(line, []).append(record["benchmark"])
    return [f"{', '.join(names)}: {line}." for line, names in lines.items()]


def spread(row: Record) -> str:
    """Return a ratio as its median and range."""
    ratio = row["ratio"]
    return f"**{ratio['median']:.2f}x** ({ratio['low']:.2f}-{ratio['high']:.2f})"


def seconds(values: list[float]) -> str:
    """Return the median of some seconds with three digits."""
    return f"{statistics.median(values):.3g}"


def grid(head: list[str], rows: list[list[str]], *, align: str) -> str:
    """Return a Markdown table; nothing when it has no rows. `align` has l or r for each column."""
    if not rows:
        return ""
    rule = ["---:" if side == "r" else "---" for side in align]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [head, rule, *rows])


def main(argv: list[str] | None = None) -> None:
    """Print the tables of the records that are named, or of all that lie in the usual folder."""
    named = [Path(word) for word in (sys.argv[1:] if argv is None else argv)]
    usual = [RESULTS / f"{name}.json" for name in ORDER]
    paths = named or [path for path in usual if path.exists()]
    if not paths:
        sys.exit(f"benchmarks.table: no record in {RESULTS}; type: make bench")
    print(markdown(paths))


if __name__ == "__main__":
    main()
