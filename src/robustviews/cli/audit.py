"""Verbs that check what is on disk, without torch: verify and audit."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable
from pathlib import Path

from robustviews import commands
from robustviews.artifacts import RECORD
from robustviews.cli.names import UsageError
from robustviews.provenance import orphans
from robustviews.provenance.audit import Audit, verified
from robustviews.provenance.audit import audit as audit_study
from robustviews.provenance.findings import Finding, State, exit_status, worst
from robustviews.study import Study, cells, load_study
from robustviews.study.jobs import REPORTING
from robustviews.study.problems import nearest

STAGES = {
    "data": ("data",),
    "pretrain": ("pretrain",),
    "probe": ("probe",),
    "attack": ("attack",),
    "report": REPORTING,
}
_OF_FILES = ("inputs", "upstream")  # checks of what several jobs read
_NAMED = 4  # orphaned folders, before they are counted
_LISTED = {State.FAILED: 12, State.UNKNOWN: 3}  # findings of one check, before they are counted


def verify(options: argparse.Namespace) -> int:
    """Check bytes, records and Snakemake metadata of some stages against each other."""
    study = load_study(options.study)
    stages = options.stages or list(STAGES)
    for stage in stages:
        if stage not in STAGES:
            raise UsageError(f"--stages: no stage `{stage}`; {nearest(stage, STAGES)}")
    rules = {rule for stage in stages for rule in STAGES[stage]}
    findings = verified(study, Path(), rules=rules)
    _write_wrong(findings, study.file)
    _write_orphans(study)
    state = worst(findings)
    _write(f"{study.study}: {', '.join(stages)}: {_counts(findings)}: {state}")
    return exit_status(state)


def audit(options: argparse.Namespace) -> int:
    """Walk every cell of every table, or one, back to its bytes."""
    study = load_study(options.study)
    wanted = None if options.cell is None else [cells.find(study, options.cell)[0]]
    seen = audit_study(study, cells=wanted)
    if options.json:
        _write(json.dumps(seen.as_json(), indent=1))
    else:
        _write_cells(seen)
        if wanted is None:
            _write_wrong(seen.all_findings(), study.file)
        else:
            _write_chain(seen)
        for remark in seen.remarks:
            _write(f"note: {remark}")
        if wanted is None:
            _write_orphans(study)
        _write(f"{seen.study}: {_counts(seen.all_findings())}: {seen.state}")
    return exit_status(seen.state)


def _write_cells(seen: Audit) -> None:
    width = max((len(str(address)) for address in seen.cells), default=0)
    for address, cell in seen.cells.items():
        _write(f"{seen.state_of(address)!s:8}  {address!s:{width}}  {_value(cell.value, address)}")


def _value(value: float | None, address: cells.Address) -> str:
    if value is None:
        return "unknown"
    minutes = address.column.endswith("/minutes")
    return f"{value:.4g} minutes" if minutes else f"{100 * value:.4g} %"


def _write_chain(seen: Audit) -> None:
    """Write every check of a cell, job by job in the order in which they ran."""
    for job in seen.jobs.values():
        _write(f"\n{' '.join(job.key)}: {job.state}")
        for finding in job.findings:
            _write(f"  {finding.state!s:8}  {finding.check}: {_subject(finding)}{finding.text}")
    _write("\ncell and table")
    own = (finding for cell in seen.cells.values() for finding in cell.findings)
    for finding in (*own, *seen.findings):
        _write(f"  {finding.state!s:8}  {finding.check}: {finding.subject}: {finding.text}")
    _write("")


def _subject(finding: Finding) -> str:
    """Return the file that a finding is about, where that is not the record."""
    return "" if finding.subject.endswith(RECORD) else f"{finding.subject}: "


def _write_wrong(findings: Iterable[Finding], file: str) -> None:
    """Write what is not verified, the worst first; of many of a kind the first."""
    kinds: dict[tuple[State, str], list[Finding]] = {}
    for finding in findings:
        if finding.state is not State.VERIFIED:
            kinds.setdefault((finding.state, finding.check), []).append(finding)
    for (state, check), found in sorted(kinds.items(), key=lambda kind: -kind[0][0]):
        shown: dict[str, list[str]] = {}
        for each in found:
            # All jobs that read a changed file say so: the first is enough to find it.
            key = each.subject if check in _OF_FILES else f"{each.subject}: {each.text}"
            shown.setdefault(key, []).append(f"{each.subject}: {each.text}")
        for texts in list(shown.values())[: _LISTED[state]]:
            others = len(dict.fromkeys(texts)) - 1
            more = f" (and {others} more of this file)" if others else ""
            _write(f"{state}: {check}: {texts[0]}{more}")
        if len(shown) > _LISTED[state]:
            left = len(shown) - _LISTED[state]
            see = commands.robustviews(file, "audit", "--json")
            _write(f"{state}: {check}: and {left} more; see: {see}")


def _write_orphans(study: Study) -> None:
    """Write where files lie that no job writes, which decides no number and so is no failure."""
    try:
        paths = orphans.find(study)
    except orphans.OrphanError as error:
        _write(f"note: orphaned files are unknown: {error}")
        return
    folders = {str(path.parent): None for path in paths if path.parts[0] in ("data", "results")}
    if folders:
        more = f" and {len(folders) - _NAMED} more" if len(folders) > _NAMED else ""
        named = ", ".join(list(folders)[:_NAMED]) + more
        _write(f"note: orphaned files in {named}; see: {commands.robustviews(study.file, 'prune')}")


def _counts(findings: Iterable[Finding]) -> str:
    states = [finding.state for finding in findings]
    counted = {state: states.count(state) for state in State}
    return ", ".join(f"{count} {state}" for state, count in counted.items() if count) or "nothing"


def _write(line: str) -> None:
    sys.stdout.write(f"{line}\n")
