"""Attacking again: the same flags in the environment of the record, rounding elsewhere."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from robustviews import artifacts, cli
from robustviews.provenance import again
from robustviews.provenance.disk import Disk
from robustviews.provenance.findings import State
from robustviews.study import load_study

IMAGES, BATCH = 40, 30
STUDY = f"""\
study: tiny
title: A tiny study
seeds: [0]
runtime: {{evaluation_batch: {BATCH}}}
datasets:
  digits: {{kind: digits, size: 8, test: 1000}}
runs:
  emp:
    method: emp_ssl
    regime: {{kind: free, replays: 2}}
    datasets: [digits]
    encoder: {{width: 2, hidden: 16, projection: 8}}
    epochs: 1
    views: {{count: 2}}
  supervised:
    method: supervised
    regime: standard
    datasets: [digits]
    encoder: {{width: 2, hidden: 16, projection: 8}}
    optimizer: {{name: adam, lr: 0.01}}
    epochs: 4
    views: {{count: 1}}
probes:
  central: {{kind: linear, epochs: 20}}
  crops: {{kind: ncrop, n: 2, epochs: 20}}
  head: {{kind: linear, epochs: 20, feature: backbone}}
attacks:
  pgd: {{kind: pgd, eps: [4, 16], steps: 3, step_size: 6, images: {IMAGES}}}
tables:
  accuracies:
    title: Accuracy
    columns: [digits/clean, digits/pgd/4]
    rows:
      central: {{run: emp, probe: central}}
      crops: {{run: emp, probe: crops}}
      own: {{run: supervised, probe: own}}
      head: {{run: supervised, probe: head}}
figures: {{}}
"""
HEADS = {"central": "emp", "crops": "emp", "own": "supervised", "head": "supervised"}


pytestmark = pytest.mark.usefixtures("settings_of_torch")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A project folder with the results of all attacks."""
    folder = tmp_path_factory.mktemp("project")
    (folder / "params.yaml").write_text(STUDY, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        study = load_study("params.yaml")
        for rule, name in Disk(study, folder).jobs:
            names = dict(zip(("run", "probe", "attack"), name.split("/"), strict=False))
            names = {"dataset": "digits"} if rule == "data" else names
            if rule in ("data", "pretrain", "probe", "attack"):
                words = [word for key, value in names.items() for word in (f"--{key}", value)]
                assert cli.main([rule, *words, "--device", "cpu"]) == 0
    return folder


@pytest.fixture
def disk(finished, tmp_path, monkeypatch):
    project = tmp_path / "project"
    shutil.copytree(finished, project)
    monkeypatch.chdir(project)
    return Disk(load_study("params.yaml"), project)


def job_of(disk, probe):
    return disk.jobs["attack", f"{HEADS[probe]}-digits-s0/{probe}/pgd"]


def flags_of(disk, probe):
    return disk.root / job_of(disk, probe).writes[0]


def check(disk, probe, images=IMAGES):
    [finding] = again.check(disk, job_of(disk, probe), images=images)
    return finding


def edit(disk, probe, change):
    path = disk.root / job_of(disk, probe).record
    record = artifacts.read_json(path)
    change(record)
    artifacts.write_json(path, record)


@pytest.mark.parametrize("probe", HEADS)
def test_the_flags_are_the_same_on_the_same_machine(probe, disk):
    finding = check(disk, probe)
    assert (finding.state, finding.check) == (State.VERIFIED, "again")
    assert finding.text == f"{IMAGES} images attacked again at 2 radii: the same flags"
    assert 0 < load_file(flags_of(disk, probe))["clean"].mean() < 1


@pytest.mark.parametrize("probe", HEADS)
def test_a_forged_flag_in_any_minibatch_fails(probe, disk):
    path = flags_of(disk, probe)
    honest = load_file(path)
    for image in (0, 14, 15, 29, 30, IMAGES - 1):  # on both sides of each border
        forged = {name: array.copy() for name, array in honest.items()}
        forged["eps_16"][image] ^= 1
        save_file(forged, path)
        finding = check(disk, probe)
        assert finding.state is State.FAILED
        assert "1 of 120 flags differ, though the environment is that of the record" in finding.text


def test_whole_minibatches_are_attacked_and_no_more_than_needed(disk, monkeypatch):
    monkeypatch.setattr(again._CHOICE, "sample", lambda batches, number: list(batches)[:number])
    assert check(disk, "central", images=1).text.startswith("30 images attacked again")
    assert check(disk, "crops", images=16).text.startswith("30 images attacked again")
    assert check(disk, "crops", images=1000).text.startswith("40 images attacked again")


def test_an_edited_head_gives_other_flags(disk):
    job = job_of(disk, "central")
    [head] = [disk.root / path for path in job.reads if path.name == "head.safetensors"]
    weights = load_file(head)
    save_file({name: -array for name, array in weights.items()}, head)
    assert check(disk, "central").state is State.FAILED


@pytest.mark.parametrize(("forged", "state"), [(1, State.VERIFIED), (2, State.DOUBT)])
def test_elsewhere_few_flags_of_one_radius_may_differ(forged, state, disk):
    edit(disk, "own", lambda record: record["environment"].update(device="cpu: Abacus 3000"))
    path = flags_of(disk, "own")
    flags = load_file(path)
    flags["eps_16"][:forged] ^= 1
    save_file(flags, path)
    finding = check(disk, "own")
    assert finding.state is state
    assert f"{forged} of 120 flags differ" in finding.text
    assert "other device" in finding.text


def test_the_threads_of_the_record_are_used(disk):
    edit(disk, "own", lambda record: record["environment"].update(threads=2))
    assert check(disk, "own").state is State.VERIFIED
    assert torch.get_num_threads() == 2


def test_a_record_of_an_earlier_version_does_not_make_another_environment(disk, monkeypatch):
    monkeypatch.setenv("MKL_CBWR", "COMPATIBLE")
    edit(disk, "own", lambda record: record["environment"].pop("variables"))
    flags = load_file(flags_of(disk, "own"))
    flags["clean"][0] ^= 1
    save_file(flags, flags_of(disk, "own"))
    assert check(disk, "own").state is State.FAILED


@pytest.mark.parametrize("missing", ["encoder.safetensors", "test_images.npy", "flags.safetensors"])
def test_what_is_missing_makes_the_result_unknown(missing, disk):
    job = job_of(disk, "own")
    [path] = [path for path in (*job.reads, *job.writes) if path.name == missing]
    (disk.root / path).unlink()
    finding = check(disk, "own")
    assert finding.state is State.UNKNOWN
    assert "cannot be attacked again: " in finding.text


def test_another_study_than_the_record_states_is_not_attacked(disk):
    edit(disk, "own", lambda record: record["spec"].update(seed=7))
    assert check(disk, "own").state is State.UNKNOWN


def test_the_audit_attacks_again_only_when_asked(disk, capsys):
    flags = load_file(flags_of(disk, "own"))
    flags["eps_4"] = np.flip(flags["eps_4"])
    save_file(flags, flags_of(disk, "own"))
    cell = ["--cell", "accuracies:own:digits/pgd/4"]
    cli.main(["audit", *cell])
    assert "  again: " not in capsys.readouterr().out
    assert cli.main(["audit", *cell, "--again", "5"]) == 1
    assert "failed    again: " in capsys.readouterr().out
