"""What a record of a job must have, before anything is read from it."""

from __future__ import annotations

import json
from pathlib import Path

from robustviews.artifacts import ArtifactError, Record

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
