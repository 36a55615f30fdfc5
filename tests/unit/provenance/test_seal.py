"""Pages that hold the checksum of their own text."""

from __future__ import annotations

import pytest

from robustviews.provenance import seal
from robustviews.provenance.disk import Disk
from robustviews.provenance.findings import State
from tests.unit.results_tree import small_study

PAGE = "<!DOCTYPE html>\n<p>75.9 ±1.2 <!-- a comment -->\n</html>\n"


def found(root, text):
    disk = Disk(small_study(), root)
    job = disk.jobs["report", ""]
    path = root / job.writes[0]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    [finding] = seal.check(disk, job)
    return finding


@pytest.mark.parametrize("page", [PAGE, PAGE.rstrip("\n"), "", seal.sealed(PAGE)])
def test_a_page_as_written_is_verified(page, tmp_path):
    assert found(tmp_path, seal.sealed(page)).state is State.VERIFIED


EDITS = {
    "a number": lambda page: page.replace("75.9", "95.9"),
    "line ends": lambda page: page.replace("\n", "\r\n"),
    "more at the end": lambda page: page + "<p>more",
    "the page twice": lambda page: page + page,
    "less at the start": lambda page: page[1:],
    "another encoding": lambda page: page.encode().replace("±".encode(), b"\xb1"),
}


@pytest.mark.parametrize("edit", EDITS)
def test_an_edited_page_fails_and_the_finding_says_how_to_make_it_again(edit, tmp_path):
    finding = found(tmp_path, EDITS[edit](seal.sealed(PAGE)))
    assert finding.state is State.FAILED
    assert "make it again: rm results/tiny/report.html && snakemake" in finding.text


def test_a_page_without_a_checksum_is_unknown(tmp_path):
    assert found(tmp_path, PAGE).state is State.UNKNOWN
