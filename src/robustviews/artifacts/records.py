"""Records: how a job's record is written, and checked before anything is read from it."""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import os
import re
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from robustviews.artifacts.files import RECORD, ArtifactError, sha256, write_json
from robustviews.artifacts.revision import commit

Record = dict[str, Any]

_MAPPING, _TEXT = (dict, "a mapping"), (str, "text")
# The sections of a record, with their types and the name of each type in messages.
_CORE = ("stage", "name", "spec", "inputs", "outputs")
_SECTIONS: dict[str, tuple[type | tuple[type, ...], str]] = {
    "stage": _TEXT,
    "name": _TEXT,
    "spec": _MAPPING,
    "inputs": _MAPPING,
    "outputs": _MAPPING,
    "study": _TEXT,
    "code": _MAPPING,
    "environment": _MAPPING,
    "started": _TEXT,
    "seconds": ((int, float), "a number"),
    "result": _MAPPING,
}


def broken(record: object, *, whole: bool = True) -> str:
    """Return why JSON is not a valid job record; an empty text for a valid one.

    Args:
        record: parsed JSON.
        whole: whether all sections are required; otherwise only those that identify a job, its
            inputs and its outputs are, and the others may be missing or None (unknown).
    """
    if not isinstance(record, dict):
        return f"expected a mapping, found {json.dumps(record)[:40]}"
    needed = _SECTIONS if whole else _CORE
    lacking = [name for name in needed if name not in record]
    if lacking:
        return f"it lacks {', '.join(lacking)}"
    for name, (kinds, what) in _SECTIONS.items():
        value = record.get(name)
        unknown = value is None and name not in needed
        if not unknown and (not isinstance(value, kinds) or isinstance(value, bool)):
            return f"expected {what} as {name}"
    for section, name in (("environment", "device"), ("code", "commit"), ("code", "digest")):
        if not isinstance((record.get(section) or {}).get(name), str | None):
            return f"expected text as {section}.{name}"
    return ""


def require(record: object, where: Path | str, *, whole: bool = True) -> Record:
    """Return a record after checking its sections and types; `whole` as in `broken`.

    Raises:
        ArtifactError: the record is not valid.
    """
    problem = broken(record, whole=whole)
    if problem:
        folder = Path(where).parent
        raise ArtifactError(
            f"{where}: not a job record: {problem}; restore it with: "
            f"dvc checkout --force {folder}   or remove {folder} and run snakemake again"
        )
    assert isinstance(record, dict)
    return record


# Packages whose versions may change a result.
PACKAGES = (
    "numpy",
    "pillow",
    "pyautoattack",
    "safetensors",
    "scikit-learn",
    "torch",
    "torchvision",
)


def write_record(
    folder: Path,
    *,
    stage: str,
    name: str,
    study: str,
    spec: dict[str, Any],
    inputs: list[Path],
    environment: dict[str, Any],
    started: float,
    result: dict[str, Any],
    resumed: int = 0,
    seconds: float | None = None,
    code: tuple[str | None, bool | None] | None = None,
) -> None:
    """Write record.json beside the files of a finished job: their hashes and their origin.

    Args:
        folder: holds the job's outputs; every file except record.json is hashed.
        stage: verb that wrote the outputs.
        name: of the job.
        study: slug.
        spec: resolved options, with the digest of the code under `code`.
        inputs: files that the job read.
        environment: device, threads and the like; the installed software is added.
        started: time.time() at the start.
        result: numbers of the job, for readers and logs.
        resumed: how often the job was resumed after an interruption.
        seconds: work time over all processes; the time since `started` when None.
        code: what `commit` returned at the start, before anybody could edit or commit; called now
            when None.
    """
    outputs = [path for path in sorted(folder.iterdir()) if _is_output(path)]
    revision, dirty = code or commit()
    write_json(
        folder / RECORD,
        {
            "stage": stage,
            "name": name,
            "study": study,
            "spec": spec,
            "inputs": {path.as_posix(): sha256(path) for path in inputs},
            "outputs": {path.name: sha256(path) for path in outputs},
            "code": {"digest": spec.get("code"), "commit": revision, "dirty": dirty},
            "environment": {**_software(), **environment},
            "seed": spec.get("seed"),
            "started": f"{datetime.fromtimestamp(started, UTC):%Y-%m-%dT%H:%M:%SZ}",
            "seconds": round(time.time() - started if seconds is None else seconds, 3),
            "resumed": resumed,
            "result": result,
        },
    )


def lock_file() -> Path | None:
    """Return the path of the requirements.lock beside the sources; None without one."""
    path = Path(__file__).parents[3] / "requirements.lock"
    return path if path.is_file() else None


def packages() -> dict[str, str]:
    """Return the installed versions of the packages whose versions may change a result."""
    versions = {}
    for name in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    return versions


def _software() -> dict[str, Any]:
    """Return the lock file's hash, installed versions and the container image; None if unknown."""
    lock = lock_file()
    return {
        "lock": sha256(lock) if lock else None,
        "packages": packages(),
        "image": _public_name(os.environ.get("ROBUSTVIEWS_IMAGE", "")) or None,
    }


def _public_name(image: str) -> str:
    """Return an image's name without local folders and without `user:password@`."""
    if image.startswith(("/", ".", "~")):
        return Path(image).name
    return re.sub(r"(^|//)[^/]*@(?!sha256:)", r"\1", image)


def _is_output(path: Path) -> bool:
    return path.is_file() and path.name != RECORD and not path.name.startswith(".")
