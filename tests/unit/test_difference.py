"""Differences of two results: the root cause is named first, whatever follows from it."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
from pathlib import PurePosixPath

import pytest

from robustviews import artifacts
from robustviews.artifacts import ArtifactError
from robustviews.cli import main
from robustviews.provenance import comparison, difference, places
from robustviews.provenance.places import PlaceError
from robustviews.study import folders
from robustviews.study.cells import CellError
from tests.unit.results_tree import small_study, write_tree

RUN = "simclr-pgd5-digits-s0"
ENCODER = f"results/tiny/pretrain/{RUN}"
HEAD = f"results/tiny/probe/{RUN}/rle"
ATTACK = f"results/tiny/attack/{RUN}/rle/pgd20"
DATA = folders.data_folder(small_study(), "digits").as_posix()


@pytest.fixture(scope="module")
def study():
    return small_study()


@pytest.fixture(scope="module")
def tree(study, tmp_path_factory):
    root = tmp_path_factory.mktemp("project")
    write_tree(root, study)
    return root


@pytest.fixture
def pair(tree, tmp_path):
    """Two projects that are the same."""
    for name in ("a", "b"):
        shutil.copytree(tree, tmp_path / name)
    return tmp_path / "a", tmp_path / "b"


def edit(root, folder, change):
    path = root / folder / "record.json"
    record = artifacts.read_json(path)
    change(record)
    artifacts.write_json(path, record)


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
    ends = [difference.side(str(root / folder), small_study) for root in (a, b)]
    return difference.compare(*ends)


def said(seen):
    return [f"{each.job.split()[0]} {each.kind}: {each}" for each in seen.changes if each.decides]


def test_two_copies_of_a_result_differ_in_nothing(pair, capsys):
    seen = compare(*pair)
    assert seen.changes == []
    assert not seen.differs
    assert main(["diff", *(f"{root}/{ATTACK}" for root in pair)]) == 0
    out = capsys.readouterr().out
    assert out.startswith("Nothing that decides differs\n")
    assert out.endswith(f"attack {RUN}/rle/pgd20: flags.safetensors: the same bytes\n")


def test_the_root_cause_upstream_is_named_first_and_its_consequences_as_such(pair, capsys):
    edit(pair[1], ENCODER, option("run", "regime", "steps", value=7))
    for folder, name in (
        (ENCODER, "encoder.safetensors"),
        (HEAD, "head.safetensors"),
        (ATTACK, "flags.safetensors"),
    ):
        other_bytes(pair[1], folder, name)
    assert main(["diff", *(f"{root}/{ATTACK}/record.json" for root in pair)]) == 1
    first, *others = capsys.readouterr().out.splitlines()
    assert first == (f"First difference: pretrain {RUN} options: run.regime.steps was 5, is 7")
    upstream = [line for line in others if "upstream:" in line]
    assert len(upstream) == 4  # three jobs read the encoder, one the head
    assert [line for line in upstream if not line.endswith("(follows)")] == []
    assert others[-1].endswith("flags.safetensors: other bytes")


def test_inputs_of_a_job_come_in_causal_order(pair):
    edit(pair[1], ATTACK, option("attack", "steps", value=50))
    edit(pair[1], ATTACK, option("code", value="c0ffee"))
    edit(pair[1], ATTACK, lambda record: record.update(seed=9))
    edit(pair[1], ATTACK, option("seed", value=9))
    edit(pair[1], ATTACK, lambda record: record["environment"].update(device="gpu", threads=8))
    edit(pair[1], ATTACK, lambda record: reads(record, f"{DATA}/test_images.npy", "sha256:0ff"))
    other_bytes(pair[1], HEAD, "head.safetensors")
    other_bytes(pair[1], ATTACK, "flags.safetensors")
    seen = [line for line in said(compare(*pair)) if line.startswith("attack")]
    assert [line.split(": ")[1].split()[0] for line in seen] == [
        "test_images.npy",
        "code",
        "attack.steps",
        "seed",
        "device",
        "threads",
        "head.safetensors",
    ]
    assert "attack options: attack.steps was 20, is 50" in seen


def test_an_edit_of_code_comes_before_options_but_not_code_of_another_kind(pair):
    edit(pair[1], ENCODER, option("code", value="c0ffee"))
    edit(pair[1], ENCODER, option("run", "epochs", value=7))
    assert compare(*pair, ENCODER).first.kind == "code"
    edit(pair[1], ENCODER, option("run", "method", "kind", value="emp_ssl"))
    assert str(compare(*pair, ENCODER).first) == "run.method.kind was simclr, is emp_ssl"


def test_an_environment_that_gave_the_same_bytes_decided_nothing(pair):
    edit(pair[1], ATTACK, lambda record: record["environment"].update(torch="9.9"))
    assert not compare(*pair).differs
    assert [str(each) for each in compare(*pair).changes] == ["torch was 2.11.0+cpu, is 9.9"]
    other_bytes(pair[1], ATTACK, "flags.safetensors")
    assert str(compare(*pair).first) == "torch was 2.11.0+cpu, is 9.9"


def test_a_change_upstream_that_gave_the_same_bytes_is_without_consequence(pair):
    edit(pair[1], ENCODER, option("run", "epochs", value=7))
    seen = compare(*pair)
    assert not seen.differs
    assert "Without consequence:" in comparison.in_words(seen)
    assert [each.key for each in seen.changes] == ["run.epochs"]


def test_other_bytes_from_the_same_inputs_are_a_difference_that_nothing_explains(pair):
    other_bytes(pair[1], ATTACK, "flags.safetensors")
    seen = compare(*pair)
    assert seen.first is None
    assert seen.differs
    assert "No input that the records name differs, and yet" in comparison.in_words(seen)


def test_times_in_the_curve_of_a_training_are_no_difference(pair):
    other_bytes(pair[1], ENCODER, "training.jsonl")
    seen = compare(*pair, ENCODER)
    assert not seen.differs
    assert "it holds times" in comparison.in_words(seen)


def test_data_are_the_root_cause_where_their_options_differ(pair):
    edit(pair[1], DATA, option("dataset", "size", value=24))
    edit(pair[1], ENCODER, option("dataset", "dataset", "size", value=24))
    other_bytes(pair[1], DATA, "train_images.npy")
    other_bytes(pair[1], ENCODER, "encoder.safetensors")
    seen = compare(*pair)
    assert (seen.first.job, seen.first.kind) == (DATA.replace("/", " "), "options")
    assert str(seen.first) == "dataset.size was 32, is 24"
    again = next(each for each in seen.changes if each.key == "dataset.dataset.size")
    assert again.follows  # the training says again what the data say
    images = next(each for each in seen.changes if each.key == "train_images.npy")
    assert images.follows


def test_data_that_decide_on_one_way_are_named_though_another_way_they_are_the_same(pair):
    edit(pair[1], DATA, option("dataset", "size", value=24))
    other_bytes(pair[1], DATA, "test_images.npy")  # the encoder saw the same training images
    assert str(compare(*pair).first) == "dataset.size was 32, is 24"


def test_an_encoder_whose_record_is_gone_is_the_first_difference_and_why_is_unknown(pair):
    other_bytes(pair[1], ENCODER, "encoder.safetensors")
    (pair[1] / ENCODER / "record.json").unlink()
    seen = compare(*pair)
    assert (seen.first.kind, seen.first.key) == ("upstream", "encoder.safetensors")
    assert not seen.first.follows
    assert "Unknown: why encoder.safetensors differs: " in comparison.in_words(seen)


def test_an_encoder_that_was_made_again_since_explains_nothing(pair):
    edit(pair[1], ENCODER, option("run", "epochs", value=7))
    edit(pair[1], ENCODER, lambda record: record["outputs"].update({"encoder.safetensors": "x"}))
    seen = compare(*pair)
    assert "run.epochs" not in {each.key for each in seen.changes}
    assert f"{ENCODER} was made again since" in comparison.in_words(seen)


def test_a_record_without_its_project_is_compared_as_far_as_it_goes(pair, tmp_path):
    edit(pair[0], ATTACK, option("attack", "steps", value=50))
    shutil.copy(pair[0] / ATTACK / "record.json", tmp_path / "record.json")
    sides = [
        difference.side(str(path), small_study)
        for path in (tmp_path / "record.json", pair[1] / ATTACK)
    ]
    assert str(difference.compare(*sides).first) == "attack.steps was 50, is 20"


def test_cells_are_compared_seed_by_seed_and_in_what_they_read(tree, study, monkeypatch):
    monkeypatch.chdir(tree)
    sides = [
        difference.side(f"table1:free:digits/{column}", lambda: study)
        for column in ("pgd20/4", "pgd20/8")
    ]
    assert list(sides[0].ends) == [0, 1, 2]
    seen = difference.compare(*sides)
    assert [str(each) for each in seen.changes] == ["reads was eps_4, is eps_8"]
    assert len(seen.written) == 3
    other = difference.side("table1:pgd:digits/pgd20/4", lambda: study)
    changes = [str(each) for each in difference.compare(sides[0], other).changes]
    assert "seeds was [0, 1, 2], is [0]" in changes
    assert "run.method.kind was emp_ssl, is simclr" in changes


def test_what_names_nothing_is_refused_with_what_to_type(pair, study, tmp_path):
    def load():
        return study

    with pytest.raises(PlaceError, match=r"nothing: no such file.*REVISION:PATH"):
        difference.side("nothing", load)
    with pytest.raises(CellError, match="no table `nothing`"):
        difference.side("nothing:a:b", load)
    with pytest.raises(PlaceError, match=r"expected a record.json or a folder with one; try: "):
        difference.side(str(pair[0] / ATTACK / "flags.safetensors"), load)
    with pytest.raises(ArtifactError, match="missing"):
        difference.side(str(tmp_path), load)
    (tmp_path / "record.json").write_text("[]")
    with pytest.raises(ArtifactError, match="no record of a job, expected a mapping"):
        difference.side(str(tmp_path), load)
    sides = [difference.side(str(pair[0] / folder), load) for folder in (ATTACK, HEAD)]
    with pytest.raises(PlaceError, match=r"of stage attack, .* of stage probe: compare two of one"):
        difference.compare(*sides)


def git(root, *arguments):
    identity = ("-c", "user.name=Test", "-c", "user.email=test@example.org")
    subprocess.run(["git", *identity, *arguments], cwd=root, check=True, capture_output=True)


def md5(data):
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


@pytest.fixture
def versioned(pair):
    """A project whose last commit has its attacks in dvc.lock and in DVC's cache, not in git."""
    root = pair[0]
    listed = []
    for path in sorted((root / "results/tiny/attack").rglob("*.json")):
        data, name = path.read_bytes(), path.relative_to(root / "results/tiny/attack").as_posix()
        listed.append({"md5": md5(data), "relpath": name})
        keep(root, md5(data), data)
    folder = json.dumps(listed).encode()
    keep(root, f"{md5(folder)}.dir", folder)
    (root / "dvc.lock").write_text(
        "schema: '2.0'\nstages:\n  attack:\n    outs:\n    - path: results/tiny/attack\n"
        f"      md5: {md5(folder)}.dir\n  report: {{}}\n"
    )
    git(root, "init", "--quiet")
    git(root, "add", "--force", "dvc.lock", f"{ENCODER}/record.json", f"{HEAD}/record.json")
    git(root, "commit", "--quiet", "--message", "Attack")
    return root


