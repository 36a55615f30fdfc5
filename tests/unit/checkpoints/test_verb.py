"""`robustviews import`: an artifact like that of a run, from a file or a published name."""

from __future__ import annotations

import dataclasses
import hashlib
import re
import shutil
from pathlib import Path

import pytest
import torch

from robustviews import checkpoints, load_classifier, load_encoder
from robustviews.artifacts import ArtifactError, Record
from robustviews.cli import main
from robustviews.cli.importing import IMPORTED
from tests.unit.checkpoints import synthetic
from tests.unit.checkpoints.synthetic import CASES, IMAGES


@pytest.fixture(autouse=True)
def project(tmp_path, monkeypatch):
    """An empty project folder, in which the tests run."""
    folder = tmp_path / "project"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def save_case(name, path="checkpoint.pth"):
    case = CASES[name]
    good, other = (synthetic.source(seed, **case.options) for seed in (1, 2))
    torch.save(case.tree(good.state_dict(), other.state_dict()), path)
    return case, good


def run(*words, status=0):
    assert main(["import", *map(str, words)]) == status


def test_an_imported_file_is_an_encoder_artifact(capsys):
    case, good = save_case("torchvision", "resnet50.v1.pth")
    run("resnet50.v1.pth", "--normalise", "imagenet")
    folder = IMPORTED / "resnet50"
    assert {file.name for file in folder.iterdir()} == {"encoder.safetensors", "record.json"}
    features = case.features(good, IMAGES)
    encoder, classifier = load_encoder(folder), load_classifier(folder)
    torch.testing.assert_close(encoder.represent(IMAGES, "backbone"), features)
    fc = synthetic.linear()
    torch.testing.assert_close(classifier(IMAGES), features @ fc["fc.weight"].T + fc["fc.bias"])
    digest = hashlib.sha256(Path("resnet50.v1.pth").read_bytes()).hexdigest()
    output = capsys.readouterr().out
    for line in (
        r"encoder +imported/resnet50: resnet18, width 4, stem imagenet",
        r"container +torch zip",
        r"layout +plain state dict, at the top level",
        r"matched +120 of 120 names",
        r"dropped +nothing",
        r"normalisation +imagenet \(given\)",
        r"classifier +10 classes, from the file",
        rf"SHA-256 +{digest}",
    ):
        assert re.search(f"^{line}$", output, re.M), line
    again = re.search("^Pin the file with: robustviews import (.*)$", output, re.M)[1].split()
    assert again[-1] == f"--sha256={digest}"
    run(*again)
    run(*again[:-1], "--sha256=" + "0" * 64, status=2)


def test_the_record_names_the_source_and_what_became_of_it(project):
    save_case("moco-v3")
    run(project / "checkpoint.pth", "--name", "moco", "--weights", "base")
    record = Record.read(IMPORTED / "moco" / "record.json")
    assert (record.stage, record.name) == ("import", "moco")
    digest = hashlib.sha256(Path("checkpoint.pth").read_bytes()).hexdigest()
    assert record.spec["source"] == {
        "file": "checkpoint.pth",
        "sha256": f"sha256:{digest}",
        "container": "torch zip",
    }
    assert record.spec["layout"] == "MoCo v3"
    assert record.spec["place"] == "state_dict:module.base_encoder."
    assert "module.momentum_encoder.* (120)" in record.spec["dropped"]
    assert record.spec["encoder"]["normalise"] == [*synthetic.IMAGENET]
    assert str(project) not in (IMPORTED / "moco" / "record.json").read_text(encoding="utf-8")


def test_an_encoder_without_classifier_has_none(capsys):
    case, good = save_case("deacl")
    run("checkpoint.pth")
    assert re.search(r"^padding +2 \(known of DeACL\)$", capsys.readouterr().out, re.M)
    encoder = load_encoder(IMPORTED / "checkpoint")
    torch.testing.assert_close(encoder(IMAGES), case.features(good, IMAGES))
    with pytest.raises(ValueError, match="an encoder without classifier"):
        load_classifier(IMPORTED / "checkpoint")


def test_a_changed_artifact_is_refused():
    save_case("swav")
    run("checkpoint.pth")
    file = IMPORTED / "checkpoint" / "encoder.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"!")
    with pytest.raises(ArtifactError, match="as recorded, found"):
        load_encoder(IMPORTED / "checkpoint")


