"""Every kind of bad file that `robustviews import` is given: one line that says what to do."""

from __future__ import annotations

import hashlib
import io
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from robustviews import vit
from robustviews.cli import main
from robustviews.cli.importing import IMPORTED
from tests.unit.checkpoints import synthetic


def network():
    return synthetic.source().state_dict()


def file_of(content):
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def transformer(kind="vit_small"):
    return {name: torch.zeros(shape) for name, shape in vit.shapes(kind).items()}


def without(*endings):
    return {name: value for name, value in network().items() if not name.endswith(endings)}


HTML = b"<!DOCTYPE html><title>Sign in</title>"
# What the file holds, and what the message says: what is wrong, and what to do.
BAD = {
    "HTML page": (lambda: HTML, "a web page .*; follow the link on that page"),
    "Git LFS pointer": (
        lambda: b"version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 9\n",
        "a Git LFS pointer, .*; get the file with: git lfs pull",
    ),
    "truncated zip": (
        lambda: file_of(network())[:-700],
        "truncated or damaged .*; download it again",
    ),
    "text of numpy": (
        lambda: file_of(network() | {"note": np.str_("abc")}),
        r"refused: more than tensors and plain values \(numpy.*StrDType.*convert it once",
    ),
    "other network": (
        lambda: file_of({"features.0.weight": torch.ones(64, 3, 3, 3)}),
        "another network; expected ResNet-18, .*; import a checkpoint of one of these",
    ),
    "other residual network": (
        lambda: file_of(network() | {"layer1.0.se.weight": torch.ones(4, 4)}),
        "another or an incomplete network .* or import another checkpoint",
    ),
    "other transformer": (
        lambda: file_of({n: v for n, v in transformer().items() if "blocks.11" not in n}),
        "another or an incomplete vision transformer .*; import a checkpoint of one of these",
    ),
    "transformer without timm": (
        lambda: file_of(transformer()),
        r"vision transformers need timm; type: pip install 'robustviews\[vit\]'",
    ),
    "NaN": (
        lambda: file_of(network() | {"bn1.bias": torch.full((4,), torch.nan)}),
        "bn1.bias: NaN or infinite weights: .*; import an earlier checkpoint, or download it again",
    ),
    "no statistics": (
        lambda: file_of(without("running_mean", "running_var")),
        "the batch-norm statistics are missing .*; save the whole state dict",
    ),
}


@pytest.fixture(autouse=True)
def project(tmp_path, monkeypatch):
    """An empty project folder without timm, in which the tests run."""
    monkeypatch.chdir(tmp_path)

    def missing():
        raise vit.TransformerError(vit.MISSING)

    monkeypatch.setattr(vit, "_timm", missing)


def refused(capsys, *words):
    """Return the one line in which `robustviews import` refuses a file."""
    assert main(["import", *words]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1, error
    assert not IMPORTED.exists()
    return error


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_file_is_refused_in_one_line_that_says_what_to_do(kind, capsys):
    content, message = BAD[kind]
    Path("a.pth").write_bytes(content())
    assert re.search(rf"a\.pth: {message}", refused(capsys, "a.pth", "--normalise", "imagenet"))


def test_another_hash_is_refused(capsys):
    Path("a.pth").write_bytes(file_of(network()))
    error = refused(capsys, "a.pth", "--normalise", "imagenet", "--sha256", "0" * 64)
    assert re.search("SHA-256 is [0-9a-f]{64}, but 0{64} .*; remove the file and download", error)


def test_two_gigabytes_that_are_no_checkpoint_are_refused_at_once(capsys, monkeypatch):
    with Path("a.pth").open("wb") as file:
        file.truncate(1 << 31)  # a hole, which takes no disk
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("read"))
    monkeypatch.setattr(hashlib, "file_digest", lambda *_: pytest.fail("hashed"))
    error = refused(capsys, "a.pth", "--normalise", "imagenet")
    assert "no checkpoint: expected a file of torch.save or safetensors" in error


def test_a_page_saved_for_a_published_checkpoint_is_not_pinned(capsys):
    path = Path("data/raw/checkpoints/barlow-twins/resnet50.pth")
    path.parent.mkdir(parents=True)
    path.write_bytes(HTML)
    assert "a web page" in refused(capsys, "barlow-twins")
    assert [one.name for one in path.parent.iterdir()] == [path.name]
