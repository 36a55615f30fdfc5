"""A study of images for a test alone, labelled by a CSV, and of a folder in shards."""

from __future__ import annotations

import re
import shutil

import numpy as np
import pytest
from PIL import Image

from robustviews import cli, load_images
from robustviews.datasets import open_split
from robustviews.provenance import history
from robustviews.provenance.disk import Disk
from robustviews.study import load_study
from tests.workflow.project import NOTHING, Project

STUDY = """\
study: photographs
title: Photographs that nothing is trained on
demonstration: Trained for no more than a moment.
runtime: {threads: 1}
datasets:
  pictures: {kind: folder, root: pictures, size: 16, shard_images: 7}
  photographs:
    {kind: evaluation_folder, root: photographs, labels: labels.csv, num_classes: 3, size: 16,
     resize: 16, classes_of: pictures}
runs:
  simclr:
    method: simclr
    regime: standard
    datasets: [pictures]
    encoder: {width: 2, hidden: 16, projection: 8}
    batch_size: 10
    epochs: 1
probes:
  linear: {kind: linear, epochs: 2}
attacks:
  pgd2: {kind: pgd, eps: [8], steps: 2, step_size: 8}
sanity: {images: 8, radii: [0, 8, 64], steps: 20, restarts: 1, queries: 10, pixels: 4}
tables:
  main:
    title: Photographs
    columns: [photographs/clean, photographs/pgd2/8]
    rows:
      simclr: {run: simclr, probe: linear}
"""
COLOURS = ((200, 40, 40), (40, 200, 40), (40, 40, 200))
SHARD = "train_images-00001.npy"


def write_images(folder):
    """Write 30 training and 9 test pictures in folders, and 10 photographs with a CSV."""
    rng, lines = np.random.default_rng(0), ["file,label"]

    def write(path, label):
        path.parent.mkdir(parents=True, exist_ok=True)
        noise = rng.integers(-40, 40, (18, 24, 3))
        Image.fromarray((np.array(COLOURS[label]) + noise).astype(np.uint8)).save(path)

    for split, count in (("train", 10), ("val", 3)):
        for label in range(3):
            for number in range(count):
                write(folder / f"pictures/{split}/{label}/{number}.png", label)
    for number in range(10):
        write(folder / f"photographs/{number}.png", number % 3)
        lines.append(f"{number}.png,{number % 3}")
    (folder / "photographs/labels.csv").write_text("\n".join(lines) + "\n")


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    folder = tmp_path_factory.mktemp("evaluation")
    (folder / "study.yaml").write_text(STUDY, encoding="utf-8")
    project = Project.create(folder / "project", folder / "study.yaml")
    write_images(project.folder)
    project.snakemake().said()
    assert NOTHING in project.snakemake().said()
    project.commit("Run the study")
    return project


@pytest.fixture
def audit(monkeypatch, capsys):
    """Return a function that audits a project, and returns the lines of what failed."""

    def lines(project):
        monkeypatch.chdir(project.folder)
        monkeypatch.setattr(history, "SOURCE", project.folder / "src" / "robustviews")
        status, text = cli.main(["audit"]), capsys.readouterr().out
        assert (status == 0) == ("failed" not in text), text
        return [line for line in text.splitlines() if line.startswith("failed:")]

    return lines


def test_results_are_verified_and_images_in_shards_are_those_of_the_files(project, audit):
    assert audit(project) == []
    (data,) = project.folder.glob("data/pictures-*")
    images, labels = open_split(data, "train")
    assert [len(np.load(file)) for file in images.files] == [7, 7, 7, 7, 2]
    for image, label in zip(images, labels, strict=True):
        assert np.abs(image.mean(axis=(1, 2)) - COLOURS[label]).max() < 10
    floats, _ = load_images(data, "train")
    assert np.array_equal((floats * 255).numpy().round(), images[:])
    owners = Disk(load_study("params.yaml"), project.folder).owners  # what a manifest lists
    assert f"data/{data.name}/{SHARD}" in owners
    (data,) = project.folder.glob("data/photographs-*")
    assert open_split(data, "test")[1].tolist() == [number % 3 for number in range(10)]


@pytest.mark.parametrize("what", ["changed", "removed"])
def test_a_changed_or_removed_file_of_images_is_found(what, project, audit, tmp_path):
    copy = project.copy(tmp_path / "project")
    (path,) = copy.folder.glob(f"data/pictures-*/{SHARD}")
    if what == "changed":
        data = bytearray(path.read_bytes())
        data[-1] ^= 1
        path.write_bytes(data)
    else:
        path.unlink()
        refused = copy.snakemake("--dry-run")
        assert refused.status != 0
        assert re.search(rf"{SHARD}: missing; type: dvc checkout .* rm -r data/", refused.text)
    found = [line for line in audit(copy) if SHARD in line]
    assert len(found) == 1
    assert ("changed bytes" if what == "changed" else "missing") in found[0]


def test_a_changed_label_is_noticed_and_only_the_attacks_run_again(project, audit, tmp_path):
    copy = project.copy(tmp_path / "project")
    csv = copy.folder / "photographs/labels.csv"
    csv.write_text(csv.read_text().replace("9.png,0", "9.png,1"))
    (found,) = audit(copy)
    assert "photographs/labels.csv" in found
    refused = copy.snakemake()
    assert refused.status != 0
    assert "photographs/labels.csv: changed since data/photographs-" in refused.text
    (data,) = copy.folder.glob("data/photographs-*")
    shutil.rmtree(data)
    again = copy.snakemake().said()
    assert re.findall(r"^(?:local)?rule (\w+):", again, re.MULTILINE).count("pretrain") == 0
    assert open_split(data, "test")[1].tolist()[-1] == 1
    assert audit(copy) == []
