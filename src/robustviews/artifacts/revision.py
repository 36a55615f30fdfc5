"""The commit of the running code."""

from __future__ import annotations

import functools
import logging
import os
import re
import subprocess
import tempfile
from pathlib import Path

log = logging.getLogger(__name__)

_PACKAGE = Path(__file__).parents[1]


def commit() -> tuple[str | None, bool | None]:
    """Return the commit of the code and whether its sources differ; None where unknown.

    In a checkout git knows the commit. A copy without git, as in an image or a bundle, has a file
    COMMIT beside its sources instead, such as `38b693c...` or `38b693c...-dirty`.
    """
    if not _git("ls-files", "--", "__init__.py"):
        written = _written_commit()  # installed, perhaps inside another repository
        if written[0] is None and (_PACKAGE.parents[1] / ".git").exists():
            log.warning("records will name no commit of the code; see: robustviews doctor")
        return written
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
    output = git(_PACKAGE, *arguments, index=index, seconds=10)
    return None if output is None else output.decode(errors="replace").strip()


def git(folder: Path, *arguments: str, index: str = "", seconds: float = 60) -> bytes | None:
    """Run git in a folder, without any program that the repository there names.

    Whoever audits a stranger's folder must not run the stranger's programs: a monitor of files, a
    hook, a filter, a program for signatures or for fetching objects.

    Args:
        folder: any folder of a repository.
        arguments: of git.
        index: file of the index; empty for the repository's own.
        seconds: time limit.

    Returns:
        The output; None if git failed, is not installed, or took too long.
    """
    command = ["git", "-C", str(folder), *_SAFE]
    command += [part for key in _filters(folder) for part in ("-c", f"{key}=")]
    environment = {**os.environ, "GIT_INDEX_FILE": index} if index else None
    return _output([*command, *arguments], seconds, environment)


# Options of git that keep it from running programs that a repository's configuration names.
_SAFE = (
    "--no-pager",
    *("-c", "core.fsmonitor=false"),
    *("-c", f"core.hooksPath={os.devnull}"),
    *("-c", "log.showSignature=false"),
    *("-c", "protocol.allow=never"),
    *("-c", "diff.ignoreSubmodules=all"),
)


@functools.cache
def _filters(folder: Path) -> tuple[str, ...]:
    """Return the keys by which a repository's configuration names filters of file contents."""
    scope = ("--local", "--includes", "--name-only", "--null", "--list")
    keys = _output(["git", "-C", str(folder), "config", *scope], 10) or b""
    names = (key.decode(errors="surrogateescape") for key in keys.split(b"\0"))
    return tuple({name: None for name in names if _FILTER.fullmatch(name)})


_FILTER = re.compile(r"filter\..*\.(clean|smudge|process|required)", re.DOTALL)


def _output(
    command: list[str], seconds: float, environment: dict[str, str] | None = None
) -> bytes | None:
    try:
        process = subprocess.run(
            command, capture_output=True, timeout=seconds, check=True, env=environment
        )
    except (OSError, ValueError, subprocess.SubprocessError):  # ValueError: a name with a null byte
        return None
    return process.stdout
