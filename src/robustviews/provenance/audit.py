"""The audit: every cell of every table walked back to its bytes, and what was seen on the way."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from robustviews.config.schema import Study
from robustviews.pending import Job, Key
from robustviews.plan import Cell
from robustviews.provenance import cells as cells_of_tables
from robustviews.provenance import checks, values
from robustviews.provenance.cells import Address
from robustviews.provenance.disk import Disk
from robustviews.provenance.findings import Finding, State, worst


@dataclass(frozen=True)
class JobAudit:
    """What was seen of one job.

    Attributes:
        key: rule and name of the job.
        findings: one a check, and one for each thing that is wrong.
    """

    key: Key
    findings: tuple[Finding, ...]

    @property
    def state(self) -> State:
        """The worst of its findings."""
        return worst(self.findings)


@dataclass(frozen=True)
class CellAudit:
    """What was seen of one cell itself; `Audit.state_of` knows its jobs too.

    Attributes:
        address: where it stands.
        jobs: behind it, each after those that it needs.
        value: computed again: an accuracy, a fraction, or minutes; None where it cannot be.
        findings: of the cell alone.
    """

    address: Address
    jobs: tuple[Key, ...]
    value: float | None
    findings: tuple[Finding, ...]


@dataclass(frozen=True)
class Audit:
    """What was seen of a study.

    Attributes:
        study: slug.
        jobs: those that leave a record; with some cells alone, those behind them.
        cells: of all tables, or those asked for.
        findings: of the study as a whole.
        unused: what was not there to be checked, in words for people.
    """

    study: str
    jobs: dict[Key, JobAudit]
    cells: dict[Address, CellAudit]
    findings: tuple[Finding, ...]
    unused: tuple[str, ...] = ()

    @property
    def state(self) -> State:
        """The worst of everything."""
        return worst(self.all_findings())

    def state_of(self, address: Address) -> State:
        """Return the worst of what was seen of a cell and of the jobs behind it."""
        cell = self.cells[address]
        jobs = (finding for key in cell.jobs for finding in self.jobs[key].findings)
        return worst((*cell.findings, *jobs))

    def all_findings(self) -> list[Finding]:
        """Return all findings: of jobs, of cells, of the study."""
        jobs = (finding for job in self.jobs.values() for finding in job.findings)
        cells = (finding for cell in self.cells.values() for finding in cell.findings)
        return [*jobs, *cells, *self.findings]

    def as_json(self) -> dict[str, Any]:
        """Return plain JSON."""
        return {
            "study": self.study,
            "state": str(self.state),
            "cells": {
                str(address): {
                    "state": str(self.state_of(address)),
                    "value": cell.value,
                    "jobs": [list(key) for key in cell.jobs],
                    "findings": [finding.as_json() for finding in cell.findings],
                }
                for address, cell in self.cells.items()
            },
            "jobs": [
                {
                    "rule": job.key[0],
                    "name": job.key[1],
                    "state": str(job.state),
                    "findings": [finding.as_json() for finding in job.findings],
                }
                for job in self.jobs.values()
            ],
            "findings": [finding.as_json() for finding in self.findings],
            "unused": list(self.unused),
        }


def audit(study: Study, root: Path = Path(), *, cells: Iterable[Address] | None = None) -> Audit:
    """Check every number of a study against the bytes that it was made from.

    Args:
        study: as it now stands.
        root: project folder.
        cells: look at these alone; None for all cells and all jobs.

    Returns:
        What was seen. Nothing is raised for what is wrong with results.
    """
    disk = Disk(study, root)
    every = dict(cells_of_tables.every(study))
    wanted = every if cells is None else {address: every[address] for address in cells}
    chains = {address: cells_of_tables.chain(study, cell) for address, cell in wanted.items()}
    jobs = [job for job in disk.jobs.values() if job.folder is not None]
    if cells is not None:
        needed = {job.key for chain in chains.values() for job in chain}
        jobs = [job for job in jobs if job.key in needed]
    return Audit(
        study=study.study,
        jobs={job.key: JobAudit(job.key, tuple(checks.of_job(disk, job))) for job in jobs},
        cells={
            address: _cell(disk, address, cell, chains[address]) for address, cell in wanted.items()
        },
        findings=(),
    )


def _cell(disk: Disk, address: Address, cell: Cell, chain: list[Job]) -> CellAudit:
    computed = values.value(disk, cell)
    finding = values.of_cell(str(address), computed)
    return CellAudit(address, tuple(job.key for job in chain), computed, (finding,))