def keep(root, name, data):
    path = root / ".dvc/cache/files/md5" / name[:2] / name[2:]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def test_a_record_of_a_revision_comes_from_the_cache_of_dvc(versioned, monkeypatch):
    monkeypatch.chdir(versioned)
    edit(versioned, ENCODER, option("run", "epochs", value=7))
    other_bytes(versioned, ENCODER, "encoder.safetensors")
    other_bytes(versioned, ATTACK, "flags.safetensors")
    for path in (ATTACK, f"{ATTACK}/record.json"):
        sides = [difference.side(text, small_study) for text in (f"HEAD:{path}", path)]
        seen = difference.compare(*sides)
        # The attack is in DVC's cache, the encoder's record in git: the chain crosses both.
        assert (seen.first.job, str(seen.first)) == (f"pretrain {RUN}", "run.epochs was 6, is 7")


def test_a_revision_that_cannot_be_read_says_what_to_type(versioned, monkeypatch):
    monkeypatch.chdir(versioned)
    cases = {
        f"HEAD~7:{ATTACK}": r"git knows no revision `HEAD~7` here; see: git log --all",
        "HEAD:results/other": r"neither in git nor in dvc.lock .* git show HEAD:./dvc.lock",
        "HEAD:results/tiny/attack/x": r"results/tiny/attack of that revision, .* has no x/record",
    }
    for text, message in cases.items():
        place, folder = places.locate(text)
        with pytest.raises((PlaceError, ArtifactError), match=message):
            place.record(folder)


