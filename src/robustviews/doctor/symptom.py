"""The result of one check, and helpers that run tools and detect a container image."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from enum import Enum

_SECONDS = 20  # time limit of a tool


class Health(Enum):
    """Whether something works."""

    GOOD = "ok"
    ABSENT = "-"  # missing or not usable, but not needed for the demonstration
    BAD = "!!"


@dataclass(frozen=True)
class Symptom:
    """The result of one check."""

    name: str  # of the component
    health: Health  # whether the component works
    found: str  # version, size or problem, in words
    hint: str = ""  # suggested command, if the component does not work


def ask(*command: str) -> tuple[bool, str]:
    """Run a tool; return whether it succeeded, and the first line of its output.

    If the tool fails, the line comes from its standard error; if it is missing, the line is empty.
    """
    try:
        process = subprocess.run(
            command, capture_output=True, text=True, timeout=_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        return False, f"no answer in {_SECONDS} seconds"
    except OSError:
        return False, ""
    works = process.returncode == 0
    output = process.stdout if works else process.stderr
    return works, output.strip().partition("\n")[0]


def in_image() -> bool:
    """Return whether this process runs in a container image, which sets the variable."""
    return bool(os.environ.get("ROBUSTVIEWS_IMAGE"))


def in_apptainer() -> bool:
    """Return whether Apptainer or Singularity started the container."""
    return "APPTAINER_CONTAINER" in os.environ or "SINGULARITY_CONTAINER" in os.environ
