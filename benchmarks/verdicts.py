"""How often the verdicts of a table are right: simulated tables, judged as the tables are.

    python -m benchmarks.verdicts

Each table has seven rows and seven columns. Trainings spread normally around the true accuracy of
their cell; the published value is one more training. One cell of each table is off by four points,
and another lies exactly as far from its published value as the margin allows.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from robustviews.reporting import verdicts
from robustviews.reporting.verdicts import Sample
from robustviews.study.schema import Verdicts

ROWS = COLUMNS = 7
IMAGES = 10_000
OFF = 0.04  # difference of the one cell that is not as published
MARGIN = Verdicts().margin / 100
SPREADS = (0.4, 0.8, 1.2)  # percentage points
SEEDS = (3, 5)


class Rates(NamedTuple):
    """Shares of tables or cells.

    Attributes:
        alarm: tables in which a cell as published is `different`.
        reproduced: cells as published that are `reproduced`.
        found: tables in which the cell that is off is `different`.
        edge: tables in which the cell at the margin is `reproduced`.
    """

    alarm: float
    reproduced: float
    found: float
    edge: float


def simulate(spread: float, seeds: int, *, tables: int, seed: int = 0) -> Rates:
    """Judge simulated tables.

    Args:
        spread: standard deviation between trainings, in percentage points.
        seeds: trainings of each cell.
        tables: number of tables.
        seed: of the simulation.
    """
    random = np.random.default_rng(seed)
    alarms = reproduced = found = edge = 0.0
    for _ in range(tables):
        states = _states(random, spread / 100, seeds)
        off, at_margin, *others = states
        alarms += "different" in others
        reproduced += others.count("reproduced") / len(others)
        found += off == "different"
        edge += at_margin == "reproduced"
    return Rates(alarms / tables, reproduced / tables, found / tables, edge / tables)


def _states(random: np.random.Generator, spread: float, seeds: int) -> list[str]:
    """Return the states of all cells of one table; the first is off, the second at the margin."""
    truth = random.uniform(0.3, 0.75, (COLUMNS, ROWS))
    published = truth + random.normal(0, spread, truth.shape)
    truth[0, 0] += OFF
    truth[0, 1] = published[0, 1] + MARGIN
    ours = truth[..., None] + random.normal(0, spread, (*truth.shape, seeds))
    counts = np.rint(ours * IMAGES).astype(int).tolist()
    columns = [
        [
            Sample(tuple((correct, IMAGES) for correct in of_cell), IMAGES, float(value))
            for of_cell, value in zip(*column, strict=True)
        ]
        for column in zip(counts, published, strict=True)
    ]
    spreads = [verdicts.spreads_of(column) for column in columns]
    judged = verdicts.judge(columns, spreads, Verdicts())
    return [verdict.state for column in judged for verdict in column if verdict is not None]


def lines(tables: int) -> Iterator[str]:
    """Yield a Markdown table of the rates, one line per number of seeds and spread."""
    heads = ("tables with a false alarm", "reproduced", "off by 4 points: found")
    yield f"| seeds | spread | {' | '.join(heads)} | at the margin: reproduced |"
    yield "|" + " ---: |" * (len(heads) + 3)
    for seeds in SEEDS:
        for spread in SPREADS:
            rates = simulate(spread, seeds, tables=tables)
            shares = " | ".join(f"{100 * rate:.1f} %" for rate in rates)
            yield f"| {seeds} | {spread:g} | {shares} |"


def main(arguments: list[str] | None = None) -> None:
    """Print the rates."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--tables", type=int, default=1000, help="simulated for each line")
    for line in lines(parser.parse_args(arguments).tables):
        print(line, flush=True)


if __name__ == "__main__":
    main()
