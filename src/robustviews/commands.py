"""Suggested commands: command lines of this package and of Snakemake for a given study."""

from __future__ import annotations

import shlex
from pathlib import Path

DEFAULT_STUDY = "params.yaml"


def robustviews(study_file: str, *words: object) -> str:
    """Return a quoted command line of this package, with `--study` if it is not the default."""
    option = [] if study_file == DEFAULT_STUDY else ["--study", _named(study_file)]
    return shlex.join(["robustviews", *map(str, words), *option])


def snakemake(study_file: str, *words: object, device: str = "") -> str:
    """Return a quoted command line of Snakemake, with `--config` for another study or a device."""
    settings = [] if study_file == DEFAULT_STUDY else [f"study={_named(study_file)}"]
    settings += [f"device={device}"] if device else []
    # Snakemake reads everything after --config as settings, so it comes last.
    option = ["--config", *settings] if settings else []
    return shlex.join(["snakemake", *map(str, words), *option])


def _named(study_file: str) -> str:
    """Return a study file's path without the folders of this machine."""
    path = Path(study_file)
    if not path.is_absolute():
        return study_file
    folder = Path.cwd()
    return path.relative_to(folder).as_posix() if path.is_relative_to(folder) else path.name
