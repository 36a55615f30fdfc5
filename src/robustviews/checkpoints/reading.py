"""Read a checkpoint of any origin without executing anything in it.

Files of torch are pickles, and a pickle can call any function. torch's `weights_only` reader builds
tensors and plain containers alone. Here an `argparse.Namespace` and numpy's numbers are plain
values, too: published files hold them beside the weights.
"""

from __future__ import annotations

import argparse
import pickle
import re
import shlex
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from safetensors import SafetensorError, safe_open

from robustviews.checkpoints.errors import CheckpointError

_AGAIN = "download it again"
_ERRORS = (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, LookupError, TypeError)
_LEGACY = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # pickle of torch's magic number
# Modules of functions that no weights need; torch names builtins without their module.
_CODE = {
    *("__builtin__", "builtins", "commands", "ctypes", "importlib", "nt", "os", "posix", "runpy"),
    *("shutil", "socket", "subprocess", "sys"),
}
_NUMBERS = (
    *("Bool", "Float16", "Float32", "Float64", "Int8", "Int16", "Int32", "Int64"),
    *("UInt8", "UInt16", "UInt32", "UInt64"),
)
_CONVERSION = (
    'python -c "import sys, torch; keep = lambda v: {k: keep(x) for k, x in v.items()} if '
    "isinstance(v, dict) else v if torch.is_tensor(v) else keep(v.state_dict()) if "
    "hasattr(v, 'state_dict') else None; torch.save(keep(torch.load(sys.argv[1], "
    "map_location='cpu', weights_only=False)), sys.argv[2])\""
)


class Contents(NamedTuple):
    """What a file holds.

    Attributes:
        container: how it is stored: `torch zip`, `torch legacy`, `safetensors`.
        tree: nested mappings and other plain values, with tensors on the CPU.
        metadata: texts beside the tensors of a safetensors file.
    """

    container: str
    tree: Any
    metadata: dict[str, str]


Reader = Callable[[Path], Contents]


def read(path: Path) -> Contents:
    """Read a checkpoint; nothing from the file is executed.

    Raises:
        CheckpointError: no such file, no checkpoint, a damaged one, or one that needs more than
            tensors and plain values.
    """
    try:
        return recognise(path)(path)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror or error})") from None


def recognise(path: Path) -> Reader:
    """Return what reads a checkpoint, from its first bytes, however large the file is.

    Raises:
        CheckpointError: no checkpoint, or one that is not read.
    """
    try:
        with path.open("rb") as file:
            head = file.read(512)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror or error})") from None
    for fits, reader in _READERS:
        if fits(head) and isinstance(reader, str):
            raise CheckpointError(f"{path}: {reader}")
        if fits(head) and not isinstance(reader, str):
            return reader
    raise CheckpointError(
        f"{path}: no checkpoint: expected a file of torch.save or safetensors, found a file that "
        f"begins with {head[:8].hex(' ')}; see: file {shlex.quote(str(path))}"
    )


def _zip(path: Path) -> Contents:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            damaged = archive.testzip()  # torch does not compare checksums
    except (zipfile.BadZipFile, EOFError, NotImplementedError) as error:
        raise CheckpointError(f"{path}: truncated or damaged ({error}); {_AGAIN}") from None
    if damaged:
        raise CheckpointError(f"{path}: damaged: the checksum of {damaged} differs; {_AGAIN}")
    if any(name.endswith(".npy") for name in names):
        raise CheckpointError(f"{path}: numpy arrays (.npz), no torch file; {_RESAVE}")
    if any(name.endswith("constants.pkl") for name in names):
        raise CheckpointError(
            f"{path}: a TorchScript program, not weights; save its state dict: "
            "torch.save(torch.jit.load(FILE).state_dict(), NEW)"
        )
    if not any(name.endswith("data.pkl") for name in names):
        raise CheckpointError(
            f"{path}: a zip of other files, such as {names[0] if names else 'none'}; "
            "unzip it and import the checkpoint in it"
        )
    return Contents("torch zip", _load(path), {})


