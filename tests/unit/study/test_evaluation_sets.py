"""Data sets with test images only: whose heads are evaluated on them, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from robustviews.study import jobs, load_study, plan
from tests.unit.study.mistakes import BASE
from tests.unit.study.test_load import mistakes, write

DATA = """\
  photos: {kind: evaluation_folder, root: photos, num_classes: 10, classes_of: digits, size: 32}
  alone: {kind: evaluation_folder, root: photos, num_classes: 10, size: 32}
"""
SHA = 64 * "a"
ENCODERS = f"""\
encoders:
  dino: {{kind: imported, file: dino.pth, sha256: {SHA}, normalise: imagenet}}
  whole: {{kind: imported, file: whole.pth, sha256: {SHA}, classifier: true}}
probes:
  backbone: {{kind: linear, epochs: 2, feature: backbone}}
"""
ROWS = """\
  photos:
    title: Photographs
    columns: [photos/clean, photos/pgd20/8]
    rows:
      imported: {run: dino, probe: backbone}
      trained: {run: emp-free, probe: rle}
      own: {run: supervised, probe: own}
  alone:
    title: Own classifiers
    columns: [alone/pgd20/8]
    rows:
      whole: {run: whole, probe: own}
"""
CHANGES = (
    ("  other: digits\n", f"  other: digits\n{DATA}"),
    ("probes:\n", ENCODERS),
    ("tables:\n", f"tables:\n{ROWS}"),
)


def test_heads_are_trained_on_the_data_set_of_the_classes_and_attacked_on_the_test(tmp_path):
    study = load_study(write(tmp_path, *CHANGES))
    every = jobs.jobs(study)
    digits, photos = (jobs.data_job(study, name) for name in ("digits", "photos"))
    for evaluated, trained in (
        ("dino-photos", "dino-digits"),
        ("emp-free-digits-s0-on-photos", "emp-free-digits-s0"),
    ):
        probe = "backbone" if trained == "dino-digits" else "rle"
        attack, head = (
            every["attack", f"{evaluated}/{probe}/pgd20"],
            every["probe", f"{trained}/{probe}"],
        )
        assert digits in head.needs
        assert photos not in head.needs
        assert head.key in attack.needs
        assert photos in attack.needs
        assert digits not in attack.needs
        assert head.key in every["sanity", evaluated].needs
        assert head.key in every["table", "photos"].needs
        assert ("probe", f"{evaluated}/{probe}") not in every
    own = every["attack", "supervised-digits-s0-on-photos/own/pgd20"]
    assert set(own.needs) == {("pretrain", "supervised-digits-s0"), photos}
    alone = every["attack", "whole-alone/own/pgd20"]
    assert set(alone.needs) == {("encoder", "whole"), jobs.data_job(study, "alone")}
    assert "photos" not in {one.dataset for one in plan.pretrainings(study).values()}


def test_where_heads_come_from_decides_no_prepared_data(tmp_path):
    study = load_study(write(tmp_path, *CHANGES))
    named, unnamed = (jobs.jobs(study)[jobs.data_job(study, one)] for one in ("photos", "alone"))
    assert named.spec == unnamed.spec


def test_a_study_of_imported_encoders_alone_has_jobs_and_no_training_curves(tmp_path):
    text = BASE[: BASE.index("defaults:")] + f"runs: {{}}\n{ENCODERS}"
    text += "attacks:\n  pgd20: {kind: pgd, eps: [8]}\ntables:\n"
    text += ROWS[ROWS.index("  alone:") :]
    path = tmp_path / "study.yaml"
    path.write_text(text.replace("  other: digits\n", DATA))
    every = jobs.jobs(load_study(path))
    assert ("attack", "whole-alone/own/pgd20") in every
    assert ("curves", "") not in every
    assert {file.stem for file in every["examples", ""].writes} == {"adversarial"}
    assert Path("results/small/report.html") in every["report", ""].writes


@pytest.mark.parametrize(
    ("old", "new", "key", "message"),
    [
        ("classes_of: digits", "classes_of: digit", "datasets.photos.classes_of", "no `digit`"),
        (
            "classes_of: digits",
            "classes_of: alone",
            "datasets.photos.classes_of",
            "only test images",
        ),
        (
            "10, classes_of: digits",
            "11, classes_of: digits",
            "datasets.photos.classes_of",
            "expected 11 classes (num_classes), `digits` has 10 classes",
        ),
        (
            "10, classes_of: digits",
            "10, classes_of: digits, resize: 9",
            "datasets.photos.resize",
            "resize: expected at least size, 32, found 9",
        ),
        (
            "size: 32",
            "size: 64",
            "datasets.photos.classes_of",
            "expected 64 pixels (size), `digits` has images of 32 pixels; correct one",
        ),
        (
            "classes_of: digits, size: 32}\n",
            "classes_of: some}\n  some: {kind: folder, root: photos, class_list: names.txt}\n",
            "datasets.photos.classes_of",
            "`some` has an order of classes of its own, folders here have that of their names",
        ),
        (
            "datasets: [digits]",
            "datasets: [digits, alone]",
            "defaults.all.datasets[1]",
            "`alone` has only test images, so no run trains on it",
        ),
        (
            "run: whole, probe: own",
            "run: dino, probe: backbone",
            "tables.alone.rows.whole.probe",
            "`alone` has only test images, so no head is trained on it; name a data set",
        ),
        (
            "run: whole, probe: own",
            "run: supervised, probe: own",
            "tables.alone.rows.whole.probe",
            "`alone` has only test images, so no head is trained on it; name a data set",
        ),
    ],
)
def test_what_cannot_be_evaluated_is_refused_with_its_key(old, new, key, message, tmp_path):
    found = mistakes(write(tmp_path, *CHANGES, (old, new)))
    assert (key, True) in [(where, message in text) for _, where, text in found], found