def test_the_same_import_gives_the_same_bytes_and_another_file_never_replaces_it(capsys):
    save_case("swav")
    run("checkpoint.pth")
    file = IMPORTED / "checkpoint" / "encoder.safetensors"
    first = file.read_bytes()
    run("checkpoint.pth")
    assert file.read_bytes() == first
    torch.save(synthetic.source(3).state_dict(), "checkpoint.pth")
    run("checkpoint.pth", "--normalise", "none", status=2)
    assert "imported from another file; choose another --name" in capsys.readouterr().err
    assert file.read_bytes() == first


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("other.pth",), r"other\.pth: no such file, and no published checkpoint; known: acl"),
        (("dyno",), r"dyno: no such file, and no published checkpoint; did you mean `dino`"),
        (("checkpoint.pth",), r"add --normalise imagenet"),
        (("checkpoint.pth", "--normalise", "imagenet", "--sha256", "0" * 64), "0{64} is expected"),
        (("checkpoint.pth", "--normalise", "none", "--name", "../x"), r"--name: expected letters"),
        (("checkpoint.pth", "--normalise", "none", "--name", ".x"), r"--name: expected letters"),
    ],
)
def test_a_mistake_is_one_line_and_writes_nothing(words, message, capsys):
    save_case("barlow-twins")
    run(*words, status=2)
    error = capsys.readouterr().err
    assert re.search(message, error)
    assert error.count("\n") == 1
    assert not IMPORTED.exists()


def test_a_published_file_without_an_address_is_taken_from_where_it_was_saved(capsys):
    run("simclr-1x", status=2)
    error = capsys.readouterr().err
    path = Path("data/raw/checkpoints/simclr-1x/resnet50-1x.pth")
    assert "see https://github.com/tonylins/simclr-converter (licence: Apache-2.0), save" in error
    assert f"resnet50-1x.pth as {path}, and run the same command again" in error
    path.parent.mkdir(parents=True)
    save_case("simclr-1x", path)
    run("simclr-1x")
    output = capsys.readouterr().out
    assert re.search(r"^normalisation +none", output, re.M)
    assert re.search(r"^classifier +none$", output, re.M), "its bias is not trained"
    assert re.search(r"^published +68\.9 % top-1 on ImageNet$", output, re.M)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert path.with_name("resnet50-1x.pth.sha256").read_text().startswith(digest)
    save_case("simclr-1x", path)
    path.write_bytes(path.read_bytes() + b"\0")
    run("simclr-1x", status=2)
    assert f"but {digest} is pinned in" in capsys.readouterr().err


def test_a_published_file_with_an_address_is_downloaded(monkeypatch, tmp_path, capsys):
    save_case("moco-v3", tmp_path / "server.pth")
    asked = []

    def download(address, path):
        asked.append(address)
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(tmp_path / "server.pth", path)

    monkeypatch.setattr(checkpoints, "download", download)
    entry = dataclasses.replace(checkpoints.CATALOGUE["moco-v3-100"], address="http://x/a.pth")
    monkeypatch.setitem(checkpoints.CATALOGUE, "moco-v3-100", entry)
    run("moco-v3-100")
    assert asked == ["http://x/a.pth"]
    assert "http://x/a.pth (licence: CC-BY-NC-4.0)" in capsys.readouterr().err
    assert load_encoder(IMPORTED / "moco-v3-100").classifier is None
    wrong = dataclasses.replace(entry, sha256="00000000")
    monkeypatch.setitem(checkpoints.CATALOGUE, "moco-v3-100", wrong)
    run("moco-v3-100", status=2)
    assert "00000000 is expected" in capsys.readouterr().err


def test_what_a_person_gives_counts_more_than_the_catalogue():
    path = Path("data/raw/checkpoints/dino-full/dino_resnet50_pretrain_full_checkpoint.pth")
    path.parent.mkdir(parents=True)
    save_case("dino-full", path)
    run("dino-full", "--weights", "student", "--normalise", "none", "--name", "student")
    record = Record.read(IMPORTED / "student" / "record.json")
    assert record.spec["place"] == "student:module.backbone."
    assert record.spec["encoder"]["normalise"] is None
