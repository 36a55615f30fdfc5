"""Results of another commit than the checked-out one are refused without hashing."""

from __future__ import annotations

import base64
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from robustviews import artifacts
from robustviews.study import jobs, specs
from robustviews.workflow import checkout
from robustviews.workflow.metadata import ProjectMetadata
from tests.unit.results_tree import small_study, write_tree

TRAINED = Path("results/tiny/pretrain/simclr-pgd5-digits-s0")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished study with Snakemake's metadata on its records; tests must not change it."""
    root = tmp_path_factory.mktemp("finished")
    write_tree(root, small_study())
    write_metadata(root, small_study())
    return root


@pytest.fixture(autouse=True)
def project(finished, tmp_path, monkeypatch):
    """Work in a copy of the finished study."""
    monkeypatch.chdir(shutil.copytree(finished, tmp_path / "project"))


def write_metadata(root, study):
    """Write the options and inputs that Snakemake's metadata would hold for each record."""
    for job in jobs.jobs(study).values():
        if job.folder is not None:
            record = artifacts.read_json(root / job.folder / "record.json")
            entry = {
                "params": [repr(specs.to_json(record["spec"]))],
                "input_checksums": record["inputs"],
            }
            artifacts.write_json(entry_path(job.folder, root=root), entry)


def entry_path(folder, kind="metadata", root=Path()):
    path = (folder / "record.json").as_posix()
    return root / ".snakemake" / kind / base64.urlsafe_b64encode(path.encode()).decode()


def longer(study, run="simclr-pgd5"):
    return replace(study, runs=study.runs | {run: replace(study.runs[run], epochs=9)})


def test_results_with_matching_metadata_are_accepted():
    checkout.check(small_study())


def test_metadata_with_other_options_than_the_results_is_reported_with_a_fix():
    study = longer(small_study())
    entry = {"params": [repr(specs.to_json(specs.spec(study, "pretrain", TRAINED.name)))]}
    artifacts.write_json(entry_path(TRAINED), entry)
    with pytest.raises(checkout.CheckoutError) as refused:
        checkout.check(study)
    assert f"  {TRAINED}: run.epochs was 6, the metadata says 9\n" in str(refused.value)
    assert "type: dvc checkout\n" in str(refused.value)
    assert str(refused.value).endswith(f"rm -r {TRAINED}")


@pytest.mark.parametrize("content", [b"", b'{"code": ', b"[]"])
def test_a_job_whose_metadata_is_damaged_runs_again(content):
    entry_path(TRAINED).write_bytes(content)
    (line,) = checkout.repair(small_study())
    assert line.startswith(f"{TRAINED / 'record.json'}: ")
    assert not entry_path(TRAINED).exists()
    assert ProjectMetadata(Path()).unfinished(TRAINED / "record.json")
    assert checkout.repair(small_study()) == []


def test_metadata_that_only_another_user_can_read_is_refused_with_a_fix(monkeypatch):
    path = entry_path(TRAINED)
    monkeypatch.setattr(checkout.os, "access", lambda one, _: one != path)
    with pytest.raises(checkout.CheckoutError, match=f"git clone {Path.cwd()} FOLDER") as refused:
        checkout.check(small_study())
    assert str(refused.value).startswith(f"{path}: only user {path.stat().st_uid}, ")


def test_metadata_with_another_encoder_is_reported():
    study = small_study()
    folder = Path("results/tiny/probe/simclr-pgd5-digits-s0/central")
    entry = artifacts.read_json(entry_path(folder))
    (encoder,) = [name for name in entry["input_checksums"] if name.endswith("encoder.safetensors")]
    entry["input_checksums"][encoder] = "sha256:of-another"
    artifacts.write_json(entry_path(folder), entry)
    with pytest.raises(checkout.CheckoutError, match=f"{folder}: made from another {encoder}"):
        checkout.check(study)


def test_results_that_snakemake_computes_again_anyway_are_accepted():
    study = small_study()
    checkout.check(longer(study))  # edited: metadata and results agree
    record = artifacts.read_json(TRAINED / "record.json")
    artifacts.write_json(TRAINED / "record.json", record | {"spec": {"edited": True}})
    with pytest.raises(checkout.CheckoutError):
        checkout.check(study)
    checkout.check(longer(study))
    artifacts.write_json(entry_path(TRAINED, "incomplete"), {})
    checkout.check(study)


@pytest.mark.parametrize("damage", ["missing", "damaged", "no record"])
def test_a_record_that_cannot_be_read_is_left_to_the_verifier(damage):
    path = TRAINED / "record.json"
    path.write_text({"missing": "", "damaged": "{", "no record": "[]"}[damage], encoding="utf-8")
    if damage == "missing":
        path.unlink()
    checkout.check(small_study())


def test_many_foreign_results_are_counted():
    for path in Path().glob("results/tiny/*/*/record.json"):
        artifacts.write_json(path, artifacts.read_json(path) | {"spec": {"seed": 7}})
    with pytest.raises(checkout.CheckoutError, match=r"\n  \.\.\. and \d+ more\n"):
        checkout.check(small_study())


def test_a_clone_without_results_gets_the_hint_to_pull_them():
    study = small_study()
    lock("results/tiny/pretrain")
    assert checkout.hints(study) == []
    shutil.rmtree("results")
    assert "dvc pull" in checkout.hints(study)[0]
    Path("dvc.lock").unlink()
    assert checkout.hints(study) == []


@pytest.mark.parametrize("text", ["", "[", "stages: {a: {outs: [{}]}}", "stages: []"])
def test_no_hint_to_pull_what_dvc_lock_does_not_name(text):
    shutil.rmtree("results")
    lock("data", "results/another/pretrain", "results/tiny/frame.csv")
    assert checkout.hints(small_study()) == []
    Path("dvc.lock").write_text(text, encoding="utf-8")
    assert checkout.hints(small_study()) == []


def lock(*outs):
    """Write a dvc.lock that names some outputs."""
    stages = {"one": {"cmd": "x"}, "two": {"outs": [{"path": out, "md5": "0"} for out in outs]}}
    artifacts.write_json(Path("dvc.lock"), {"schema": "2.0", "stages": stages})


def test_no_hint_to_pull_a_study_that_was_never_run_here():
    lock("results/another/pretrain")
    assert checkout.hints(replace(small_study(), study="another")) == []


def test_complete_results_after_an_interruption_get_the_hint_to_keep_them():
    study = small_study()
    artifacts.write_json(entry_path(TRAINED, "incomplete"), {})
    (hint,) = checkout.hints(study)
    assert f"{TRAINED} is complete" in hint
    assert "rm -r .snakemake/incomplete" in hint
    assert checkout.hints(longer(study)) == []
    with (TRAINED / "encoder.safetensors").open("ab") as file:
        file.write(b"x")
    assert checkout.hints(study) == []
    (TRAINED / "record.json").unlink()
    assert checkout.hints(study) == []
