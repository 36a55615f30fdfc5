"""Records: what they must have before anything is read from them, and how they are written."""

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
# What a record has, with the types and how people call them.
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
    """Say in which way JSON is no record of a job, or nothing when it is one.

    Args:
        record: as it was read.
        whole: whether it must have all sections; else only what tells a job, its inputs and outputs
            must be there, and the others may be None, which stands for unknown.
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
    """Return a record after a look at its shape; `whole` as in `broken`.

    Raises:
        ArtifactError: it is none.
    """
    wrong = broken(record, whole=whole)
    if wrong:
        folder = Path(where).parent
        raise ArtifactError(
            f"{where}: no record of a job, {wrong}; get it back with: "
            f"dvc checkout --force {folder}   or remove {folder} and run snakemake again"
        )
    assert isinstance(record, dict)
    return record


# Whose versions may decide a number.
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
    """Write record.json beside the files of a finished job: what they are, and made from what.

    Args:
        folder: holds the job's outputs; every file in it but record.json is hashed.
        stage: verb that made them.
        name: of the job.
        study: slug.
        spec: resolved options, with the digest of the code under `code`.
        inputs: files that were read.
        environment: device, threads and the like; what is installed is added.
        started: time.time() at the start.
        result: numbers of the job, for people and for logs.
        resumed: how often an interruption was survived.
        seconds: work time over all processes; since `started` when None.
        code: what `commit` returned at the start, before anybody could edit or commit; asked now
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
    """Return the requirements.lock that stands beside the sources, if it does."""
    path = Path(__file__).parents[3] / "requirements.lock"
    return path if path.is_file() else None


def _software() -> dict[str, Any]:
    """Describe what is installed: the lock, what it gave, the image around it; None if unknown."""
    lock, packages = lock_file(), {}
    for name in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            packages[name] = importlib.metadata.version(name)
    return {
        "lock": sha256(lock) if lock else None,
        "packages": packages,
        "image": _public_name(os.environ.get("ROBUSTVIEWS_IMAGE", "")) or None,
    }


def _public_name(image: str) -> str:
    """Return an image's name without its folder here, or `user:password@` before its registry."""
    if image.startswith(("/", ".", "~")):
        return Path(image).name
    return re.sub(r"(^|//)[^/]*@(?!sha256:)", r"\1", image)


def _is_output(path: Path) -> bool:
    return path.is_file() and path.name != RECORD and not path.name.startswith(".")