def test_an_object_that_dvc_lacks_or_that_was_changed_is_said(versioned, monkeypatch):
    monkeypatch.chdir(versioned)
    place, folder = places.locate(f"HEAD:{ATTACK}")
    record = (versioned / ATTACK / "record.json").read_bytes()
    keep(versioned, md5(record), record.replace(b"20", b"50"))
    with pytest.raises(ArtifactError, match=rf"changed bytes in the DVC cache: .* {md5(record)}"):
        place.record(folder)
    shutil.rmtree(versioned / ".dvc/cache")
    with pytest.raises(ArtifactError, match="dvc fetch --all-commits results/tiny/attack"):
        place.record(folder)


def test_a_cache_that_is_elsewhere_is_found(versioned, monkeypatch, tmp_path):
    monkeypatch.chdir(versioned)
    (versioned / ".dvc/cache").rename(tmp_path / "shared")
    (versioned / ".dvc/config").write_text(
        "[core]\n    remote = r\n['remote \"r\"']\n    url = x\n"
    )
    (versioned / ".dvc/config.local").write_text("[cache]\n    dir = ../../shared\n")
    place, _ = places.locate(f"HEAD:{ATTACK}")
    assert place.record(PurePosixPath(ATTACK))["stage"] == "attack"


def test_a_name_that_looks_like_an_option_reaches_no_command(versioned, monkeypatch):
    monkeypatch.chdir(versioned)
    place, folder = places.locate("--output=x:y")
    with pytest.raises(PlaceError, match="no revision"):
        place.record(folder)
    assert not (versioned / "x").exists()
