"""Verbs that check what is on disk, without torch: verify and audit."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable
from pathlib import Path

from robustviews.cli.names import UsageError
from robustviews.config import Study, load_study
from robustviews.config.problems import nearest
from robustviews.pending import RULES
from robustviews.provenance import cells, checks
from robustviews.provenance.audit import Audit
from robustviews.provenance.audit import audit as audit_study
from robustviews.provenance.disk import Disk
from robustviews.provenance.findings import Finding, State, exit_status, worst

STAGES = ("data", "pretrain", "probe", "attack", "report")


def verify(options: argparse.Namespace) -> int:
    """Check bytes, records and the workflow's notes of some stages against each other."""
    study = load_study(options.study)
    stages = options.stages or STAGES
    unknown = [stage for stage in stages if stage not in STAGES]
    if unknown:
        raise UsageError(f"--stages: no stage `{unknown[0]}`; {nearest(unknown[0], list(STAGES))}")
    findings = _of_stages(study, stages)
    _write_findings(findings)
    state = worst(findings)
    sys.stdout.write(f"{study.study}: {' '.join(stages)}: {_counts(findings)}: {state}\n")
    return exit_status(state)


def audit(options: argparse.Namespace) -> int:
    """Walk every cell of every table, or one, back to its bytes."""
    study = load_study(options.study)
    wanted = None if options.cell is None else [cells.find(study, options.cell)[0]]
    seen = audit_study(study, cells=wanted)
    if options.json:
        sys.stdout.write(json.dumps(seen.as_json(), indent=1) + "\n")
    else:
        _write_cells(seen)
        _write_findings(seen.all_findings())
        sys.stdout.write(f"{seen.study}: {_counts(seen.all_findings())}: {seen.state}\n")
    return exit_status(seen.state)


def _of_stages(study: Study, stages: Iterable[str]) -> list[Finding]:
    disk = Disk(study, Path())
    rules = {rule for rule in RULES if rule in stages}
    return [
        finding
        for job in disk.jobs.values()
        if job.rule in rules and job.folder is not None
        for finding in checks.of_job(disk, job)
    ]


def _write_cells(seen: Audit) -> None:
    for address, cell in seen.cells.items():
        value = "unknown" if cell.value is None else f"{cell.value:.6g}"
        sys.stdout.write(f"{seen.state_of(address)!s:8} {address} {value}\n")


def _write_findings(findings: Iterable[Finding]) -> None:
    for finding in findings:
        if finding.state is not State.VERIFIED:
            line = f"{finding.state}: {finding.check}: {finding.subject}: {finding.text}"
            sys.stdout.write(f"{line}\n")


def _counts(findings: list[Finding]) -> str:
    counts = {state: sum(finding.state is state for finding in findings) for state in State}
    return ", ".join(f"{count} {state}" for state, count in counts.items() if count)