def _legacy(path: Path) -> Contents:
    return Contents("torch legacy", _load(path), {})


def _safetensors(path: Path) -> Contents:
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # no dict
            return Contents("safetensors", tensors, dict(file.metadata() or {}))
    except SafetensorError as error:
        raise CheckpointError(f"{path}: truncated or damaged ({error}); {_AGAIN}") from None


def _load(path: Path) -> Any:  # noqa: ANN401  # what a file holds
    """Load a file of torch.save with tensors, plain values and the safe names alone."""
    try:
        with torch.serialization.safe_globals(_safe_names()):
            return torch.load(path, map_location="cpu", weights_only=True)
    except _ERRORS as error:
        refused = re.search("GLOBAL|Can only|Trying to call", str(error))
        if isinstance(error, pickle.UnpicklingError) and refused:
            raise CheckpointError(f"{path}: {_refusal(path, str(error))}") from None
        reason = str(error).strip().splitlines()[:1] or [type(error).__name__]
        text = f"truncated or damaged ({reason[0][:120]})"
        raise CheckpointError(f"{path}: {text}; {_AGAIN}") from None


def _safe_names() -> list[Callable[..., Any] | tuple[Callable[..., Any], str]]:
    """Return what may be built besides tensors: attributes of a Namespace, and numpy's numbers."""
    scalar = np.float64(0).__reduce__()[0]  # the function that builds one
    old_and_new = [(scalar, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")]
    kinds = [getattr(np.dtypes, f"{name}DType") for name in _NUMBERS]
    return [argparse.Namespace, *old_and_new, np.dtype, *kinds]


def _refusal(path: Path, message: str) -> str:
    """Return which names a file needs beyond tensors and plain values, and what to do."""
    named = ["".join(one) for one in re.findall(r"GLOBAL (\S+)|but got <class '([\w.]+)", message)]
    try:
        with torch.serialization.safe_globals(_safe_names()):
            found = sorted(torch.serialization.get_unsafe_globals_in_checkpoint(path))
    except ValueError:  # a legacy file
        found = []
    names = found or named or [message.splitlines()[0]]
    listed = ", ".join(names)
    if any(name.split(".")[0] in _CODE or name.isidentifier() for name in names):
        return f"refused: it would run code ({listed}); do not open this file, nothing was run"
    command = f"{_CONVERSION} {shlex.quote(str(path))} {shlex.quote(f'{path}.plain')}"
    return (
        f"refused: more than tensors and plain values ({listed}), nothing was run; if you trust "
        f"its source, convert it once, which does run its code, and import the result: {command}"
    )


_RESAVE = (
    "if you trust its source, load it as its authors do, and save the weights under torchvision's "
    "names with torch.save"
)

# How the first bytes of a file look, and what reads it or why nothing does.
_READERS: tuple[tuple[Callable[[bytes], bool], Reader | str], ...] = (
    # Safetensors begin with a length, whose first byte may be that of any other file.
    (lambda head: head[4:9] == b"\0\0\0\0{", _safetensors),
    (lambda head: not head, f"empty; {_AGAIN}"),
    (
        lambda head: head.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<"),
        "a web page (HTML), not the file; follow the link on that page to the file",
    ),
    (
        lambda head: head.startswith(b"version https://git-lfs"),
        "a Git LFS pointer, not the file; get the file with: git lfs pull",
    ),
    (lambda head: head.startswith(b"PK"), _zip),
    (lambda head: head.startswith(_LEGACY), _legacy),
    (
        lambda head: head.startswith(b"\x80"),
        f"a plain pickle, no file of torch.save, and not opened; {_RESAVE}",
    ),
    (
        lambda head: (
            head.startswith((b"\x1f\x8b", b"BZh", b"\xfd7zXZ")) or head[257:262] == b"ustar"
        ),
        "a compressed file or archive; unpack it and import the checkpoint in it",
    ),
)
