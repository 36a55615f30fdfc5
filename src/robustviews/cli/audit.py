"""Verbs that check files on disk: verify, and audit, which needs torch only for `--again`."""

from __future__ import annotations

import argparse
import functools
import json
import sys
from collections.abc import Iterable
from pathlib import Path

from robustviews import commands
from robustviews.artifacts import RECORD
from robustviews.cli.names import UsageError
from robustviews.machine import humanize
from robustviews.provenance import orphans
from robustviews.provenance.audit import Audit, Recheck, verified
from robustviews.provenance.audit import audit as audit_study
from robustviews.provenance.findings import Finding, State, exit_status, worst
from robustviews.study import Study, cells, load_study
from robustviews.study.columns import Column
from robustviews.study.jobs import REPORTING
from robustviews.study.problems import nearest

STAGES = {
    "data": ("data",),
    "pretrain": ("encoder", "pretrain"),
    "probe": ("probe",),
    "attack": ("attack",),
    "sanity": ("sanity",),
    "report": REPORTING,
}
_FILE_CHECKS = ("inputs", "upstream")  # checks of files that several jobs read
_MAX_FOLDERS = 4  # orphaned folders to list; the rest is counted
_MAX_FINDINGS = {
    State.FAILED: 12,
    State.DOUBT: 12,
    State.UNKNOWN: 3,
}  # per check; the rest is counted


def verify(options: argparse.Namespace) -> int:
    """Compare files, records and Snakemake's metadata of some stages."""
    study = load_study(options.study)
    stages = options.stages or list(STAGES)
    for stage in stages:
        if stage not in STAGES:
            raise UsageError(f"--stages: no stage `{stage}`; {nearest(stage, STAGES)}")
    rules = {rule for stage in stages for rule in STAGES[stage]}
    findings = verified(study, Path(), rules=rules)
    _write_unverified(findings, study.file)
    _write_orphans(study)
    state = worst(findings)
    _write(f"{study.study}: {', '.join(stages)}: {_counts(findings)}: {state}")
    return exit_status(state)


def audit(options: argparse.Namespace) -> int:
    """Trace every cell of every table, or one cell, back to its files."""
    study = load_study(options.study)
    addresses = None if options.cell is None else [cells.find(study, options.cell)[0]]
    recheck = _recheck(options) if options.again else None
    result = audit_study(study, cells=addresses, recheck=recheck)
    if options.json:
        _write(json.dumps(result.as_json(), indent=1))
    else:
        _write_cells(result, study)
        if addresses is None:
            _write_unverified(result.all_findings(), study.file)
        else:
            _write_chain(result)
        for remark in result.remarks:
            _write(f"note: {remark}")
        if addresses is None:
            _write_orphans(study)
        _write(f"{result.study}: {_counts(result.all_findings())}: {result.state}")
    return exit_status(result.state)


def _recheck(options: argparse.Namespace) -> Recheck:
    """Return the check that attacks some images of a job again; it needs torch."""
    from robustviews.provenance import again

    return functools.partial(again.check, images=options.again, device=options.device)


def _write_cells(result: Audit, study: Study) -> None:
    columns = {address: cell.measure for address, cell in cells.every(study)}
    width = max((len(str(address)) for address in result.cells), default=0)
    for address, cell in result.cells.items():
        text = _value(cell.value, columns[address])
        _write(f"{result.state_of(address)!s:8}  {address!s:{width}}  {text}")


def _value(value: float | None, column: Column) -> str:
    return "unknown" if value is None else f"{value * column.scale:.4g} {column.unit}"


def _write_chain(result: Audit) -> None:
    """Write every check of a cell by job, in the order in which the jobs ran."""
    for job in result.jobs.values():
        _write(f"\n{' '.join(job.key)}: {job.state}")
        for finding in job.findings:
            _write(f"  {finding.state!s:8}  {finding.check}: {_subject(finding)}{finding.text}")
    _write("\ncell and table")
    own = (finding for cell in result.cells.values() for finding in cell.findings)
    for finding in (*own, *result.findings):
        _write(f"  {finding.state!s:8}  {finding.check}: {finding.subject}: {finding.text}")
    _write("")


def _subject(finding: Finding) -> str:
    """Return the file of a finding, unless it is the record."""
    return "" if finding.subject.endswith(RECORD) else f"{finding.subject}: "


def _write_unverified(findings: Iterable[Finding], file: str) -> None:
    """Write the findings that are not verified: the worst first, at most some of each check."""
    groups: dict[tuple[State, str], list[Finding]] = {}
    for finding in findings:
        if finding.state is not State.VERIFIED:
            groups.setdefault((finding.state, finding.check), []).append(finding)
    for (state, check), group in sorted(groups.items(), key=lambda item: -item[0][0]):
        shown: dict[str, list[str]] = {}
        for finding in group:
            # All jobs that read a changed file report it; the first report is enough.
            key = finding.subject if check in _FILE_CHECKS else f"{finding.subject}: {finding.text}"
            shown.setdefault(key, []).append(f"{finding.subject}: {finding.text}")
        for texts in list(shown.values())[: _MAX_FINDINGS[state]]:
            others = len(dict.fromkeys(texts)) - 1
            more = f" (and {others} more on this file)" if others else ""
            _write(f"{state}: {check}: {texts[0]}{more}")
        if len(shown) > _MAX_FINDINGS[state]:
            remaining = len(shown) - _MAX_FINDINGS[state]
            command = commands.robustviews(file, "audit", "--json")
            _write(f"{state}: {check}: and {remaining} more; see: {command}")


def _write_orphans(study: Study) -> None:
    """Write the folders of orphaned files, which change no result and so are not a failure."""
    try:
        paths = orphans.find(study)
    except orphans.OrphanError as error:
        _write(f"note: orphaned files are unknown: {error}")
        return
    folders = {str(path.parent): None for path in paths if path.parts[0] in ("data", "results")}
    if folders:
        listed = humanize.some(list(folders), _MAX_FOLDERS)
        _write(
            f"note: orphaned files in {listed}; see: {commands.robustviews(study.file, 'prune')}"
        )


def _counts(findings: Iterable[Finding]) -> str:
    states = [finding.state for finding in findings]
    counted = {state: states.count(state) for state in State}
    return ", ".join(f"{count} {state}" for state, count in counted.items() if count) or "nothing"


def _write(line: str) -> None:
    sys.stdout.write(f"{line}\n")
