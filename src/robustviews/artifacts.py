"""The only file I/O: atomic writes, safetensors, JSON, records and hashes.

Nothing is ever pickled. A file appears under its name only when it is whole.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from robustviews import commands

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

Record = dict[str, Any]

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


class ArtifactError(RuntimeError):
    """A file is missing or not what it should be; the message names it and the way out.

    Attributes:
        target: file that Snakemake has to make, where that is the way out: its command ends the
            message, which stops where it goes.
    """

    def __init__(self, message: str, target: Path | None = None) -> None:
        super().__init__(message)
        self.target = target

    def __str__(self) -> str:
        return self.told(commands.DEFAULT_STUDY)

    def told(self, study_file: str) -> str:
        """Return the message to somebody who works on the study in a file."""
        message = super().__str__()
        if self.target is None:
            return message
        return f"{message} {commands.snakemake(study_file, self.target)}"


@contextlib.contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Yield a temporary path in the same folder and move it to `path` when the block ends well."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder and move its files to the folder `path` when the block ends well."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    try:
        yield temporary
        path.mkdir(exist_ok=True)
        # A record vouches for the other files, so it comes last.
        for file in sorted(temporary.iterdir(), key=lambda file: file.name == "record.json"):
            file.replace(path / file.name)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text, whole or not at all."""
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_bytes(path: Path, data: bytes) -> None:
    """Write bytes, whole or not at all."""
    with atomic(path) as temporary:
        temporary.write_bytes(data)


def write_json(path: Path, value: Any) -> None:
    """Write indented JSON with sorted keys."""
    write_text(path, json.dumps(value, indent=1, sort_keys=True, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Read JSON; as all readers here, raises ArtifactError when the file is missing or damaged."""
    with reading(path):
        return json.loads(path.read_text(encoding="utf-8"))


def write_jsonl(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write one JSON object a line."""
    write_text(path, "".join(json.dumps(row, sort_keys=True) + "\n" for row in rows))


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """Read one JSON object a line."""
    with reading(path):
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def write_tensors(
    path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str] | None = None
) -> None:
    """Write tensors as safetensors; the same tensors give the same bytes."""
    from safetensors.torch import save_file

    # Layout (channels_last) is no part of a value: bytes must not depend on it.
    plain = {name: tensors[name].detach().cpu().contiguous() for name in sorted(tensors)}
    with atomic(path) as temporary:
        save_file(plain, temporary, metadata)


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read safetensors as CPU tensors."""
    from safetensors.torch import load_file

    with reading(path):
        return load_file(path)


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Read safetensors as numpy arrays, without torch."""
    from safetensors.numpy import load_file

    with reading(path):
        return load_file(path)


def sha256(path: Path) -> str:
    """Return `sha256:<hex>` of a file."""
    with reading(path), path.open("rb") as file:
        return "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn whatever is wrong with a file into an ArtifactError that says what to do."""
    from safetensors import SafetensorError

    try:
        yield
    except (FileNotFoundError, NotADirectoryError):
        raise ArtifactError(f"{path}: missing; make it with:", path) from None
    except (ValueError, SafetensorError) as error:
        message = f"{path}: damaged ({error}); delete it and run snakemake again"
        raise ArtifactError(message) from None
    except OSError as error:
        message = f"{path}: cannot be read ({error.strerror or error}); see: ls -ld {path}"
        raise ArtifactError(message) from None


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
        folder / "record.json",
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
    path = Path(__file__).parents[2] / "requirements.lock"
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
    return path.is_file() and path.name != "record.json" and not path.name.startswith(".")


def commit() -> tuple[str | None, bool | None]:
    """Return the commit of the code and whether its sources differ; None where nothing tells.

    Git tells in a checkout. A copy without git, as in an image or a bundle, has a file COMMIT
    beside its sources instead, such as `38b693c...` or `38b693c...-dirty`.
    """
    if not _git("ls-files", "--", Path(__file__).name):
        return _written_commit()  # installed, perhaps into a folder of some other repository
    with tempfile.TemporaryDirectory(prefix="robustviews-") as folder:
        # The repository's own index may tell git to take an edited file for unchanged.
        index = str(Path(folder) / "index")
        known = _git("read-tree", "HEAD", index=index) is not None
        status = _git("status", "--porcelain", "--", ".", index=index) if known else None
    return _git("rev-parse", "HEAD"), None if status is None else bool(status)


def _written_commit() -> tuple[str | None, bool | None]:
    try:
        text = (Path(__file__).parents[2] / "COMMIT").read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None, None
    found = re.fullmatch(r"([0-9a-f]{40}|[0-9a-f]{64})(-dirty)?\s*", text)
    return (found[1], bool(found[2])) if found else (None, None)


def _git(*arguments: str, index: str = "") -> str | None:
    command = ["git", "-C", str(Path(__file__).parent), *arguments]
    environment = {**os.environ, "GIT_INDEX_FILE": index} if index else None
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=10, check=True, env=environment
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
