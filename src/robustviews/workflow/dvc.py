"""DVC's lock and cache, read without DVC: what a lock names, and where the bytes of a hash lie."""

from __future__ import annotations

import configparser
import hashlib
import json
from pathlib import Path
from typing import Any

import yaml

LOCK = Path("dvc.lock")


class LockError(ValueError):
    """A text is no dvc.lock; the message says what was expected."""


def outs(lock: bytes) -> dict[str, str]:
    """Return the md5 of each output that a dvc.lock names, by path; that of a folder ends in .dir.

    Raises:
        LockError: it is none.
    """
    try:
        stages = yaml.safe_load(lock)["stages"].values()
        named = [out for stage in stages for out in stage.get("outs") or ()]
        return {str(out["path"]).rstrip("/"): str(out["md5"]) for out in named if "md5" in out}
    except (ValueError, yaml.YAMLError, AttributeError, KeyError, TypeError) as error:
        text = f"expected stages with outs, as DVC writes it ({type(error).__name__})"
        raise LockError(text) from None


def files(listing: bytes) -> dict[str, str]:
    """Return the md5 of each file of a folder, by path in it, from what the cache keeps of it."""
    return {str(entry["relpath"]): str(entry["md5"]) for entry in json.loads(listing)}


def folder(root: Path) -> Path:
    """Return the folder in which DVC keeps the bytes of a project."""
    own = root / ".dvc"
    found = own / "cache"
    for name in ("config", "config.local"):
        settings = configparser.ConfigParser(interpolation=None, strict=False)
        settings.read(own / name, encoding="utf-8")
        found = own / settings.get("cache", "dir", fallback=str(found.absolute()))
    return found


def path_of(root: Path, md5: str) -> Path:
    """Return where the cache of a project keeps the bytes of a hash."""
    return folder(root) / "files" / "md5" / md5[:2] / md5[2:]


def md5(data: bytes) -> str:
    """Return the md5 of bytes in hexadecimal, as DVC writes it."""
    return str(_hasher(data).hexdigest())


def md5_of(path: Path) -> str:
    """Return the md5 of a file; an OSError where it cannot be read."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, _hasher).hexdigest()


def _hasher(data: bytes = b"") -> Any:  # noqa: ANN401  # hashlib has no public type
    return hashlib.md5(data, usedforsecurity=False)
