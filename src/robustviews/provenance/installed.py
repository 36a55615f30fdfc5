"""Check of the installed libraries: their Python files, compared with their packages' checksums.

A patched library computes other numbers under the same version. Only the files here are seen, not
those of the machine that ran a job, and only Python files: the compiled ones have gigabytes.
"""

from __future__ import annotations

import base64
import contextlib
import csv
import hashlib
import importlib.metadata
from pathlib import Path

from robustviews.machine.humanize import some
from robustviews.provenance.findings import Finding, State, verified

_LIBRARIES = ("torch", "torchvision", "pyautoattack")  # that train and attack
_NAMED = 3  # files that a finding names


def check() -> Finding:
    """Return whether the Python files of the libraries are those that were installed."""
    problem = edited()
    if problem:
        return Finding("installed", "packages", State.DOUBT, f"{problem}; type: {command()}")
    text = f"the Python files of {', '.join(_versions())} are as installed"
    return verified("installed", "packages", text)


def edited() -> str:
    """Return which files were changed since their installation; empty if none were."""
    files = [
        file for name in _versions() for file in _edited(importlib.metadata.distribution(name))
    ]
    return f"changed since the installation: {some(files, _NAMED)}" if files else ""


def command() -> str:
    """Return the command that installs the libraries again."""
    versions = " ".join(f"{name}=={version}" for name, version in _versions().items())
    return f"uv pip install --reinstall --no-deps {versions}"


def _versions() -> dict[str, str]:
    versions = {}
    for name in _LIBRARIES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    return versions


def _edited(distribution: importlib.metadata.Distribution) -> list[str]:
    """Return the Python files that are missing or differ from the RECORD of their distribution."""
    edited, folder = [], Path(str(distribution.locate_file("")))
    rows = csv.reader((distribution.read_text("RECORD") or "").splitlines())
    for file, stated, *_size in (row for row in rows if len(row) > 1):
        if not file.endswith(".py") or not stated.startswith("sha256="):
            continue
        try:
            data = (folder / file).read_bytes()
        except OSError:
            data = b""
        digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
        if stated != f"sha256={digest}":
            edited.append(file)
    return edited
