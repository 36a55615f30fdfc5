"""The manifest: all files and cells of a study in one JSON file, which one signature covers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from robustviews import artifacts, commands
from robustviews.artifacts import ArtifactError
from robustviews.provenance.audit import Audit
from robustviews.provenance.disk import Disk
from robustviews.provenance.findings import State
from robustviews.study import folders, jobs
from robustviews.study.schema import Study

FORMAT = 1

_SHOWN = 3  # things that are wrong; the audit shows all


class RefusedError(ValueError):
    """The audit does not vouch for what would be handed out; the message says what is wrong."""


def path_of(study: Study) -> Path:
    """Return where the manifest of a study lies; its signature has `.sig` added to the name."""
    return folders.results_folder(study) / "manifest.json"


def study_file(study: Study) -> Path:
    """Return the study file relative to the project, without the folders of this machine.

    Raises:
        RefusedError: the file lies elsewhere.
    """
    try:
        return Path(study.file).absolute().relative_to(Path.cwd())
    except ValueError:
        text = f"{study.file}: expected a study file in the project folder; copy it to studies/"
        raise RefusedError(text) from None


def build(study: Study, seen: Audit, *, root: Path = Path()) -> dict[str, Any]:
    """List the files and cells of a study.

    Args:
        study: whose results they are.
        seen: audit of the whole study.
        root: project folder.

    Returns:
        Plain JSON; the same study gives the same.

    Raises:
        RefusedError: the audit found something wrong.
        ArtifactError: a file is missing.
    """
    refuse_failed(seen, "not signed")
    disk = Disk(study, root)
    paths = sorted({study_file(study), *_made(study)})
    return {
        "format": FORMAT,
        "study": study.study,
        "title": study.title,
        "code": _code(disk),
        "files": {path.as_posix(): _entry(root / path) for path in paths},
        "cells": {
            str(address): {"value": cell.value, "state": str(seen.state_of(address))}
            for address, cell in seen.cells.items()
        },
        "audit": {
            "state": str(seen.state),
            "unknown": [
                finding.as_json()
                for finding in seen.all_findings()
                if finding.state is State.UNKNOWN
            ],
        },
    }


def changes(manifest: dict[str, Any], root: Path = Path()) -> list[str]:
    """Hash all files that a manifest names again, and tell each that differs.

    Args:
        manifest: whose signature was checked before.
        root: project folder.
    """
    found = []
    for name, entry in manifest["files"].items():
        if not (root / name).is_file():
            found.append(f"{name}: missing")
            continue
        now = _entry(root / name)
        if now != entry:
            found.append(
                f"{name}: changed: signed with {entry['size']:,} bytes, {entry['sha256']}; "
                f"found {now['size']:,} bytes, {now['sha256']}"
            )
    return found


def foreign(manifest: dict[str, Any], study: Study) -> list[str]:
    """Tell in which way a manifest is not that of a study as it now stands.

    Args:
        manifest: whose signature was checked before; it may have been carried here.
        study: whose results it lies beside.
    """
    signed = manifest.get("study")
    if signed != study.study:
        return [f"signed for the study {signed!r}, expected {study.study!r}"]
    wanted = {study_file(study), *_made(study)}
    names = sorted({path.as_posix() for path in wanted} - set(manifest["files"]))
    more = [f"and {len(names) - _SHOWN} more"] if len(names) > _SHOWN else []
    return [f"{name}: not signed: the manifest does not list it" for name in names[:_SHOWN]] + more


def refuse_failed(seen: Audit, outcome: str) -> None:
    """Raise RefusedError where an audit failed; `outcome` says what there will not be."""
    failed = [finding for finding in seen.all_findings() if finding.state is State.FAILED]
    if failed:
        shown = [f"  {finding.subject}: {finding.text}" for finding in failed[:_SHOWN]]
        more = [f"  and {len(failed) - _SHOWN} more"] if len(failed) > _SHOWN else []
        head = f"{seen.study}: {outcome}, the audit failed {len(failed)} checks:"
        raise RefusedError(
            "\n".join((head, *shown, *more, f"see all: {commands.robustviews(seen.file, 'audit')}"))
        )


def parse(data: bytes, path: Path) -> dict[str, Any]:
    """Return a manifest from its bytes.

    Raises:
        ArtifactError: they are none.
    """
    try:
        manifest = json.loads(data)
        known = manifest["format"] == FORMAT and isinstance(manifest["files"], dict)
    except (ValueError, KeyError, TypeError):
        known = False
    if not known:
        raise ArtifactError(f"{path}: expected a manifest of format {FORMAT}, found something else")
    parsed: dict[str, Any] = manifest
    return parsed


def _made(study: Study) -> list[Path]:
    return [path for job in jobs.jobs(study).values() for path in job.writes]


def _code(disk: Disk) -> list[dict[str, Any]]:
    """Return each state of the sources that some job ran with."""
    parts = (disk.section(job, "code") for job in disk.jobs.values() if job.folder is not None)
    states = {(str(part.get("commit") or ""), part.get("dirty")) for part in parts}
    return [
        {"commit": commit or None, "dirty": dirty}
        for commit, dirty in sorted(states, key=lambda state: (state[0], str(state[1])))
    ]


def _entry(path: Path) -> dict[str, Any]:
    return {"sha256": artifacts.sha256(path), "size": path.stat().st_size}
