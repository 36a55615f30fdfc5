"""Records: what a finished job states about itself, written once and checked where it is read."""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import math
import os
import re
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from robustviews.artifacts.files import RECORD, ArtifactError, read_json, sha256, write_json
from robustviews.artifacts.revision import commit
from robustviews.artifacts.start import Start

_MAPPING, _TEXT, _NUMBER = (dict, "a mapping"), (str, "text"), ((int, float), "a number")
_WHOLE, _FLAG = (int, "a whole number"), (bool, "true or false")
# What JSON may hold under each key of a record, with the name of the type in messages.
_KINDS: dict[str, tuple[type | tuple[type, ...], str]] = {
    "stage": _TEXT,
    "name": _TEXT,
    "spec": _MAPPING,
    "inputs": _MAPPING,
    "outputs": _MAPPING,
    "study": _TEXT,
    "code": _MAPPING,
    "environment": _MAPPING,
    "seed": _WHOLE,
    "started": _TEXT,
    "seconds": _NUMBER,
    "resumed": _WHOLE,
    "result": _MAPPING,
}
_PARTS: dict[tuple[str, str], tuple[type | tuple[type, ...], str]] = {
    ("code", "digest"): _TEXT,
    ("code", "commit"): _TEXT,
    ("code", "dirty"): _FLAG,
    ("environment", "device"): _TEXT,
}
_IDENTITY = ("stage", "name", "spec", "inputs", "outputs")
_OPTIONAL = ("seed", "resumed")  # null, or absent from older records


@dataclass(frozen=True)
class Code:
    """The code of a job; None is unknown."""

    digest: str | None = None  # of the definitions that decide the result
    commit: str | None = None  # git commit of the sources
    dirty: bool | None = None  # whether the sources had uncommitted changes


@dataclass(frozen=True)
class Record:
    """What a finished job states about itself; None, or an empty mapping, is unknown."""

    stage: str = ""  # rule of the job
    name: str = ""  # name of the job within its rule
    spec: dict[str, Any] = field(default_factory=dict)  # what decided the result
    inputs: dict[str, str] = field(default_factory=dict)  # checksums of files read, by path
    outputs: dict[str, str] = field(default_factory=dict)  # checksums of files written, by name
    study: str | None = None  # slug of the study
    code: Code = Code()
    environment: dict[str, Any] = field(default_factory=dict)  # device, threads, versions
    seed: int | None = None  # seed of the job; None also for a job that needs none
    started: str | None = None  # start of the job, in ISO 8601
    seconds: float | None = None  # work time
    resumed: int | None = None  # how often the job was resumed after an interruption
    result: dict[str, Any] = field(default_factory=dict)  # numbers of the job, for readers and logs

    @classmethod
    def read(cls, path: Path, *, whole: bool = True) -> Record:
        """Read a record from its file; `whole` as in `parse`.

        Raises:
            ArtifactError: the file is missing, damaged, or not a record.
        """
        return cls.parse(read_json(path), path, whole=whole)

    @classmethod
    def parse(cls, value: object, where: Path | str, *, whole: bool = True) -> Record:
        """Check parsed JSON once, and return it as a record.

        Args:
            value: parsed JSON.
            where: file of the record, for messages.
            whole: whether every key is required; otherwise only those that identify a job, its
                inputs and its outputs are, and the others may be missing or None (unknown).

        Raises:
            ArtifactError: the JSON is not a record.
        """
        problem = _problem(value, whole=whole)
        if problem:
            folder = Path(where).parent
            raise ArtifactError(
                f"{where}: not a job record: {problem}; restore it with: "
                f"dvc checkout --force {folder}   or remove {folder} and run snakemake again"
            )
        assert isinstance(value, dict)
        stated = {key: value[key] for key in _KINDS if value.get(key) is not None}
        code = stated.get("code", {})
        names = [part.name for part in fields(Code)]
        return cls(**{**stated, "code": Code(**{name: code.get(name) for name in names})})

    @property
    def start(self) -> float | None:
        """When the job started, in seconds since the epoch."""
        return None if self.started is None else _moment(self.started)


def _problem(value: object, *, whole: bool) -> str:
    """Return why JSON is not a record; an empty text for a valid one."""
    if not isinstance(value, dict):
        return f"expected a mapping, found {json.dumps(value)[:40]}"
    needed = _KINDS if whole else _IDENTITY
    lacking = [key for key in needed if key not in value and key != "resumed"]
    if lacking:
        return f"it lacks {', '.join(lacking)}"
    for key, (kinds, what) in _KINDS.items():
        if not _fits(value.get(key), kinds, unknown=key in _OPTIONAL or key not in needed):
            return f"expected {what} as {key}"
    for (section, key), (kinds, what) in _PARTS.items():
        if not _fits((value.get(section) or {}).get(key), kinds, unknown=True):
            return f"expected {what} as {section}.{key}"
    return _wrong_value(value)


def _wrong_value(value: dict[str, Any]) -> str:
    """Return which value of a record is impossible, although its type is right."""
    for section in ("inputs", "outputs"):
        if not all(isinstance(checksum, str) for checksum in value[section].values()):
            return f"expected checksums as {section}"
    seconds, started = value.get("seconds"), value.get("started")
    if (value.get("resumed") or 0) < 0:
        return f"expected a count as resumed, found {value['resumed']}"
    if seconds is not None and not (math.isfinite(seconds) and seconds >= 0):
        return f"expected a duration as seconds, found {seconds}"
    if started is not None and _moment(started) is None:
        return f"expected a time as started, found {started!r}"
    return ""


def _fits(value: object, kinds: type | tuple[type, ...], *, unknown: bool) -> bool:
    if value is None:
        return unknown
    return isinstance(value, kinds) and (kinds is bool or not isinstance(value, bool))


def _moment(text: str) -> float | None:
    """Return a time in ISO 8601 in seconds since the epoch; None for any other text."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


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
    started: Start,
    result: dict[str, Any],
    resumed: int = 0,
    seconds: float | None = None,
    code: tuple[str | None, bool | None] | None = None,
) -> None:
    """Write record.json beside the files of a finished job: their hashes and their origin.

    All other files of the folder are outputs. The installed software is added to `environment`, and
    the digest in the spec to `code`: what `commit` returned at the start, before anybody could edit
    or commit; called now when None. `seconds` is the work time over all processes; the time since
    `started` when None. The other arguments are fields of `Record`.
    """
    files = (path for path in sorted(folder.iterdir()) if path.is_file())
    outputs = [path for path in files if path.name != RECORD and not path.name.startswith(".")]
    revision, dirty = code or commit()
    record = Record(
        stage=stage,
        name=name,
        spec=spec,
        inputs={path.as_posix(): sha256(path) for path in inputs},
        outputs={path.name: sha256(path) for path in outputs},
        study=study,
        code=Code(spec.get("code"), revision, dirty),
        environment={**_software(), **environment},
        seed=spec.get("seed"),
        started=f"{datetime.fromtimestamp(started.clock, UTC):%Y-%m-%dT%H:%M:%SZ}",
        seconds=round(started.elapsed() if seconds is None else seconds, 3),
        resumed=resumed,
        result=result,
    )
    write_json(folder / RECORD, asdict(record))


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
    return without_login(image)


def without_login(image: str) -> str:
    """Return an image's name without `user:password@` before its registry."""
    return re.sub(r"(^|//)[^/]*@(?!sha256:)", r"\1", image)
