"""Recorded checks and attacks of heads of segmentation are judged again, from their answers."""

from __future__ import annotations

import inspect
from types import SimpleNamespace

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from robustviews import sanity, stages
from robustviews.attacks.segmentation import SegmentationPgd
from robustviews.datasets import Digits, ScenesSegmentation
from robustviews.probe.dense import SegmentationProbe
from robustviews.provenance import again, established, plausible
from robustviews.provenance.disk import Disk
from robustviews.provenance.findings import State
from robustviews.study import folders, jobs
from robustviews.study.schema import Row, Table
from tests.unit.results_tree import small_study, write_record

PIXELS, CLASSES, IMAGES = 400, 4, 20
RUN = "emp-free3-digits-s0-on-scenes"
PASSED = {"zero_gradients": 0, "infinite_gradients": 0, "wrong_gradients": 0, "moved": 0}
PASSED |= {"repeat_difference": 0.0, "batch_difference": 0.0}
PASSED |= {"training_mode": 0.0, "probabilities": 0.0}


@pytest.fixture(scope="module")
def study():
    row = Row("emp-free3", "seg", pretrained_on="digits")
    options = {
        "datasets": {"digits": Digits(), "scenes": ScenesSegmentation()},
        "probes": {"seg": SegmentationProbe()},
        "attacks": {"cospgd": SegmentationPgd(eps=(4.0, 8.0))},
        "tables": {"masks": Table("Masks", ("scenes/cospgd/8",), {"free": row})},
    }
    return small_study(**options, figures={}, claims={})


def answers(right):
    """Return answers with so many percent of right pixels, others of the next class."""
    right = (np.broadcast_to(right, IMAGES) * PIXELS / 100).astype(np.int32)
    counts = np.zeros((IMAGES, CLASSES, 2), np.int32)
    own = np.arange(IMAGES) % CLASSES
    each = np.arange(IMAGES)
    counts[each, own, 0] = counts[each, own, 1] = right
    counts[each, (own + 1) % CLASSES, 1] = PIXELS - right
    return counts


def truth():
    return PIXELS * np.eye(CLASSES, dtype=np.int32)[np.arange(IMAGES) % CLASSES]


@pytest.fixture
def root(tmp_path, study):
    folder = tmp_path / folders.data_folder(study, "scenes")
    folder.mkdir(parents=True)
    (tmp_path / "requirements.lock").touch()
    labels = np.arange(IMAGES, dtype=np.uint8) % CLASSES
    np.save(folder / "test_labels.npy", np.broadcast_to(labels[:, None, None], (IMAGES, 20, 20)))
    common = {"index": np.arange(IMAGES), "labels": truth(), "clean": answers(90)}
    left = {f"pgd_{radius:g}": answers(90 * (radius == 0)) for radius in study.sanity.radii}
    left |= {"fgsm": answers(20), "noise/0": answers(80), "sea": answers(1)}
    left |= {f"restarts/{number}": answers(0) for number in range(2)}
    left |= {f"sea_part/{name}": answers(1 + 2 * name) for name in range(2)}
    write(tmp_path, study, common | left)
    job = jobs.jobs(study)["attack", f"{RUN}/seg/cospgd"]
    (tmp_path / job.folder).mkdir(parents=True)
    attacked = {"eps_4": answers(40), "eps_8": answers(20)}
    save_file(common | attacked, tmp_path / job.writes[0])
    return tmp_path


def write(root, study, rows):
    """Write rows and record of the checks of the head."""
    job = jobs.jobs(study)["sanity", RUN]
    (root / job.folder).mkdir(parents=True, exist_ok=True)
    save_file({f"seg/{name}": row for name, row in rows.items()}, root / job.writes[0])
    measures = sanity.measures_of(rows) | PASSED
    result = {"seg": {"measures": measures, "failed": sanity.failed(measures, study.sanity)}}
    write_record(root, study, job.folder, job.spec, result=result)
    return result["seg"]


def checked(root, study):
    disk = Disk(study, root)
    return established.check(disk, disk.jobs["sanity", RUN])


def test_checks_that_follow_from_their_answers_are_verified(root, study):
    assert [finding.state for finding in checked(root, study)] == [State.VERIFIED]


def change(path, name, row):
    rows = load_file(path)
    assert name in rows
    save_file(rows | {name: row}, path)


@pytest.mark.parametrize(
    ("name", "row", "words"),
    [
        ("pgd_8", answers(50), "says that pgd_8 is 0.0, its flags give 0.33"),
        ("pgd_0", answers(89), "says that changed is 0, its flags give 20"),
        ("sea", answers(4), "says that sea_better is 0, its flags give 20"),
        ("fgsm", 2 * answers(20), "fgsm does not give each labelled pixel one class"),
        ("fgsm", answers(20)[:, 0], "fgsm expected counts of pixels"),
        ("fgsm", answers(20)[:7], "expected one flag per image"),
        ("labels", 2 * truth(), "its labels differ from"),
    ],
)
def test_other_answers_fail(name, row, words, root, study):
    change(root / folders.job_folder(study, "sanity", RUN) / folders.FLAGS, f"seg/{name}", row)
    found = checked(root, study)
    assert {finding.state for finding in found} == {State.FAILED}
    assert any(words in finding.text for finding in found), found


@pytest.mark.parametrize(
    ("right", "state"),
    [
        (20, State.VERIFIED),
        (60, State.DOUBT),  # better at 8/255 than at 4/255
        (40.75, State.VERIFIED),  # by less than a hundredth of the pixels
        (np.where(np.arange(IMAGES) < 10, 60, 20), State.VERIFIED),  # as many lose as gain
    ],
)
def test_better_answers_at_a_larger_radius_than_chance_gives_are_a_doubt(right, state, root, study):
    disk = Disk(study, root)
    job = disk.jobs["attack", f"{RUN}/seg/cospgd"]
    change(root / job.writes[0], "eps_8", answers(right))
    [finding] = plausible.check(disk, job)
    assert finding.state is state
    assert not list(plausible.remarks(disk))


@pytest.mark.parametrize(
    ("right", "differing", "state"),
    [
        (40, "device", State.VERIFIED),
        (40.25, "device", State.VERIFIED),  # a pixel of each image, as rounding changes it
        (42, "device", State.DOUBT),
        (40.25, "", State.FAILED),
    ],
)
def test_elsewhere_rounding_may_change_some_pixels_of_all_images(
    right, differing, state, root, study
):
    disk = Disk(study, root)
    job = disk.jobs["attack", f"{RUN}/seg/cospgd"]
    record = SimpleNamespace(environment={"deterministic": True})
    old, new = ({"clean": answers(90), "eps_4": answers(one)} for one in (40, right))
    finding = again._judge(disk, job, record, [(old | {"labels": truth()}, new)], differing)
    assert finding.state is state


def test_the_job_of_dense_heads_names_their_checks_and_one_of_classifiers_does_not(study):
    job = jobs.jobs(study)["sanity", RUN]
    assert job.spec["dense"] == {}
    names = inspect.signature(stages.sanity).parameters
    assert {*job.arguments} <= {*names}
    other = jobs.jobs(small_study())["sanity", "emp-free3-digits-s0"]
    assert "dense" not in {*other.spec, *other.arguments}


def test_a_dense_head_that_fails_is_reported(root, study):
    path = root / folders.job_folder(study, "sanity", RUN) / folders.FLAGS
    rows = sanity.of_head(load_file(path), "seg")
    assert set(write(root, study, rows | {"pgd_64": answers(60)})["failed"]) == {"AS3"}
    assert [finding.state for finding in checked(root, study)] == [State.VERIFIED]
