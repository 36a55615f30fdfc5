"""Recorded sanity checks are judged again, from their flags and measures."""

from __future__ import annotations

import pytest
from safetensors.numpy import load_file, save_file

from robustviews.provenance import established
from robustviews.provenance.disk import Disk
from robustviews.provenance.findings import State
from tests.unit.results_tree import edit, small_study

RUN = "emp-free3-digits-s0"
FOLDER = f"results/tiny/sanity/{RUN}"


def findings(root):
    disk = Disk(small_study(), root)
    return established.check(disk, disk.jobs["sanity", RUN])


def test_checks_that_follow_from_their_flags_are_verified(root):
    assert [finding.state for finding in findings(root)] == [State.VERIFIED]


def change_flags(root, change):
    path = root / FOLDER / "flags.safetensors"
    flags = load_file(path)
    change(flags)
    save_file(flags, path)


def better(flags):
    flags["rle/pgd_8"][:] = 1


def half(flags):
    flags["rle/fgsm"][0] = 2


def shorter(flags):
    flags["rle/square"] = flags["rle/square"][:3].copy()


def other_labels(flags):
    flags["rle/labels"] += 1


def no_head(flags):
    for name in list(flags):
        flags[f"central{name[3:]}"] = flags.pop(name)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (better, "says that pgd_8 is 12, its flags give 20"),
        (half, "rle: fgsm holds values other than 0 and 1"),
        (shorter, "rle: expected one flag per image, found"),
        (other_labels, "rle: its labels differ from data/"),
        (no_head, "expected the heads rle, found central"),
    ],
)
def test_other_flags_fail(change, words, root):
    change_flags(root, change)
    found = findings(root)
    assert {finding.state for finding in found} == {State.FAILED}
    assert any(words in finding.text for finding in found), found


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            lambda r: r["rle"]["measures"].update(zero_gradients=9),
            "its measures give AS9",
        ),
        (lambda r: r["rle"]["failed"].update(AS5="?"), "AS5 failed, its measures give nothing"),
        (lambda r: r["rle"]["measures"].update(pgd_8=0), "says that pgd_8 is 0, its flags give 12"),
        (lambda r: r["rle"]["measures"].pop("noise"), "says that noise is None"),
        (lambda r: r.pop("rle"), "expected the heads rle, found nothing"),
        (lambda r: r["rle"].pop("failed"), "cannot be read"),
    ],
)
def test_another_result_fails(change, words, root):
    edit(root, FOLDER, lambda record: change(record["result"]))
    found = findings(root)
    assert {finding.state for finding in found} == {State.FAILED}
    assert any(words in finding.text for finding in found), found
