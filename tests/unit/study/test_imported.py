"""Imported encoders, and encoders on other data sets than those of their pretraining."""

from __future__ import annotations

import contextlib
import dataclasses
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from robustviews.study import cells, folders, jobs, load_study, plan
from robustviews.study.imported import UNKNOWN, missing
from robustviews.study.inputs import load_encoder
from robustviews.study.schema import Imported
from tests.unit.study.mistakes import BASE
from tests.unit.study.test_load import mistakes, write

SHA = 64 * "a"
IMPORTED = f"""\
encoders:
  dino: {{kind: imported, file: dino.pth, sha256: {SHA}, normalise: imagenet}}
  whole: {{kind: imported, file: resnet.pth, sha256: {SHA}, classifier: true}}
probes:
  backbone: {{kind: linear, epochs: 2, feature: backbone}}
"""
ROWS = """\
  transfer:
    title: Transfer
    columns: [digits/clean, other/pgd20/8]
    rows:
      imported: {run: dino, probe: backbone}
      whole: {run: whole, probe: own}
      moved: {run: emp-free, probe: rle, pretrained_on: digits}
"""


@pytest.fixture
def path(tmp_path):
    return write(tmp_path, ("probes:\n", IMPORTED), ("tables:\n", f"tables:\n{ROWS}"))


def test_an_imported_encoder_is_brought_once_and_read_on_each_data_set(path):
    study = load_study(path)
    every = jobs.jobs(study)
    (key,) = [key for key in every if key == ("encoder", "dino")]
    encoder = Path("results/small/pretrain/dino/encoder.safetensors")
    assert every[key].writes[0] == encoder
    assert every[key].reads == {}
    assert every[key].spec["imported"]["sha256"] == SHA
    for name in ("dino-digits", "dino-other"):
        data = jobs.data_job(study, name.removeprefix("dino-"))
        head = every["probe", f"{name}/backbone"]
        assert head.reads[encoder] == key
        assert data in head.needs
        assert set(every["attack", f"{name}/backbone/pgd20"].needs) == {key, head.key, data}
    assert every["sanity", "dino-other"].reads[encoder] == key
    assert ("probe", "whole-digits/own") not in every


def test_a_study_of_imported_encoders_alone_has_no_trainings_and_no_curves(path):
    study = load_study(path)
    rows = {"whole": study.tables["transfer"].rows["whole"]}
    alone = {"transfer": dataclasses.replace(study.tables["transfer"], rows=rows)}
    every = jobs.jobs(dataclasses.replace(study, runs={}, tables=alone, figures={}, claims={}))
    assert {"encoder", "attack", "examples", "report"} <= {rule for rule, _ in every}
    assert not {"pretrain", "curves"} & {rule for rule, _ in every}
    assert {path.stem for path in every["examples", ""].writes} == {"adversarial"}


def test_a_run_on_another_data_set_has_heads_of_its_own_and_the_same_encoder(path):
    study = load_study(path)
    every = jobs.jobs(study)
    pretraining = "pretrain", "emp-free-digits-s0"
    moved = every["probe", "emp-free-digits-s0-on-other/rle"]
    assert pretraining in moved.needs
    assert jobs.data_job(study, "other") in moved.needs
    assert ("probe", "emp-free-digits-s0/rle") in every  # the name where both are the same
    assert ("pretrain", "emp-free-other-s0") not in every
    assert jobs.data_job(study, "other") not in every[pretraining].needs


def test_a_cell_of_an_imported_encoder_has_one_network_and_its_jobs(path):
    study = load_study(path)
    _, cell = cells.find(study, "transfer:imported:other/pgd20/8")
    assert cell.runs == ("dino-other",)
    assert {job.rule for job in cells.chain(study, cell)} == {
        "data",
        "encoder",
        "probe",
        "attack",
        "sanity",
    }
    _, moved = cells.find(study, "transfer:moved:other/pgd20/8")
    assert moved.runs == ("emp-free-digits-s0-on-other", "emp-free-digits-s1-on-other")


def test_heads_on_a_supervised_network_read_its_backbone_and_its_own_head_the_classifier(path):
    row = "moved: {run: supervised, probe: backbone, pretrained_on: digits}"
    text = path.read_text(encoding="utf-8")
    text = text.replace("moved: {run: emp-free, probe: rle, pretrained_on: digits}", row)
    again = "own: {run: supervised, probe: own}"
    more = f"{again}\n      linear: {{run: supervised, probe: backbone}}"
    path.write_text(text.replace(again, more), encoding="utf-8")
    every = jobs.jobs(load_study(path))
    name = "supervised-digits-s0"
    moved = every["probe", f"{name}-on-other/backbone"].arguments
    assert (moved["supervised"], moved["encoder"]["hidden"]) == (False, None)
    assert every["sanity", name].arguments["supervised"]  # both heads: `own` needs the classifier
    assert not every["sanity", f"{name}-on-other"].arguments["supervised"]
    assert every["attack", f"{name}/own/pgd20"].arguments["supervised"]


