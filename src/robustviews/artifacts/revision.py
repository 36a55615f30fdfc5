"""The commit of the running code."""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from pathlib import Path

_PACKAGE = Path(__file__).parents[1]


def commit() -> tuple[str | None, bool | None]:
    """Return the commit of the code and whether its sources differ; None where unknown.

    In a checkout git knows the commit. A copy without git, as in an image or a bundle, has a file
    COMMIT beside its sources instead, such as `38b693c...` or `38b693c...-dirty`.
    """
    if not _git("ls-files", "--", "__init__.py"):
        return _written_commit()  # installed, perhaps inside another repository
    with tempfile.TemporaryDirectory(prefix="robustviews-") as folder:
        # The repository's own index may mark an edited file as unchanged.
        index = str(Path(folder) / "index")
        known = _git("read-tree", "HEAD", index=index) is not None
        status = _git("status", "--porcelain", "--", ".", index=index) if known else None
    return _git("rev-parse", "HEAD"), None if status is None else bool(status)


def _written_commit() -> tuple[str | None, bool | None]:
    try:
        text = (_PACKAGE.parents[1] / "COMMIT").read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None, None
    match = re.fullmatch(r"([0-9a-f]{40}|[0-9a-f]{64})(-dirty)?\s*", text)
    return (match[1], bool(match[2])) if match else (None, None)


def _git(*arguments: str, index: str = "") -> str | None:
    command = ["git", "-C", str(_PACKAGE), *arguments]
    environment = {**os.environ, "GIT_INDEX_FILE": index} if index else None
    try:
        process = subprocess.run(
            command, capture_output=True, text=True, timeout=10, check=True, env=environment
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return process.stdout.strip()
