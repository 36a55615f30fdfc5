"""What to type: commands of this package and of Snakemake, for the study that is meant."""

from __future__ import annotations

import shlex
from pathlib import Path

DEFAULT_STUDY = "params.yaml"


def robustviews(study_file: str, *words: object) -> str:
    """Return a command line of this package, quoted, with `--study` where it is needed."""
    own = [] if study_file == DEFAULT_STUDY else ["--study", _named(study_file)]
    return shlex.join(["robustviews", *map(str, words), *own])


def snakemake(study_file: str, *words: object, device: str = "") -> str:
    """Return a command line of Snakemake, quoted, with `--config` for another study or a device."""
    settings = [] if study_file == DEFAULT_STUDY else [f"study={_named(study_file)}"]
    settings += [f"device={device}"] if device else []
    # Snakemake takes all that follows --config for settings, so it comes last.
    own = ["--config", *settings] if settings else []
    return shlex.join(["snakemake", *map(str, words), *own])


def _named(study_file: str) -> str:
    """Return how to name a study file in what others read: without the folders of this machine."""
    path = Path(study_file)
    if not path.is_absolute():
        return study_file
    here = Path.cwd()
    return path.relative_to(here).as_posix() if path.is_relative_to(here) else path.name
