"""A study of an imported encoder and of a run on another data set, from file to audit."""

from __future__ import annotations

import hashlib
import re
import shutil

import pytest
import torch
import yaml

from robustviews import cli, load_classifier
from robustviews.provenance import history
from tests.unit.checkpoints import synthetic
from tests.workflow.project import NOTHING, Project

STUDY = """\
study: brought
title: Imported encoders beside an own one
demonstration: Trained for no more than a moment.
seeds: [0]
runtime: {threads: 1, checkpoint_minutes: 1}
datasets:
  digits: {kind: digits, size: 16, test: 1000}
  other: {kind: digits, size: 24, test: 1000}
runs:
  simclr:
    method: simclr
    regime: standard
    datasets: [digits]
    encoder: {width: 2, hidden: 16, projection: 8}
    epochs: 1
encoders:
  brought:
    {kind: imported, file: brought.pth, sha256: HASH, normalise: cifar10, padding: 1}
probes:
  backbone: {kind: linear, epochs: 2, feature: backbone}
attacks:
  pgd2: {kind: pgd, eps: [8], steps: 2, step_size: 8, images: 20}
sanity: {images: 8, radii: [0, 8, 64], steps: 20, restarts: 1, queries: 10, pixels: 4}
tables:
  transfer:
    title: Transfer
    columns: [other/clean, other/pgd2/8]
    rows:
      own: {run: simclr, probe: backbone, pretrained_on: digits}
      brought: {run: brought, probe: backbone}
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    folder = tmp_path_factory.mktemp("imported")
    file, study = folder / "brought.pth", folder / "study.yaml"
    network = synthetic.source(width=2, stem="cifar")
    torch.save({**network.state_dict(), "fc.weight": torch.ones(10, 16)}, file)
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    study.write_text(STUDY.replace("HASH", digest), encoding="utf-8")
    project = Project.create(folder / "project", study)
    missing = project.snakemake()
    assert missing.status != 0
    assert "encoders.brought.file: brought.pth" in missing.text
    assert not (project.folder / "data").exists()
    file.rename(project.folder / "brought.pth")
    project.snakemake().said()
    return project


def test_results_are_verified_and_nothing_is_left_to_do(project, monkeypatch, capsys):
    assert NOTHING in project.snakemake().said()
    project.commit("Run the study")
    monkeypatch.chdir(project.folder)
    monkeypatch.setattr(history, "SOURCE", project.folder / "src" / "robustviews")
    status = cli.main(["audit"])
    text = capsys.readouterr().out
    assert status == 0, text
    assert "verified  transfer:brought:other/pgd2/8" in text
    assert cli.main(["audit", "--again", "4"]) == 0
    capsys.readouterr()
    assert cli.main(["explain", "transfer:brought:other/clean"]) == 0
    assert "The encoder is imported" in capsys.readouterr().out


def test_the_head_of_an_imported_encoder_is_a_classifier_in_python(project, monkeypatch):
    monkeypatch.chdir(project.folder)
    classifier = load_classifier("results/brought/probe/brought-other/backbone")
    assert classifier(torch.rand(2, 3, 24, 24)).shape == (2, 10)


def test_a_study_of_imported_encoders_alone_has_a_report_without_curves_and_views(
    project, tmp_path
):
    copy = project.copy(tmp_path / "project")
    shutil.rmtree(copy.folder / "results/brought/examples")
    shutil.rmtree(copy.folder / "results/brought/training")
    study = yaml.safe_load(STUDY)
    study["encoders"] = yaml.safe_load((copy.folder / "params.yaml").read_text())["encoders"]
    del study["runs"]["simclr"], study["datasets"]["digits"]
    del study["tables"]["transfer"]["rows"]["own"]
    (copy.folder / "params.yaml").write_text(yaml.safe_dump(study), encoding="utf-8")
    text = copy.snakemake().said()
    assert "Exception" not in text
    assert NOTHING in copy.snakemake().said()
    results = copy.folder / "results/brought"
    page = (results / "report.html").read_text(encoding="utf-8")
    assert "Adversarial images" in page
    assert set(re.findall(r'href="#([^"]+)"', page)) <= set(re.findall(r' id="([^"]+)"', page))
    assert "Example views" not in page
    assert not (results / "training").exists()
    assert {path.name for path in (results / "examples").iterdir()} == {
        "adversarial.png",
        "adversarial.svg",
    }


def test_a_changed_checkpoint_is_refused_when_it_is_imported_again(project, tmp_path):
    copy = project.copy(tmp_path / "project")
    with (copy.folder / "brought.pth").open("ab") as file:
        file.write(b"?")
    assert NOTHING in copy.snakemake().said()  # the encoder has the checksum of the study
    (copy.folder / "results/brought/pretrain/brought/encoder.safetensors").unlink()
    again = copy.snakemake()
    assert again.status != 0
    assert "brought.pth" in again.text
    assert "SHA-256" in again.text or "sha256" in again.text
