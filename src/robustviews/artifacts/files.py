"""The only file I/O: atomic writes, safetensors, JSON, records and hashes.

Nothing is ever pickled. A file appears under its name only when it is complete.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from robustviews import commands

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

RECORD = "record.json"


class ArtifactError(RuntimeError):
    """A file is missing or not what it should be; the message names the file and the fix.

    Attributes:
        target: file that Snakemake must make, if that is the fix; `message` then appends the
            command.
    """

    def __init__(self, message: str, target: Path | None = None) -> None:
        super().__init__(message)
        self.target = target

    def __str__(self) -> str:
        return self.message(commands.DEFAULT_STUDY)

    def message(self, study_file: str) -> str:
        """Return the message; its suggested command names the study file."""
        text = super().__str__()
        if self.target is None:
            return text
        return f"{text} {commands.snakemake(study_file, self.target)}"


@contextlib.contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Yield a temporary path in the same folder; move it to `path` when the block succeeds."""
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        os.close(handle)
        temporary = Path(name)
        try:
            yield temporary
            temporary.chmod(0o666 & ~_umask())
            _sync(temporary)
            temporary.replace(path)
            _sync(path.parent)
        finally:
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_folder(path: Path, *, resumes: str = "") -> Iterator[Path]:
    """Yield a temporary folder; move its files to the folder `path` when the block succeeds.

    The record comes last: it covers the other files with checksums.

    Args:
        path: the folder.
        resumes: pattern of files. If the block does not succeed and left such a file, the temporary
            folder is kept, and yielded again next time. Empty: it is never kept.
    """
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        if resumes:
            temporary = path.parent / f".{path.name}.partial"
            temporary.mkdir(exist_ok=True)
        else:
            temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
        finished = False
        try:
            yield temporary
            finished = True
            path.mkdir(exist_ok=True)
            files = sorted(temporary.iterdir(), key=lambda file: file.name == RECORD)
            for file in files:
                _sync(file)
            for file in files:
                if file.name == RECORD:
                    _sync(path)
                file.replace(path / file.name)
            _sync(path)
            _sync(path.parent)
        finally:
            if finished or not resumes or not any(temporary.glob(resumes)):
                shutil.rmtree(temporary, ignore_errors=True)


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Let an error of the block name the path that is written, not a temporary one or none."""
    try:
        yield
    except _or_of_safetensors() as error:  # is no OSError, even on a full disk
        number = re.search(r"os error (\d+)", str(error))
        if number is None:
            raise
        raise OSError(int(number[1]), os.strerror(int(number[1])), str(path)) from None
    except OSError as error:
        if error.filename is None or f".{path.name}." in str(error.filename):
            error.filename = str(path)
        raise


def _or_of_safetensors(*errors: type[Exception]) -> tuple[type[Exception], ...]:
    """Return errors, with that of safetensors if it is imported; JSON is read without it."""
    module = sys.modules.get("safetensors")
    return errors if module is None else (*errors, module.SafetensorError)


def _sync(path: Path) -> None:
    """Wait until a file, or the names in a folder, would survive a power cut."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno != errno.EINVAL:  # a file system that cannot do this for a folder
            raise
    finally:
        os.close(handle)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text atomically."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, data: bytes) -> None:
    """Write bytes atomically."""
    with atomic(path) as temporary:
        temporary.write_bytes(data)


def write_json(path: Path, value: Any) -> None:
    """Write indented JSON with sorted keys."""
    write_text(path, json.dumps(value, indent=1, sort_keys=True, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Read JSON; like all readers here, raise ArtifactError for a missing or damaged file."""
    with reading(path):
        return parse_json(path.read_text(encoding="utf-8"))


def parse_json(text: str | bytes) -> Any:
    """Parse JSON; raise ValueError also for NaN, which is no JSON, and for deep nesting."""
    try:
        return json.loads(text, parse_constant=_refuse_constant)
    except RecursionError:
        raise ValueError("nested hundreds of levels deep") from None


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def write_jsonl(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write one JSON object per line."""
    write_text(path, "".join(json.dumps(row, sort_keys=True) + "\n" for row in rows))


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """Read one JSON object per line."""
    with reading(path):
        rows = [parse_json(line) for line in path.read_text(encoding="utf-8").splitlines()]
        if not all(isinstance(row, dict) for row in rows):
            raise ValueError("expected a mapping in each line")
        return rows


def new_array(path: Path, shape: tuple[int, ...], dtype: type[np.generic]) -> np.ndarray:
    """Return an array to fill that is mapped from a new .npy file and does not use memory."""
    from numpy.lib.format import open_memmap

    array: np.ndarray = open_memmap(path, mode="w+", dtype=dtype, shape=shape)
    if hasattr(os, "posix_fallocate"):  # otherwise a full disk ends the process without a message
        with path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    return array


def array_again(path: Path, shape: tuple[int, ...], dtype: type[np.generic]) -> np.ndarray:
    """Return an array that an interrupted process began to fill; a new one if there is none."""
    import numpy as np

    with contextlib.suppress(OSError, ValueError, EOFError):
        array: np.ndarray = np.load(path, mmap_mode="r+", allow_pickle=False)
        if array.shape == shape and array.dtype == dtype:
            return array
    return new_array(path, shape, dtype)


def write_tensors(
    path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str] | None = None
) -> None:
    """Write tensors as safetensors; the same tensors give the same bytes."""
    from safetensors.torch import save_file

    # The bytes must not depend on the memory layout (channels_last).
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
    """Raise any error of reading a file as an ArtifactError that suggests a fix."""
    try:
        yield
    except (FileNotFoundError, NotADirectoryError):
        raise ArtifactError(f"{path}: missing; make it with:", path) from None
    except _or_of_safetensors(ValueError, RecursionError) as error:
        message = f"{path}: damaged ({error}); delete it and run snakemake again"
        raise ArtifactError(message) from None
    except OSError as error:
        message = f"{path}: cannot be read ({error.strerror or error}); see: ls -ld {path}"
        raise ArtifactError(message) from None
