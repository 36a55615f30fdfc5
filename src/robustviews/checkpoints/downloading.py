"""Download a file once: with progress, resumed where it stopped, and pinned by its hash.

The hash is written beside the file at first sight, in the format of sha256sum. A file that differs
from it later is refused.
"""

from __future__ import annotations

import http.client
import os
import re
import urllib.error
import urllib.request
from pathlib import Path
from typing import IO, Any

from robustviews import artifacts
from robustviews.checkpoints.errors import CheckpointError
from robustviews.machine.runtime import ProgressBar

_CHUNK, _TIMEOUT = 1 << 20, 60.0  # bytes, seconds
_UNIT = 1 << 20


def download(address: str, path: Path) -> None:
    """Download a file unless it is there; an interrupted download is resumed.

    Args:
        address: of the file, http or https.
        path: of the file; `PATH.part` until it is complete.

    Raises:
        CheckpointError: the server does not answer, refuses, or ends too early.
    """
    if path.is_file():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    version = path.with_name(f"{path.name}.part.version")  # which file of the server it is part of
    try:
        _fetch(address, part, version)
    except (OSError, http.client.HTTPException) as error:
        kept = part.stat().st_size if part.is_file() else 0
        reason = getattr(error, "reason", "") or error
        raise CheckpointError(
            f"{address}: {reason}; {kept} bytes are kept in {part}; run the same command again to "
            f"resume, or download it otherwise, to {path}"
        ) from None
    part.replace(path)
    version.unlink(missing_ok=True)


def check(path: Path, sha256: str | None = None, *, pin: bool = False) -> str:
    """Return the hash of a file, in hexadecimal digits, after comparing it with known ones.

    Args:
        path: file; `PATH.sha256` holds its hash if it is pinned.
        sha256: expected hash, or its first digits; None if unknown.
        pin: whether to write `PATH.sha256` if there is none.

    Raises:
        CheckpointError: the file differs from one of the hashes.
    """
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file")
    actual = artifacts.sha256(path).removeprefix("sha256:")
    pinned = path.with_name(f"{path.name}.sha256")
    known = [(sha256.lower().removeprefix("sha256:"), "expected")] if sha256 else []
    if pinned.is_file():
        known.append(
            ((pinned.read_text(encoding="utf-8").split() or [""])[0], f"pinned in {pinned}")
        )
    for digits, origin in known:
        if not re.fullmatch("[0-9a-f]{8,64}", digits) or not actual.startswith(digits):
            raise CheckpointError(
                f"{path}: SHA-256 is {actual}, but {digits or 'none'} is {origin}; remove the file "
                f"and download it again, or, if the change is meant, correct the hash"
            )
    if pin and not pinned.is_file():
        artifacts.write_text(pinned, f"{actual}  {path.name}\n")
    return actual


def _fetch(address: str, part: Path, version: Path) -> None:
    """Append to a partial file what it lacks; begin anew if the server's file has changed."""
    done = part.stat().st_size if part.is_file() and version.is_file() else 0
    headers = {"Range": f"bytes={done}-", "If-Range": version.read_text()} if done else {}
    request = urllib.request.Request(address, headers=headers)
    try:
        answer = urllib.request.urlopen(request, timeout=_TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code != http.client.REQUESTED_RANGE_NOT_SATISFIABLE:
            raise
        answer = urllib.request.urlopen(address, timeout=_TIMEOUT)
    with answer:
        if answer.status != http.client.PARTIAL_CONTENT:
            done = 0
        length = answer.headers.get("Content-Length")
        total = done + int(length) if length else None
        tag = answer.headers.get("ETag") or answer.headers.get("Last-Modified")
        _remember(version, tag)
        with part.open("ab" if done else "wb") as file:
            done = _copy(answer, file, done, total)
    if total is not None and done != total:
        raise OSError(f"the connection ended after {done} of {total} bytes")


def _copy(answer: Any, file: IO[bytes], done: int, total: int | None) -> int:  # noqa: ANN401
    """Copy what a server sends; return how many bytes the file has."""
    bar = ProgressBar(-(-(total or 0) // _UNIT), "MiB", "download")
    bar.begin_at(done // _UNIT)
    while chunk := answer.read(_CHUNK):
        file.write(chunk)
        done += len(chunk)
        if total:
            bar.show(-(-done // _UNIT))
    file.flush()
    os.fsync(file.fileno())
    return done


def _remember(version: Path, tag: str | None) -> None:
    """Keep what identifies the server's file; without it a download cannot be resumed safely."""
    if tag is None or tag.startswith("W/"):
        version.unlink(missing_ok=True)
    else:
        version.write_text(tag, encoding="utf-8")
