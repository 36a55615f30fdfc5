"""Which cells may be compared with a published value."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from robustviews.attacks import AutoAttack
from robustviews.study import cells, load_study
from robustviews.study.comparable import incomparable

STUDY = Path(__file__).parents[3] / "studies" / "as-trained.yaml"
CELL = "table1:row2:cifar10/pgd20/8"


@pytest.fixture(scope="module")
def study():
    return load_study(str(STUDY))


def reason(study, block, name, **options):
    """Return why a cell is not comparable after a change of its attack or probe."""
    entries = getattr(study, block)
    changed = dataclasses.replace(entries[name], **options)
    other = dataclasses.replace(study, **{block: {**entries, name: changed}})
    return incomparable(other, cells.find(other, CELL)[1])


def test_the_cell_of_the_study_is_comparable(study):
    assert incomparable(study, cells.find(study, CELL)[1]) == ""


@pytest.mark.parametrize(
    ("block", "name", "options"),
    [
        ("attacks", "pgd20", {"steps": 2}),
        ("attacks", "pgd20", {"step_size": 0.5}),
        ("attacks", "pgd20", {"restarts": 5, "random_start": True}),
        ("attacks", "pgd20", {"loss": "margin"}),
        ("attacks", "pgd20", {"keep": "worst"}),
        ("probes", "rle", {"eps": 0.0}),
        ("probes", "rle", {"steps": 1}),
        ("probes", "rle", {"lr": 9.0}),
    ],
    ids=str,
)
def test_another_attack_or_head_is_not_comparable_and_names_the_option(study, block, name, options):
    assert next(iter(options)) in reason(study, block, name, **options).replace(
        "test_pgd_steps", "steps"
    )


@pytest.mark.parametrize("options", [{"images": 500}, {"weak": "why"}], ids=str)
def test_a_subset_of_images_and_a_remark_leave_a_cell_comparable(study, options):
    assert reason(study, "attacks", "pgd20", **options) == ""


def test_a_reduced_autoattack_is_not_the_standard_one(study):
    reduced = AutoAttack(eps=(8.0,), version="custom", attacks=("square",))
    other = dataclasses.replace(study, attacks={**study.attacks, "autoattack": reduced})
    cell = cells.find(other, "table6:row2:cifar10/autoattack/8")[1]
    assert "version is custom (the paper's: standard)" in incomparable(other, cell)
