"""The seal of a page: a comment at its end with the checksum of all text before it.

No later job reads report.html and audit.html, so that without DVC nobody else has their checksums.
"""

from __future__ import annotations

import re

from robustviews.provenance.disk import Disk, sha256_of
from robustviews.provenance.findings import Finding, State
from robustviews.study.jobs import Job

_SEAL = re.compile(r"<!-- of all text above: (sha256:[0-9a-f]{64}) -->\s*")


def sealed(page: str) -> str:
    """Return a page with its seal."""
    body = page if page.endswith("\n") else f"{page}\n"
    return f"{body}<!-- of all text above: {sha256_of(body.encode())} -->\n"


def check(disk: Disk, job: Job) -> list[Finding]:
    """Compare the pages of the job that writes the report with their seals."""
    findings = []
    for path in job.writes:
        if disk.exists(path):  # else the check of published files reports it
            # Bytes, because text would read other line ends as the same.
            page = (disk.root / path).read_bytes().decode(errors="replace")
            state, text = _state(page)
            if state is not State.VERIFIED:
                text = f"{text}; {disk.remake(path)}"
            findings.append(Finding("seal", str(path), state, text))
    return findings


def _state(page: str) -> tuple[State, str]:
    seals = list(_SEAL.finditer(page))
    if not seals:
        return State.UNKNOWN, "holds no checksum of its text"
    if page != sealed(page[: seals[-1].start()]):
        return State.FAILED, "changed text: it does not have the checksum at its end"
    return State.VERIFIED, "the text has the checksum at its end"
