"""A study of segmentation and detection, from scenes to pictures, and answers that are tampered."""

from __future__ import annotations

import pytest
import torch
from safetensors.numpy import load_file

from robustviews import cli, load_classifier
from robustviews.provenance import history
from tests.workflow import tampering
from tests.workflow.project import NOTHING, Project

STUDY = """\
study: dense
title: Scenes of digits
demonstration: Trained for no more than a moment.
seeds: [0]
runtime: {threads: 1, checkpoint_minutes: 1}
datasets:
  digits: {kind: digits, size: 16, test: 1000}
  scenes: {kind: scenes_segmentation, train: 60, test: 12}
  boxes: {kind: scenes_detection, train: 60, test: 12}
runs:
  simclr:
    method: simclr
    regime: standard
    datasets: [digits]
    encoder: {width: 4, hidden: 16, projection: 8}
    epochs: 1
probes:
  segment: {kind: segmentation, updates: 20, tuned: true}
  detect: {kind: detection, updates: 20}
attacks:
  pixels: {kind: segmentation_pgd, eps: [8], steps: 2, images: 8}
  sea: {kind: sea, eps: [8], steps: 3, images: 8}
  worst: {kind: worst_case, of: [pixels, sea], eps: [8], images: 8}
  objects: {kind: detection_pgd, eps: [8], steps: 2, relative_step: 0.5, images: 8}
sanity: {images: 4, radii: [0, 8, 64], steps: 20, restarts: 1, queries: 10, pixels: 4}
tables:
  masks:
    title: Segmentation
    columns: [scenes/clean, "scenes/clean:pixel-accuracy", scenes/pixels/8, scenes/worst/8]
    rows: {tuned: {run: simclr, probe: segment, pretrained_on: digits}}
  boxes:
    title: Detection
    columns: [boxes/clean, "boxes/clean:AP", boxes/objects/8, boxes/objects/retained]
    rows: {frozen: {run: simclr, probe: detect, pretrained_on: digits}}
"""
ATTACK = "results/dense/attack/simclr-digits-s0-on-scenes/segment/pixels"
BOXES = "results/dense/attack/simclr-digits-s0-on-boxes/detect/objects"


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dense")
    (folder / "study.yaml").write_text(STUDY, encoding="utf-8")
    project = Project.create(folder / "project", folder / "study.yaml")
    project.snakemake().said()
    assert NOTHING in project.snakemake().said()
    project.commit("Run the study")
    return project


@pytest.fixture
def audit(monkeypatch, capsys):
    def run(project, *options):
        monkeypatch.chdir(project.folder)
        monkeypatch.setattr(history, "SOURCE", project.folder / "src" / "robustviews")
        status = cli.main(["audit", *options])
        return status, capsys.readouterr().out

    return run


def test_both_tasks_are_verified_attacked_again_and_drawn(project, audit):
    status, text = audit(project)
    assert status == 0, text
    for cell in ("masks:tuned:scenes/worst/8", "boxes:frozen:boxes/clean:AP"):
        assert f"verified  {cell}" in text
    status, text = audit(project, "--again", "4")
    assert status == 0, text
    pictures = {path.name for path in (project.folder / "results/dense/examples").iterdir()}
    assert {"segmentation.png", "detection.png"} <= pictures
    head = project.folder / "results/dense/probe/simclr-digits-s0-on-scenes/segment"
    model = load_classifier(head)
    assert model(torch.rand(2, 3, 32, 32)).shape == (2, 6, 32, 32)


def more_right(flags):
    """Count a wrong pixel of each image as right."""
    right = flags["eps_8"][..., 0]
    right += (right < flags["labels"]) & (right < flags["eps_8"][..., 1])


def more_right_than_there_are(flags):
    flags["eps_8"][0, 0, 0] = flags["labels"][0, 0] + 1


def moved_box(flags):
    flags["eps_8"][..., :4] = flags["labels"][0, 0, :4]


@pytest.mark.parametrize(
    ("change", "attack", "words"),
    [
        (more_right, ATTACK, "record.json says that eps_8 is"),
        (more_right_than_there_are, ATTACK, "more pixels are right than have it"),
        (moved_box, BOXES, "record.json says that eps_8 is"),
    ],
)
def test_a_changed_count_or_box_is_found_though_its_checksum_fits(
    project, audit, tmp_path, change, attack, words
):
    copy = project.copy(tmp_path / "project")
    file = f"{attack}/flags.safetensors"
    before = load_file(copy.folder / file)
    tampering.flags(change, file)(copy)
    assert any((load_file(copy.folder / file)[name] != before[name]).any() for name in before)
    status, text = audit(copy)
    assert status != 0
    assert words in text
