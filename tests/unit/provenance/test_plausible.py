"""Numbers that files and records agree on, but that cannot well be."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from robustviews import artifacts
from robustviews.attacks import PgdAttack
from robustviews.pages import audit as page
from robustviews.provenance import plausible
from robustviews.provenance.audit import audit
from robustviews.provenance.disk import Disk
from robustviews.provenance.findings import State, exit_status
from robustviews.study import folders
from tests.unit.results_tree import IMAGES, small_study, write_shown, write_tree

RUN = "simclr-pgd5-digits-s0"
KEY = ("attack", f"{RUN}/rle/pgd20")


@pytest.fixture(scope="module")
def study():
    return small_study()


@pytest.fixture
def root(study, tmp_path):
    write_tree(tmp_path, study)
    return tmp_path


def set_flags(root, study, **right):
    """Let the first images of an attack be right, so many at each radius, or those given."""
    path = root / folders.job_folder(study, "attack", f"{RUN}/rle/pgd20") / "flags.safetensors"
    flags = load_file(path)
    for name, count in right.items():
        first = np.zeros(IMAGES, np.uint8)
        first[count if isinstance(count, slice) else slice(count)] = 1
        flags[name] = first
    save_file(flags, path)


def found(root, study):
    disk = Disk(study, root)
    [finding] = plausible.check(disk, disk.jobs[KEY])
    return finding


@pytest.mark.parametrize(
    ("right", "state"),
    [
        ({"clean": 150, "eps_4": 90, "eps_8": 40}, State.VERIFIED),
        ({"clean": 150, "eps_4": 150, "eps_8": 150}, State.VERIFIED),
        ({"clean": 16, "eps_4": 16, "eps_8": 200}, State.DOUBT),  # all right at 8/255
        ({"clean": 40, "eps_4": 60, "eps_8": 20}, State.DOUBT),  # robust above clean
        ({"clean": 150, "eps_4": 40, "eps_8": 60}, State.DOUBT),  # 8/255 above 4/255
        ({"clean": 40, "eps_4": 53, "eps_8": 40}, State.VERIFIED),  # 13 more: 1.2e-4
        ({"clean": 40, "eps_4": 54, "eps_8": 40}, State.DOUBT),  # 14 more: 6.1e-5
    ],
)
def test_more_right_images_at_a_larger_radius_than_chance_gives_are_a_doubt(
    right, state, root, study
):
    set_flags(root, study, **right)
    assert found(root, study).state is state


def test_images_right_at_a_larger_radius_alone_are_no_doubt_if_as_many_are_lost(root, study):
    set_flags(root, study, clean=150, eps_4=slice(0, 80), eps_8=slice(40, 120))
    assert found(root, study).state is State.VERIFIED


def test_a_doubt_names_radii_and_images_and_what_to_type(root, study):
    set_flags(root, study, clean=16, eps_4=10, eps_8=100)
    text = found(root, study).text
    assert "eps_8 is right on 84 images on which clean is wrong, and wrong on 0" in text
    assert "robustviews audit --again 20" in text


def test_a_doubt_reaches_the_cell_and_the_exit_status(root, study):
    set_flags(root, study, clean=16, eps_4=16, eps_8=200)
    disk = Disk(study, root)
    path = disk.jobs[KEY].record
    record = artifacts.read_json(root / path)
    record["outputs"]["flags.safetensors"] = artifacts.sha256(root / path.parent / folders.FLAGS)
    artifacts.write_json(root / path, record)
    write_shown(root, study)
    result = audit(study, root)
    assert result.state is State.DOUBT
    assert exit_status(result.state) == 2
    doubted = {cell for cell in result.cells if result.state_of(cell) is State.DOUBT}
    assert {(cell.table, cell.row) for cell in doubted} == {("table1", "pgd")}
    assert f", {len(doubted)} doubt" in page.summary(result)
    assert 'class="state doubt"' in page.render(study, result)


def set_checks(root, study, *, fooled, count=100):
    """Let the first images be fooled at 8/255 by PGD-20 of the sanity checks, and no others."""
    path = root / folders.job_folder(study, "sanity", RUN) / "flags.safetensors"
    flags = load_file(path)
    index = np.arange(count)
    flags |= {"rle/index": index, "rle/pgd_8": (index >= fooled).astype(np.uint8)}
    save_file(flags, path)


@pytest.mark.parametrize(
    ("fooled", "right", "state"),
    [
        (13, slice(0, 200), State.VERIFIED),  # 13 images that PGD-20 fools: 1.2e-4
        (14, slice(0, 200), State.DOUBT),  # 6.1e-5
        (30, slice(30, 200), State.VERIFIED),  # the same images
        (0, slice(40, 200), State.VERIFIED),  # an attack may be stronger
    ],
)
def test_an_attack_that_leaves_more_images_than_the_checks_is_a_doubt(
    fooled, right, state, root, study
):
    set_flags(root, study, clean=200, eps_4=200, eps_8=right)
    set_checks(root, study, fooled=fooled)
    assert found(root, study).state is state


@pytest.mark.parametrize(
    "weaker", [{"steps": 10, "step_size": 1.0}, {"loss": "dlr"}, {"weak": "on purpose"}]
)
def test_an_attack_that_is_meant_to_be_weaker_is_no_doubt(weaker, root, study):
    attacks = study.attacks | {"pgd20": PgdAttack(eps=(4.0, 8.0), **weaker)}
    changed = dataclasses.replace(study, attacks=attacks)
    set_flags(root, study, clean=200, eps_4=200, eps_8=200)
    set_checks(root, study, fooled=50)
    assert found(root, changed).state is State.VERIFIED
    assert found(root, study).state is State.DOUBT


@pytest.mark.parametrize("content", [b"", b"\x00" * 64])
def test_flags_that_cannot_be_read_are_left_to_their_own_check(content, root, study):
    disk = Disk(study, root)
    (root / disk.jobs[KEY].writes[0]).write_bytes(content)
    assert plausible.check(disk, disk.jobs[KEY]) == []


def state_data(root, study, **result):
    path = root / folders.data_folder(study, "digits") / "record.json"
    record = artifacts.read_json(path)
    artifacts.write_json(path, {**record, "result": {"test": IMAGES, "classes": 10, **result}})


@pytest.mark.parametrize(("shared", "state"), [(0, 0), (2, 0), (3, 2), (IMAGES, 2)])
def test_test_images_that_are_training_images_are_a_doubt(shared, state, root, study):
    state_data(root, study, equal_images={"train": 0, "test": 0, "shared": shared})
    disk = Disk(study, root)
    [job] = [job for job in disk.jobs.values() if job.rule == "data"]
    [finding] = plausible.check(disk, job)
    assert finding.state == state
    assert finding.text == f"{shared} of {IMAGES} test images are also training images"


def test_a_network_that_guesses_at_every_radius_is_remarked(root, study):
    state_data(root, study)
    set_flags(root, study, clean=22, eps_4=22, eps_8=22)
    assert list(plausible.remarks(Disk(study, root))) == [
        f"{RUN}/rle/pgd20: clean and every robust accuracy are 11.0%, as a guess among 10 classes "
        "would be: the network may have diverged"
    ]


@pytest.mark.parametrize(
    "right",
    [
        {"clean": 22, "eps_4": 22, "eps_8": 21},
        {"clean": 33, "eps_4": 33, "eps_8": 33},  # more than three deviations above a tenth
    ],
)
def test_nothing_is_remarked_where_an_attack_works_or_a_network_knows(right, root, study):
    state_data(root, study)
    set_flags(root, study, **right)
    assert not list(plausible.remarks(Disk(study, root)))
