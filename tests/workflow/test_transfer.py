"""A tuned encoder is an artifact of its own: written once, attacked, audited, and resumed."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from robustviews import load_classifier, load_encoder, load_images
from tests.unit.checkpoints import synthetic
from tests.workflow.project import NOTHING, Project

STUDY = Path(__file__).with_name("transfer.yaml")
RUN = "simclr-digits-s0"
TUNED = Path(f"results/transfer/probe/{RUN}/tuned")
TUNED_IMPORT = TUNED.parents[1] / "brought-digits/tuned"
COLUMNS = {
    "clean": "clean",
    "pgd/8": "pgd 8/255",
    "pgd/retained": "pgd retained",
    "pgd/e50": "pgd e50",
}


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    folder = tmp_path_factory.mktemp("transfer")
    file, study = folder / "brought.pth", folder / "study.yaml"
    torch.save(
        synthetic.source(width=4).state_dict(), file
    )  # as of torchvision, with a stem for ImageNet
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    study.write_text(STUDY.read_text(encoding="utf-8").replace("HASH", digest), encoding="utf-8")
    project = Project.create(folder / "project", study)
    file.rename(project.folder / file.name)
    done = project.snakemake("--cores", "2")
    assert done.status == 0, done.text
    return project


@pytest.mark.slow
def test_every_cell_is_verified_and_nothing_is_left_to_do(project):
    audit = project.robustviews("audit", "--again", "20", "--json").json()
    assert {cell["state"] for cell in audit["cells"].values()} == {"verified"}
    assert NOTHING in project.snakemake("-n").text
    rows = _rows(project)
    assert rows["tuned", "clean"] > 50
    for address, cell in audit["cells"].items():
        _, row, column = address.split(":")
        label = COLUMNS[column.removeprefix("digits/")]
        scale = 1 if label == "pgd e50" else 100
        assert cell["value"] * scale == pytest.approx(rows[row, label], rel=1e-4)


def _rows(project):
    with (project.folder / "results/transfer/tables/all.csv").open() as file:
        return {(row["row"], row["column"]): float(row["ours"]) for row in csv.DictReader(file)}


@pytest.mark.slow
def test_a_changed_byte_of_the_tuned_encoder_fails_the_cells_that_rest_on_it(project, tmp_path):
    copy = project.copy(tmp_path / "copy")
    file = copy.folder / TUNED / "encoder.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    audit = copy.robustviews("audit", "--json")
    assert audit.status == 1, audit.text
    cells = json.loads(audit.printed)["cells"]
    failed = {address for address, cell in cells.items() if cell["state"] == "failed"}
    assert failed == {f"all:tuned:digits/{column}" for column in COLUMNS}


@pytest.mark.slow
def test_a_tuned_imported_encoder_is_explained_and_loaded(project, monkeypatch):
    explained = project.robustviews("explain", "all:brought-tuned:digits/pgd/e50").said()
    steps = ["The encoder is imported", "The encoder is trained further, with a head"]
    assert all(step in explained for step in steps)
    e50 = _rows(project)["brought-tuned", "pgd e50"]
    assert re.search(rf"ours: \D{{0,2}}{e50:.3g} 1/255", explained)
    assert "robustviews encoder --encoder brought" in explained
    monkeypatch.chdir(project.folder)
    imported, tuned = Path("results/transfer/pretrain/brought"), TUNED_IMPORT
    record = json.loads((tuned / "record.json").read_text(encoding="utf-8"))
    assert record["result"]["encoder"]["stem"] == "imagenet"
    own, before = load_encoder(tuned).backbone, load_encoder(imported).backbone
    assert own.normalise.mean.equal(before.normalise.mean)  # images stay in [0, 1]
    assert not own.conv1.weight.equal(before.conv1.weight)
    forced = project.snakemake("-n", "--forceall").said()
    assert re.search(r"^tune +2$", forced, re.M)
    assert "Exception" not in forced


@pytest.mark.slow
def test_a_tuned_classifier_is_loaded_with_its_own_encoder(project, monkeypatch):
    monkeypatch.chdir(project.folder)
    images, labels = load_images(TUNED)
    correct = (load_classifier(TUNED)(images).argmax(dim=1) == labels).float().mean().item()
    assert correct > 0.5
    own, pretrained = load_encoder(TUNED), load_encoder(f"results/transfer/pretrain/{RUN}")
    assert not own.represent(images[:2], "backbone").equal(
        pretrained.represent(images[:2], "backbone")
    )


@pytest.mark.slow
def test_a_killed_tuning_resumes_and_writes_the_same_bytes(project, tmp_path):
    """Also with wrong labels of all test images: they choose nothing."""
    copy = project.copy(tmp_path / "copy")
    (labels,) = copy.folder.glob("data/digits-*/test_labels.npy")
    np.save(labels, np.zeros_like(np.load(labels)))
    kept = {path.name: path.read_bytes() for path in (copy.folder / TUNED).iterdir()}
    for path in (copy.folder / TUNED).iterdir():
        path.unlink()
    command = [sys.executable, "-m", "robustviews", "probe", "--run", RUN, "--probe", "tuned"]
    command += ["--device", "cpu"]
    environment = {**os.environ, "PYTHONPATH": str(copy.folder / "src")}
    process = subprocess.Popen(command, cwd=copy.folder, env=environment)
    state = copy.folder / "results/.state/transfer"
    for _ in range(600):
        if list(state.rglob("state-*.safetensors")):
            break
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (copy.folder / TUNED / "record.json").exists()
    done = copy.robustviews("probe", "--run", RUN, "--probe", "tuned", "--device", "cpu")
    assert done.status == 0, done.text
    assert re.search(r"resumed after training \d, update \d", done.text)
    for name in ("encoder.safetensors", "head.safetensors", "training.jsonl"):
        assert (copy.folder / TUNED / name).read_bytes() == kept[name]
