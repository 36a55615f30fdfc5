"""dvc.lock and DVC's cache, read without DVC: the outputs of a lock, and the file of a hash."""

from __future__ import annotations

import configparser
import hashlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from robustviews import artifacts

LOCK = Path("dvc.lock")
# What reading YAML or JSON of an unexpected form raises.
_WRONG = (ValueError, RecursionError, AttributeError, KeyError, TypeError)


class LockError(ValueError):
    """A text is not a dvc.lock; the message says what was expected."""


def outs(lock: bytes) -> dict[str, str]:
    """Return the md5 of each output in a dvc.lock, by path; the md5 of a folder ends in .dir.

    Raises:
        LockError: the text is not a dvc.lock.
    """
    try:
        stages = yaml.safe_load(lock)["stages"].values()
        listed = [out for stage in stages for out in stage.get("outs") or ()]
        return {str(out["path"]).rstrip("/"): str(out["md5"]) for out in listed if "md5" in out}
    except (*_WRONG, yaml.YAMLError) as error:
        text = f"expected stages with outs, as DVC writes it ({type(error).__name__})"
        raise LockError(text) from None


def unstated(study: Path) -> list[str]:
    """Return the parameters that dvc.yaml reads of a study file beside it, and that are not there.

    Empty for any file but params.yaml, and where DVC cannot read one of the two.
    """
    stages = study.with_name("dvc.yaml")
    if study.name != "params.yaml" or not stages.is_file():
        return []
    try:
        keys = yaml.safe_load(study.read_bytes()).keys()
        listed = yaml.safe_load(stages.read_bytes())["stages"].values()
        params = [str(name) for stage in listed for name in stage.get("params") or ()]
    except (*_WRONG, yaml.YAMLError):
        return []
    return [name for name in dict.fromkeys(params) if name not in keys]


def files(listing: bytes) -> dict[str, str]:
    """Return the md5 of each file of a folder, by path in it, from the folder's cached list.

    Raises:
        LockError: the bytes are not such a list.
    """
    try:
        entries = artifacts.parse_json(listing)
        return {str(entry["relpath"]): str(entry["md5"]) for entry in entries}
    except _WRONG as error:
        raise LockError(f"expected a list of files ({type(error).__name__})") from None


def folder(root: Path) -> Path:
    """Return the folder of a project's DVC cache."""
    cache = root / ".dvc" / "cache"
    for settings in _settings(root):
        cache = root / ".dvc" / settings.get("cache", "dir", fallback=str(cache.absolute()))
    return cache


def remotes(root: Path) -> dict[str, str]:
    """Return the address of each of a project's remotes, by name."""
    found: dict[str, str] = {}
    for settings in _settings(root):
        for section in settings.sections():
            match = re.fullmatch(r"'?remote \"(.*)\"'?", section)
            if match:
                found[match[1]] = settings.get(section, "url", fallback=found.get(match[1], ""))
    return found


def _settings(root: Path) -> Iterator[configparser.ConfigParser]:
    """Yield the settings of a project and those that only this machine has."""
    for path in (root / ".dvc" / "config", root / ".dvc" / "config.local"):
        settings = configparser.ConfigParser(interpolation=None, strict=False)
        if path.is_file():
            with artifacts.reading(path):
                text = path.read_text(encoding="utf-8")
                try:
                    settings.read_string(text)
                except configparser.Error as error:
                    raise ValueError(str(error).splitlines()[0]) from None
                if "\0" in text:
                    raise ValueError("a null character")
        yield settings


def path_of(root: Path, md5: str) -> Path:
    """Return the path of the cached file with a hash."""
    return folder(root) / "files" / "md5" / md5[:2] / md5[2:]


def md5(data: bytes) -> str:
    """Return the md5 of bytes in hexadecimal, as DVC writes it."""
    return str(_hasher(data).hexdigest())


def md5_of(path: Path) -> str:
    """Return the md5 of a file.

    Raises:
        OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, _hasher).hexdigest()


def _hasher(data: bytes = b"") -> Any:  # noqa: ANN401  # hashlib has no public type
    return hashlib.md5(data, usedforsecurity=False)
