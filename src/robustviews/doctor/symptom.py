"""A symptom: what was seen of one thing; and how tools, and the image around, are asked."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from enum import Enum

_SECONDS = 20  # that a tool has to answer


class Health(Enum):
    """Whether something works."""

    GOOD = "ok"
    ABSENT = "-"  # not here, or not of use, and not needed for the demonstration
    BAD = "!!"


@dataclass(frozen=True)
class Symptom:
    """What was seen of one thing.

    Attributes:
        name: of the thing.
        health: whether it works.
        found: version, size or trouble, in words.
        hint: what to type next, where it does not work.
    """

    name: str
    health: Health
    found: str
    hint: str = ""


def ask(*command: str) -> tuple[bool, str]:
    """Ask a tool; return whether it answered, and the first line of what it said.

    That of a tool that fails is what it complains of; nothing, where it is missing.
    """
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        return False, f"no answer in {_SECONDS} seconds"
    except OSError:
        return False, ""
    works = done.returncode == 0
    said = done.stdout if works else done.stderr
    return works, said.strip().partition("\n")[0]


def in_image() -> bool:
    """Return whether this runs in an image, which sets the variable itself."""
    return bool(os.environ.get("ROBUSTVIEWS_IMAGE"))


def in_apptainer() -> bool:
    """Return whether that is one of Apptainer's."""
    return "APPTAINER_CONTAINER" in os.environ or "SINGULARITY_CONTAINER" in os.environ