def test_a_head_on_a_supervised_network_is_trained_without_its_classifier(path, tmp_path):
    row = "moved: {run: supervised, probe: backbone, pretrained_on: digits}"
    text = path.read_text(encoding="utf-8")
    text = text.replace("moved: {run: emp-free, probe: rle, pretrained_on: digits}", row)
    path.write_text(text, encoding="utf-8")
    job = jobs.jobs(load_study(path))["probe", "supervised-digits-s0-on-other/backbone"]
    (file,) = (one for one in job.reads if one.name == folders.ENCODER)
    (tmp_path / file).parent.mkdir(parents=True)
    weights = {"backbone.conv1.weight": torch.ones(1), "classifier.weight": torch.ones(1)}
    save_file(weights, tmp_path / file)
    with contextlib.chdir(tmp_path):
        assert set(load_encoder(job)) == {"backbone.conv1.weight"}


def test_files_to_bring_are_named_with_their_source():
    encoders = {
        "known": Imported("absent/swav.pth", UNKNOWN, source="swav-800"),
        "pinned": Imported("absent/resnet.pth", SHA, source="torchvision-resnet18"),
        "own": Imported("absent/own.pth", SHA),
        "here": Imported(__file__, UNKNOWN),
        "ready": Imported(__file__, SHA),
    }
    known, pinned, own, here = missing(encoders)
    assert "https://github.com/facebookresearch/swav, by `robustviews import swav-800`" in known
    assert "write the sha256" in known
    assert "https://download.pytorch.org/models/resnet18-f37072fd.pth" in pinned
    assert "sha256" not in pinned
    assert own == "encoders.own: not here yet: absent/own.pth: save it there"
    assert here.startswith("encoders.here:")
    assert "write the sha256 that `robustviews import" in here


def test_specs_of_jobs_say_nothing_of_encoders_that_they_do_not_read(path, tmp_path):
    alone = tmp_path / "alone"
    alone.mkdir()
    before = jobs.jobs(load_study(write(alone)))
    after = jobs.jobs(load_study(path))
    computing = [key for key, job in before.items() if job.folder is not None]
    assert computing
    assert all(before[key] == after[key] for key in computing)


@pytest.mark.parametrize(
    ("change", "key", "message"),
    [
        ((f"sha256: {SHA}, n", f"sha256: {SHA}, source: swav, n"), "encoders.dino.source", "swav-"),
        ((SHA, "abc"), "encoders.dino.sha256", "expected 8 to 64 hexadecimal digits"),
        (("  dino:", "  dino-s0:"), "encoders.dino-s0", "ends as the folder of a seed"),
        (("  dino:", "  emp-free:"), "encoders.emp-free", "a run is also named `emp-free`"),
        (
            ("run: dino, probe: backbone", "run: dino, probe: central"),
            "tables.transfer.rows.imported.probe",
            "`dino` is imported and has no prefeature; use a probe with feature: backbone",
        ),
        (
            ("run: dino, probe: backbone", "run: dino, probe: own"),
            "tables.transfer.rows.imported.probe",
            "no classifier of `dino` is kept; set its classifier: true",
        ),
        (
            ("run: whole, probe: own", "run: whole, probe: backbone"),
            "tables.transfer.rows.whole.probe",
            "`whole` has a classifier of its own; use probe `own`",
        ),
        (
            ("probe: own}\n      moved", "probe: own, pretrained_on: digits}\n      moved"),
            "tables.transfer.rows.whole.pretrained_on",
            "`whole` is imported; remove this key",
        ),
        (
            ("pretrained_on: digits", "pretrained_on: other"),
            "tables.transfer.rows.moved.pretrained_on",
            "run `emp-free` is not pretrained on it; expected digits",
        ),
        (
            ("other/pgd20/8]", "other/minutes]"),
            "tables.transfer.rows.imported.run",
            "`dino` is imported: nobody knows its minutes",
        ),
        (
            ("run: emp-free, probe: rle, pre", "run: supervised, probe: own, pre"),
            "tables.transfer.rows.moved.pretrained_on",
            "a classifier of its own data set has no probe on another one",
        ),
    ],
)
def test_mistakes_are_reported_where_they_stand(path, change, key, message):
    text = path.read_text(encoding="utf-8")
    assert change[0] in text
    path.write_text(text.replace(*change, 1), encoding="utf-8")
    assert [found for found in mistakes(path) if found[1] == key and message in found[2]]


def test_an_imported_encoder_is_one_network_whatever_the_seeds(path):
    assert plan.seeds_of(load_study(path), "dino") == (0,)
    assert "seeds: [0, 1]" in BASE
