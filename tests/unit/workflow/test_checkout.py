"""Results of another commit than the one that is checked out are refused, without hashing them."""

from __future__ import annotations

import base64
import shutil
from dataclasses import replace

import pytest

from robustviews import artifacts
from robustviews.study import folders, jobs, specs
from robustviews.workflow import checkout
from tests.unit.results_tree import small_study, write_tree

HEAD = "results/tiny/probe/simclr-pgd5-digits-s0"


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished study with Snakemake's notes on its records, never to be changed."""
    root = tmp_path_factory.mktemp("finished")
    write_tree(root, small_study())
    write_notes(root, small_study())
    return root


@pytest.fixture
def project(finished, tmp_path):
    return shutil.copytree(finished, tmp_path / "project")


def write_notes(root, study):
    """Write what Snakemake would note on each record, as to options and inputs."""
    for job in jobs.jobs(study).values():
        if job.folder is not None:
            record = artifacts.read_json(root / job.folder / "record.json")
            note = {
                "params": [repr(specs.to_json(record["spec"]))],
                "input_checksums": record["inputs"],
            }
            artifacts.write_json(note_of(root, job.folder), note)


def note_of(root, folder, kind="metadata"):
    path = (folder / "record.json").as_posix()
    return root / ".snakemake" / kind / base64.urlsafe_b64encode(path.encode()).decode()


def longer(study, run="simclr-pgd5"):
    return replace(study, runs=study.runs | {run: replace(study.runs[run], epochs=9)})


def test_results_with_their_own_notes_are_taken(project):
    checkout.check(small_study(), project)


def test_notes_that_speak_of_other_options_than_the_results_are_told_with_the_way_out(project):
    study = longer(small_study())
    folder = folders.pretrain_folder(study, "simclr-pgd5-digits-s0")
    note = {"params": [repr(specs.to_json(specs.pretrain_spec(study, folder.name)))]}
    artifacts.write_json(note_of(project, folder), note)
    with pytest.raises(checkout.CheckoutError) as refused:
        checkout.check(study, project)
    assert f"  {folder}: run.epochs was 6, the notes say 9\n" in str(refused.value)
    assert "type: dvc checkout\n" in str(refused.value)
    assert str(refused.value).endswith(f"rm -r {folder}")


def test_notes_that_speak_of_another_encoder_are_told(project):
    study = small_study()
    (head,) = [folder for folder in (project / HEAD).iterdir() if folder.name == "central"]
    folder = head.relative_to(project)
    note = artifacts.read_json(note_of(project, folder))
    (encoder,) = [name for name in note["input_checksums"] if name.endswith("encoder.safetensors")]
    note["input_checksums"][encoder] = "sha256:of-another"
    artifacts.write_json(note_of(project, folder), note)
    with pytest.raises(checkout.CheckoutError, match=f"{folder}: made from another {encoder}"):
        checkout.check(study, project)


def test_what_snakemake_makes_again_anyhow_is_no_reason_to_stop(project):
    study = small_study()
    checkout.check(longer(study), project)  # edited: notes and results say the same
    folder = folders.pretrain_folder(study, "simclr-pgd5-digits-s0")
    record = artifacts.read_json(project / folder / "record.json")
    artifacts.write_json(project / folder / "record.json", record | {"spec": {"edited": True}})
    with pytest.raises(checkout.CheckoutError):
        checkout.check(study, project)
    checkout.check(longer(study), project)
    artifacts.write_json(note_of(project, folder, "incomplete"), {})
    checkout.check(study, project)


@pytest.mark.parametrize("damage", ["missing", "damaged", "no record"])
def test_a_record_that_cannot_be_read_is_left_to_the_verifier(project, damage):
    path = project / folders.pretrain_folder(small_study(), "simclr-pgd5-digits-s0") / "record.json"
    path.write_text({"missing": "", "damaged": "{", "no record": "[]"}[damage], encoding="utf-8")
    if damage == "missing":
        path.unlink()
    checkout.check(small_study(), project)


def test_many_foreign_results_are_counted(project):
    for path in project.glob("results/tiny/*/*/record.json"):
        artifacts.write_json(path, artifacts.read_json(path) | {"spec": {"seed": 7}})
    with pytest.raises(checkout.CheckoutError, match=r"\n  \.\.\. and \d+ more\n"):
        checkout.check(small_study(), project)


def test_a_clone_without_results_is_told_to_pull_them(project):
    study = small_study()
    lock(project, "results/tiny/pretrain")
    assert checkout.hints(study, project) == []
    shutil.rmtree(project / "results")
    assert "dvc pull" in checkout.hints(study, project)[0]
    (project / "dvc.lock").unlink()
    assert checkout.hints(study, project) == []


@pytest.mark.parametrize("text", ["", "[", "stages: {a: {outs: [{}]}}", "stages: []"])
def test_what_a_dvc_lock_does_not_name_is_not_pulled(project, text):
    shutil.rmtree(project / "results")
    lock(project, "data", "results/another/pretrain", "results/tiny/frame.csv")
    assert checkout.hints(small_study(), project) == []
    (project / "dvc.lock").write_text(text, encoding="utf-8")
    assert checkout.hints(small_study(), project) == []


def lock(project, *outs):
    """Write a dvc.lock that names some outputs."""
    stages = {"one": {"cmd": "x"}, "two": {"outs": [{"path": out, "md5": "0"} for out in outs]}}
    artifacts.write_json(project / "dvc.lock", {"schema": "2.0", "stages": stages})


def test_a_study_that_was_never_run_here_is_not_pulled(project):
    lock(project, "results/another/pretrain")
    assert checkout.hints(replace(small_study(), study="another"), project) == []


def test_what_was_got_back_whole_after_an_interruption_need_not_be_made_again(project):
    study = small_study()
    folder = folders.pretrain_folder(study, "simclr-pgd5-digits-s0")
    artifacts.write_json(note_of(project, folder, "incomplete"), {})
    (said,) = checkout.hints(study, project)
    assert f"{folder} is whole" in said
    assert "rm -r .snakemake/incomplete" in said
    assert checkout.hints(longer(study), project) == []
    with (project / folder / "encoder.safetensors").open("ab") as file:
        file.write(b"x")
    assert checkout.hints(study, project) == []
    (project / folder / "record.json").unlink()
    assert checkout.hints(study, project) == []
