"""Each error of a job that a study or its data reveal is raised before any training."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from robustviews import artifacts
from robustviews.cli import main
from robustviews.study import StudyError, enough, folders, load_study
from robustviews.workflow import checkout
from tests.unit.study.mistakes import BASE

THREE = "{kind: folder, root: images, size: 8, classes: [a, b, c]}"
UNSAID = "{kind: folder, root: images, size: 8}"
BARS = "title: Bars\n    columns: [digits/pgd20/8]"
COST = "title: T\n    kind: cost\n    columns: [digits/pgd20/8, digits/minutes"
# What a job or a figure would refuse: the change of a study that it comes from, and the report.
LATE = {
    "pretrain: a minibatch of more than all images": (
        ("    datasets: [digits]", "    datasets: [digits]\n    batch_size: 1298"),
        "batch_size: 1298 is more than the 1297 training images of `digits`; lower it",
    ),
    "attack: more than all test images": (
        ("{kind: pgd, eps: [4, 8]}", "{kind: pgd, eps: [4, 8], images: 501}"),
        "attacks.pgd20.images: 501 is more than the 500 test images of `digits`; lower it",
    ),
    "attack: three classes for apgd-t": (
        ("{kind: digits, test: 500}", THREE),
        "attacks.aa.kind: needs 4 classes, `digits` has 3; write version: custom, attacks: [apgd",
    ),
    "figure: no accuracy under attack of one of two data sets": (
        (
            BARS,
            f"{COST}, other/minutes]",
        ),
        "figures.bars.columns: kind: cost needs a column other/<attack>/<eps>",
    ),
    "figure: no minutes of one of two data sets": (
        (
            BARS,
            f"{COST}, other/pgd20/8]",
        ),
        "figures.bars.columns: kind: cost needs a column other/minutes",
    ),
}


@pytest.fixture(autouse=True)
def project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ROBUSTVIEWS_STUDY", raising=False)
    return tmp_path


def write(*changes, columns="digits/aa/8"):
    """Write a study of which a column is under AutoAttack."""
    text = BASE.replace("digits/pgd20/4", columns)
    for old, new in changes:
        assert old in text
        text = text.replace(old, new, 1)
    Path("params.yaml").write_text(text, encoding="utf-8")


@pytest.mark.parametrize("error", LATE)
def test_what_the_study_file_reveals_is_a_mistake_of_the_file(error):
    change, message = LATE[error]
    write(change)
    with pytest.raises(StudyError) as refused:
        load_study("params.yaml")
    assert message in str(refused.value)


def test_a_mistake_in_a_shared_block_is_reported_once_with_its_line():
    write(LATE["pretrain: a minibatch of more than all images"][0])
    with pytest.raises(StudyError) as refused:
        load_study("params.yaml")
    lines = Path("params.yaml").read_text(encoding="utf-8").splitlines()
    assert {lines[one.line - 1].strip() for one in refused.value.problems} == {"batch_size: 1298"}


def images(classes):
    random = np.random.default_rng(0)
    for split in ("train", "val"):
        for name in classes:
            folder = Path("images", split, name)
            folder.mkdir(parents=True)
            for number in range(60):
                pixels = random.integers(0, 256, (8, 8, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{number}.png")


def test_what_only_the_images_reveal_is_refused_before_any_training(capsys):
    images("abc")
    write(("{kind: digits, test: 500}", UNSAID))
    assert main(["data", "--dataset", "digits"]) == 2
    told = capsys.readouterr().err
    assert "params.yaml: attacks.aa.kind: needs 4 classes, `digits` has 3; " in told
    assert [path for path in Path("data").rglob("*") if path.name[0] != "."] == []


def test_what_prepared_data_reveal_is_refused_by_check_and_by_the_workflow(capsys):
    write(("{kind: digits, test: 500}", UNSAID))
    study = load_study("params.yaml")
    summary = folders.data_folder(study, "digits") / folders.SUMMARY
    artifacts.write_json(summary, {"train": 99, "test": 60, "classes": 4, "size": 8})
    assert [str(lack) for lack in enough.lacks(study, enough.prepared(study))] == [
        f"runs.{run}.batch_size: 100 is more than the 99 training images of `digits`; lower it"
        for run in ("emp-free", "supervised")
    ]
    with pytest.raises(checkout.CheckoutError, match="batch_size: 100 is more than"):
        checkout.check_data(study)
    assert main(["check", "params.yaml"]) == 2
    assert "runs.supervised.batch_size: 100 is more" in capsys.readouterr().err


def test_heads_for_other_classes_than_those_of_test_images_are_refused():
    photos = "{kind: evaluation_folder, root: x, num_classes: 10, classes_of: digits, size: 8}"
    write(("{kind: digits, test: 500}", UNSAID), ("other: digits", f"other: {photos}"))
    study = load_study("params.yaml")
    counts = {"train": 600, "test": 600, "size": 8}
    for name, classes in (("digits", 9), ("other", 10)):
        summary = folders.data_folder(study, name) / folders.SUMMARY
        artifacts.write_json(summary, {**counts, "classes": classes})
    lacks = [str(lack) for lack in enough.lacks(study, enough.prepared(study))]
    text = "datasets.other.classes_of: 10 classes, but `digits` has 9; correct one"
    assert text in lacks


def test_check_and_the_workflow_name_source_data_that_is_not_here(capsys):
    write(("{kind: digits, test: 500}", UNSAID))
    images("ab")
    assert main(["check", "params.yaml"]) == 0
    assert "not here" not in capsys.readouterr().out
    Path("images/val").rename("images/test")
    assert main(["check", "params.yaml"]) == 0  # the study is right, and another machine has them
    line = "datasets.digits: not here yet: images has no val; set datasets.digits.root in params.y"
    assert line in capsys.readouterr().out
    assert "datasets.digits: images has no val; " in checkout.hints(load_study("params.yaml"))[0]
