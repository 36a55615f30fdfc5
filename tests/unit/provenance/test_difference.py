"""Differences of two results: the root cause is named first, whatever follows from it."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys

import pytest

from robustviews import artifacts
from robustviews.artifacts import ArtifactError
from robustviews.cli import main
from robustviews.provenance import difference
from robustviews.provenance.locate import LocateError
from robustviews.study import folders
from robustviews.study.cells import CellError
from tests.unit.results_tree import edit, small_study

RUN = "simclr-pgd5-digits-s0"
ENCODER = f"results/tiny/pretrain/{RUN}"
HEAD = f"results/tiny/probe/{RUN}/rle"
ATTACK = f"results/tiny/attack/{RUN}/rle/pgd20"
DATA = folders.data_folder(small_study(), "digits").as_posix()


@pytest.fixture
def pair(tree, tmp_path):
    """Two projects that are the same."""
    for name in ("a", "b"):
        shutil.copytree(tree, tmp_path / name)
    return tmp_path / "a", tmp_path / "b"


def reads(record, name, digest):
    record["inputs"][name] = digest


def option(*names, value):
    def change(record):
        block = record["spec"]
        for name in names[:-1]:
            block = block[name]
        block[names[-1]] = value

    return change


def other_bytes(root, folder, name):
    """Let a job have written something else, and all that read it have read that."""
    digest = f"sha256:{hashlib.sha256(folder.encode()).hexdigest()}"
    edit(root, folder, lambda record: record["outputs"].update({name: digest}))
    for path in root.rglob("record.json"):
        record = artifacts.read_json(path)
        if f"{folder}/{name}" in record["inputs"]:
            record["inputs"][f"{folder}/{name}"] = digest
            artifacts.write_json(path, record)


def compare(a, b, folder=ATTACK):
    return difference.compare(str(a / folder), str(b / folder), small_study)


def changes(comparison):
    return [str(change) for change in comparison.changes]


def test_two_copies_of_a_result_differ_in_nothing(pair, capsys):
    assert main(["diff", *(f"{root}/{ATTACK}" for root in pair)]) == 0
    assert capsys.readouterr().out == (
        "No input that the records name differs\n"
        f"Output: attack {RUN}/rle/pgd20: flags.safetensors: the same bytes\n"
    )


def test_the_root_cause_upstream_is_named_first(pair, capsys):
    edit(pair[1], ENCODER, option("run", "regime", "steps", value=7))
    for folder, name in (
        (ENCODER, "encoder.safetensors"),
        (HEAD, "head.safetensors"),
        (ATTACK, "flags.safetensors"),
    ):
        other_bytes(pair[1], folder, name)
    assert main(["diff", *(f"{root}/{ATTACK}/record.json" for root in pair)]) == 1
    first, *others = capsys.readouterr().out.splitlines()
    assert first == f"First difference: pretrain {RUN}: options: run.regime.steps was 5, is 7"
    read = [line for line in others if line.startswith("  then: ") and ": input: " in line]
    assert len(read) == len(others) - 1 == 3  # head and attack read the encoder, one the head
    assert others[-1].endswith("flags.safetensors: other bytes")


def test_inputs_of_a_job_come_in_causal_order(pair):
    edit(pair[1], ATTACK, option("attack", "steps", value=50))
    edit(pair[1], ATTACK, option("code", value="c0ffee"))
    edit(pair[1], ATTACK, option("seed", value=9))
    edit(pair[1], ATTACK, lambda record: record["environment"].update(device="gpu", threads=8))
    edit(pair[1], ATTACK, lambda record: reads(record, f"{DATA}/test_images.npy", "sha256:0ff"))
    other_bytes(pair[1], ATTACK, "flags.safetensors")
    comparison = compare(*pair)
    assert [change.key for change in comparison.changes] == [
        "test_images.npy",
        "code",
        "attack.steps",
        "seed",
        "device",
        "threads",
    ]
    assert f"attack {RUN}/rle/pgd20: options: attack.steps was 20, is 50" in changes(comparison)


def test_an_edit_of_code_comes_before_options_but_not_code_of_another_kind(pair):
    edit(pair[1], ENCODER, option("code", value="c0ffee"))
    edit(pair[1], ENCODER, option("run", "epochs", value=7))
    assert compare(*pair, ENCODER).changes[0].kind == "code"
    edit(pair[1], ENCODER, option("run", "method", "kind", value="emp_ssl"))
    assert compare(*pair, ENCODER).changes[0].key == "run.method.kind"


def test_an_environment_counts_where_other_bytes_came_out(pair):
    edit(pair[1], ATTACK, lambda record: record["environment"].update(torch="9.9"))
    assert not compare(*pair).differs
    other_bytes(pair[1], ATTACK, "flags.safetensors")
    assert changes(compare(*pair)) == [
        f"attack {RUN}/rle/pgd20: environment: torch was 2.11.0+cpu, is 9.9"
    ]


def test_a_change_upstream_that_gave_the_same_bytes_is_no_difference(pair):
    edit(pair[1], ENCODER, option("run", "epochs", value=7))
    assert not compare(*pair).differs
    assert compare(*pair, ENCODER).differs


def test_other_bytes_from_the_same_inputs_are_a_difference_that_nothing_explains(pair):
    other_bytes(pair[1], ATTACK, "flags.safetensors")
    comparison = compare(*pair)
    assert comparison.changes == []
    assert comparison.differs
    assert "but the outputs differ" in str(comparison)


def test_times_in_the_curve_of_a_training_are_no_difference(pair):
    other_bytes(pair[1], ENCODER, "training.jsonl")
    assert not compare(*pair, ENCODER).differs


def test_data_that_decide_on_one_way_are_named_though_another_way_they_are_the_same(pair):
    edit(pair[1], DATA, option("dataset", "size", value=24))
    other_bytes(pair[1], DATA, "test_images.npy")  # the encoder read the same training images
    assert changes(compare(*pair))[0] == (
        f"{DATA.replace('/', ' ')}: options: dataset.size was 32, is 24"
    )


def test_why_an_encoder_differs_is_unknown_without_its_record_or_with_a_later_one(pair):
    other_bytes(pair[1], ENCODER, "encoder.safetensors")
    edit(pair[1], ENCODER, option("run", "epochs", value=7))
    edit(pair[1], ENCODER, lambda record: record["outputs"].update({"encoder.safetensors": "x"}))
    comparison = compare(*pair)
    assert {change.key for change in comparison.changes} == {"encoder.safetensors"}
    assert f"Unknown: why encoder.safetensors differs: {ENCODER} was made again" in str(comparison)
    (pair[1] / ENCODER / "record.json").unlink()
    comparison = compare(*pair)
    assert comparison.changes[0].key == "encoder.safetensors"
    assert "Unknown: why encoder.safetensors differs: " in str(comparison)


def test_a_record_without_its_project_is_compared_as_far_as_it_goes(pair, tmp_path):
    edit(pair[0], ATTACK, option("attack", "steps", value=50))
    shutil.copy(pair[0] / ATTACK / "record.json", tmp_path / "record.json")
    paths = str(tmp_path / "record.json"), str(pair[1] / ATTACK)
    assert difference.compare(*paths, small_study).changes[0].key == "attack.steps"


def test_cells_are_compared_seed_by_seed_and_in_what_they_read(tree, study, monkeypatch):
    monkeypatch.chdir(tree)
    cells = [f"table1:free:digits/{column}" for column in ("pgd20/4", "pgd20/8")]
    comparison = difference.compare(*cells, lambda: study)
    assert changes(comparison) == ["cell: reads was eps_4, is eps_8"]
    assert len(comparison.written) == 3
    comparison = difference.compare(cells[0], "table1:pgd:digits/pgd20/4", lambda: study)
    assert "cell: runs was 3, is 1" in changes(comparison)
    assert "run.method.kind" in {change.key for change in comparison.changes}


def test_what_names_nothing_is_refused_with_what_to_type(pair, tmp_path):
    def refused(*texts):
        with pytest.raises((LocateError, CellError, ArtifactError)) as error:
            difference.compare(*texts, small_study)
        return str(error.value)

    attack, head = (str(pair[0] / folder) for folder in (ATTACK, HEAD))
    assert "expected a record.json, a folder with one, TABLE" in refused("nothing", attack)
    assert "no table `nothing`" in refused("nothing:a:b", attack)
    assert "expected a record.json or a folder with one; try: " in refused(
        f"{attack}/flags.safetensors", attack
    )
    assert "missing" in refused(str(tmp_path), attack)
    (tmp_path / "record.json").write_text("[]")
    assert "not a job record: expected a mapping" in refused(str(tmp_path), attack)
    assert "compare two results of one stage" in refused(attack, head)


@pytest.fixture
def versioned(pair, monkeypatch):
    """A project whose last commit has its attacks in DVC and other records in git."""
    root = pair[0]
    monkeypatch.chdir(root)
    environment = {**os.environ, "DVC_NO_ANALYTICS": "1"}
    identity = ["git", "-c", "user.name=Test", "-c", "user.email=test@example.org"]
    dvc = [sys.executable, "-m", "dvc"]
    for command in (
        ["git", "init", "--quiet"],
        [*dvc, "init", "--quiet"],
        [*dvc, "add", "--quiet", "results/tiny/attack"],
        ["git", "add", "--all"],
        [*identity, "commit", "--quiet", "--message", "Attack"],
    ):
        subprocess.run(command, check=True, env=environment)
    return root


def test_a_record_of_a_revision_comes_from_git_or_dvc(versioned):
    edit(versioned, ENCODER, option("run", "epochs", value=7))
    other_bytes(versioned, ENCODER, "encoder.safetensors")
    other_bytes(versioned, ATTACK, "flags.safetensors")
    for path in (ATTACK, f"{ATTACK}/record.json"):
        comparison = difference.compare(f"HEAD:{path}", path, small_study)
        assert changes(comparison)[0] == f"pretrain {RUN}: options: run.epochs was 6, is 7"


@pytest.mark.parametrize("text", [f"HEAD~7:{ATTACK}", "HEAD:results/other", "--output=x:y"])
def test_a_revision_that_cannot_be_read_is_refused_with_what_to_type(text, versioned):
    with pytest.raises(ArtifactError, match="see the revisions: git log --all"):
        difference.compare(text, ATTACK, small_study)
    assert not (versioned / "x").exists()


def test_a_record_that_dvc_has_not_here_is_refused_with_what_to_type(versioned):
    shutil.rmtree(versioned / ".dvc/cache")
    with pytest.raises(ArtifactError, match="dvc fetch --all-commits"):
        difference.compare(f"HEAD:{ATTACK}", ATTACK, small_study)
