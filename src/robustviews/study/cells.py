"""Cells of tables: their names, and the jobs that compute them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from robustviews.study import jobs, networks, plan
from robustviews.study.jobs import Job, Key
from robustviews.study.plan import Cell
from robustviews.study.problems import nearest
from robustviews.study.schema import Study


class CellError(ValueError):
    """A study has no cell of this name; the message suggests a name."""


class Address(NamedTuple):
    """The name of a cell, written `table1:row7:digits/pgd20/16`."""

    table: str
    row: str
    column: str

    def __str__(self) -> str:
        """Return the name that `find` takes."""
        return ":".join(self)


def find(study: Study, text: str) -> tuple[Address, Cell]:
    """Return the cell with a name, TABLE:ROW:COLUMN.

    Raises:
        CellError: there is no such cell.
    """
    parts = text.split(":", len(Address._fields) - 1)  # a column may name its metric
    if len(parts) != len(Address._fields):
        example = next((str(address) for address, _ in every(study)), "TABLE:ROW:COLUMN")
        raise CellError(f"cell `{text}`: expected TABLE:ROW:COLUMN, such as {example}")
    address = Address(*parts)
    _check_name(address.table, study.tables, "table")
    table = study.tables[address.table]
    _check_name(address.row, table.rows, f"row of {address.table}")
    _check_name(address.column, table.columns, f"column of {address.table}")
    return address, dict(every(study))[address]


def every(study: Study) -> Iterator[tuple[Address, Cell]]:
    """Yield each cell of each table of a study with its address."""
    for name, table in study.tables.items():
        for cell in plan.cells(study, table):
            yield Address(name, cell.row, cell.column), cell


def ends(study: Study, cell: Cell) -> list[Job]:
    """Return the jobs whose results a cell shows, one per seed."""
    all_jobs = jobs.jobs(study)
    if cell.attack is None:
        return [all_jobs[network.encoder] for network in cell.networks]
    return [all_jobs["attack", f"{run}/{cell.probe}/{cell.attack}"] for run in cell.runs]


def chain(study: Study, cell: Cell) -> list[Job]:
    """Return all jobs that a cell needs, for all its seeds; each job follows those it needs."""
    all_jobs = jobs.jobs(study)
    keys: set[Key] = set()
    open_keys = [job.key for job in ends(study, cell)]
    if cell.measure.attack is not None:
        names = [networks.examination(study, run, cell.probe) for run in cell.runs]
        open_keys += [("sanity", name) for name in names]
    while open_keys:
        key = open_keys.pop()
        if key not in keys:
            keys.add(key)
            open_keys.extend(all_jobs[key].needs)
    return [job for key, job in all_jobs.items() if key in keys]


def _check_name(name: str, names: Iterable[str], what: str) -> None:
    names = list(names)
    if name not in names:
        raise CellError(f"no {what} `{name}`; {nearest(name, names)}")
