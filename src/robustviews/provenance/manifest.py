"""The manifest: all files and cells of a study in one JSON file, which one signature covers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from robustviews import artifacts, commands
from robustviews.artifacts import ArtifactError
from robustviews.provenance.audit import Audit
from robustviews.provenance.disk import Disk
from robustviews.provenance.findings import State
from robustviews.study import folders
from robustviews.study.schema import Study

FORMAT = 1

_SHOWN = 3  # problems that a message lists; the audit shows all


class RefusedError(ValueError):
    """Results are not signed or exported; the message says why."""


def path_of(study: Study) -> Path:
    """Return the path of a study's manifest; the signature's name adds `.sig`."""
    return folders.results_folder(study) / "manifest.json"


def study_file(study: Study) -> Path:
    """Return the path of the study file relative to the project.

    Raises:
        RefusedError: the file is outside the project.
    """
    try:
        return Path(study.file).absolute().relative_to(Path.cwd())
    except ValueError:
        text = f"{study.file}: expected a study file in the project folder; copy it to studies/"
        raise RefusedError(text) from None


def build(study: Study, result: Audit) -> dict[str, Any]:
    """List the files and cells of a study in the working directory, given its whole audit.

    Returns:
        Plain JSON; the same study gives the same JSON.

    Raises:
        RefusedError: a check of the audit failed.
        ArtifactError: a file is missing.
    """
    refuse_failed(study, result, "not signed")
    disk = Disk(study, Path())
    return {
        "format": FORMAT,
        "study": study.study,
        "title": study.title,
        "code": _code(disk),
        "files": {str(path): entry(path) for path in paths(disk)},
        "cells": {
            str(address): {"value": cell.value, "state": str(result.state_of(address))}
            for address, cell in result.cells.items()
        },
        "audit": {
            "state": str(result.state),
            "unknown": [
                finding.as_json()
                for finding in result.all_findings()
                if finding.state in (State.UNKNOWN, State.DOUBT)
            ],
        },
    }


def paths(disk: Disk) -> list[Path]:
    """Return the files that a manifest lists: the study file, and those of all jobs."""
    return sorted({study_file(disk.study), *map(Path, disk.owners)})


def entry(path: Path) -> dict[str, Any]:
    """Return what a manifest states about a file."""
    return {"sha256": artifacts.sha256(path), "size": path.stat().st_size}


def changes(manifest: dict[str, Any]) -> list[str]:
    """Hash all files of a manifest again, and return a line for each file that differs."""
    lines = []
    for name, signed in manifest["files"].items():
        if not Path(name).is_file():
            lines.append(f"{name}: missing")
            continue
        now = entry(Path(name))
        if now != signed:
            lines.append(
                f"{name}: changed: signed with {signed['size']:,} bytes, {signed['sha256']}; "
                f"found {now['size']:,} bytes, {now['sha256']}"
            )
    return lines


def foreign(manifest: dict[str, Any], study: Study) -> list[str]:
    """Return a line for each reason why a manifest does not belong to a study as it is now."""
    signed = manifest.get("study")
    if signed != study.study:
        return [f"signed for the study {signed!r}, expected {study.study!r}"]
    names = sorted({*map(str, paths(Disk(study, Path())))} - set(manifest["files"]))
    more = [f"and {len(names) - _SHOWN} more"] if len(names) > _SHOWN else []
    return [f"{name}: not signed: the manifest does not list it" for name in names[:_SHOWN]] + more


def refuse_failed(study: Study, result: Audit, outcome: str) -> None:
    """Raise RefusedError if an audit failed; `outcome` is the consequence, such as `not signed`."""
    failed = [finding for finding in result.all_findings() if finding.state is State.FAILED]
    if failed:
        shown = [f"  {finding.subject}: {finding.text}" for finding in failed[:_SHOWN]]
        more = [f"  and {len(failed) - _SHOWN} more"] if len(failed) > _SHOWN else []
        head = f"{result.study}: {outcome}, {len(failed)} checks of the audit failed:"
        see = f"see all: {commands.robustviews(study.file, 'audit')}"
        raise RefusedError("\n".join((head, *shown, *more, see)))


def parse(data: bytes, path: Path) -> dict[str, Any]:
    """Return a manifest from its bytes.

    Raises:
        ArtifactError: the bytes are not a manifest.
    """
    try:
        manifest = artifacts.parse_json(data)
        is_manifest = manifest["format"] == FORMAT and isinstance(manifest["files"], dict)
    except (ValueError, KeyError, TypeError):
        is_manifest = False
    if not is_manifest:
        raise ArtifactError(f"{path}: expected a manifest of format {FORMAT}, found something else")
    parsed: dict[str, Any] = manifest
    return parsed


def _code(disk: Disk) -> list[dict[str, Any]]:
    """Return each state of the sources with which some job ran."""
    codes = (disk.stated(job).code for job in disk.jobs.values() if job.folder is not None)
    states = {(code.commit or "", code.dirty) for code in codes}
    return [
        {"commit": commit or None, "dirty": dirty}
        for commit, dirty in sorted(states, key=lambda state: (state[0], str(state[1])))
    ]
