"""Cells: how a cell of a table is named, and the jobs behind it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from robustviews.study import jobs, plan
from robustviews.study.jobs import Job, Key
from robustviews.study.plan import Cell
from robustviews.study.problems import nearest
from robustviews.study.schema import Study


class CellError(ValueError):
    """A name of a cell that leads nowhere; the message says what there is."""


class Address(NamedTuple):
    """Where a cell stands, written `table1:row7:digits/pgd20/16`."""

    table: str
    row: str
    column: str

    def __str__(self) -> str:
        """Return the name that `find` takes."""
        return ":".join(self)


def find(study: Study, text: str) -> tuple[Address, Cell]:
    """Return the cell of a table that a name stands for.

    Args:
        study: that the table belongs to.
        text: TABLE:ROW:COLUMN.

    Raises:
        CellError: there is no such cell.
    """
    parts = text.split(":")
    if len(parts) != len(Address._fields):
        example = next((str(address) for address, _ in every(study)), "TABLE:ROW:COLUMN")
        raise CellError(f"cell `{text}`: expected TABLE:ROW:COLUMN, such as {example}")
    address = Address(*parts)
    _known(address.table, study.tables, "table")
    table = study.tables[address.table]
    _known(address.row, table.rows, f"row of {address.table}")
    _known(address.column, table.columns, f"column of {address.table}")
    return address, dict(every(study))[address]


def every(study: Study) -> Iterator[tuple[Address, Cell]]:
    """Yield each cell of each table of a study with its address."""
    for name, table in study.tables.items():
        for cell in plan.cells(study, table):
            yield Address(name, cell.row, cell.column), cell


def ends(study: Study, cell: Cell) -> list[Job]:
    """Return the jobs that a cell is read from, one per seed."""
    every_job = jobs.jobs(study)
    if cell.attack is None:
        return [every_job["pretrain", run] for run in cell.runs]
    return [every_job["attack", f"{run}/{cell.probe}/{cell.attack}"] for run in cell.runs]


def chain(study: Study, cell: Cell) -> list[Job]:
    """Return the jobs behind a cell, of all its seeds, each after those that it needs."""
    every_job = jobs.jobs(study)
    wanted: set[Key] = set()
    open_keys = [job.key for job in ends(study, cell)]
    while open_keys:
        key = open_keys.pop()
        if key not in wanted:
            wanted.add(key)
            open_keys.extend(every_job[key].needs)
    return [job for key, job in every_job.items() if key in wanted]


def _known(name: str, names: Iterable[str], what: str) -> None:
    names = list(names)
    if name not in names:
        raise CellError(f"no {what} `{name}`; {nearest(name, names)}")
