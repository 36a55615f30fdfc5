"""Files are read without executing anything in them, and refused in one line otherwise."""

from __future__ import annotations

import argparse
import io
import os
import pathlib
import pickle
import shlex
import subprocess
import zipfile

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from robustviews.checkpoints import CheckpointError, bring, read
from tests.unit.checkpoints import synthetic

WEIGHTS = {"conv1.weight": torch.ones(4, 3, 3, 3), "more": torch.ones(2000)}


class Hostile:
    """What creates a file when it is unpickled."""

    def __init__(self, function, argument):
        self.call = function, (argument,)

    def __reduce__(self):
        return self.call


def hostile_values(trace):
    """Return values that create a file when they are unpickled, by what they call."""
    return {
        r"posix\.system": Hostile(os.system, f"touch {trace}"),
        "exec": Hostile(exec, f"open({str(trace)!r}, 'w').close()"),
        r"commands\.check_call": Hostile(subprocess.check_call, ["touch", str(trace)]),
    }


def file_with(content, path, **options):
    torch.save(content, path, **options)
    return path


def bytes_of(content, **options):
    buffer = io.BytesIO()
    torch.save(content, buffer, **options)
    return buffer.getvalue()


ZIPPED = pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])


@ZIPPED
@pytest.mark.parametrize("disguise", [None, argparse.Namespace(lr=np.float64(0.1))])
@pytest.mark.parametrize("call", hostile_values(""))
def test_code_in_a_file_is_never_run(call, disguise, zipped, tmp_path):
    trace = tmp_path / "trace"
    content = {"args": disguise, "state_dict": WEIGHTS, "zz": hostile_values(trace)[call]}
    path = file_with(content, tmp_path / "a.pth", _use_new_zipfile_serialization=zipped)
    with pytest.raises(CheckpointError, match=rf"it would run code \(.*{call}.*\); do not"):
        read(path)
    assert not trace.exists()
    torch.load(path, weights_only=False)
    assert trace.exists(), "a harmless file tests nothing"


def test_code_in_an_argument_of_a_namespace_is_never_run(tmp_path):
    trace = tmp_path / "trace"
    value = Hostile(os.system, f"touch {trace}")
    path = file_with({"args": argparse.Namespace(x=value)}, tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match=r"posix\.system"):
        read(path)
    assert not trace.exists()


@ZIPPED
@pytest.mark.parametrize(
    "value",
    [np.float64(0.3), np.float32(0.3), np.int64(3), np.bool_(True), np.uint8(3)],
    ids=lambda value: type(value).__name__,
)
def test_numbers_of_numpy_and_namespaces_are_plain_values(value, zipped, tmp_path):
    content = {"args": argparse.Namespace(lr=value), "state_dict": WEIGHTS}
    path = file_with(content, tmp_path / "a.pth", _use_new_zipfile_serialization=zipped)
    tree = read(path).tree
    assert tree["args"].lr == value
    assert torch.equal(tree["state_dict"]["more"], WEIGHTS["more"])


def test_a_number_of_numpy_1_is_a_plain_value(tmp_path):
    path = tmp_path / "a.pth"
    data = bytes_of({"lr": np.float64(0.3)}, _use_new_zipfile_serialization=False)
    old = data.replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
    assert old != data
    path.write_bytes(old)
    assert read(path).tree["lr"] == 0.3


@ZIPPED
@pytest.mark.parametrize(
    ("value", "name"),
    [
        (pathlib.PurePosixPath("a"), r"pathlib\.PurePosixPath"),
        (np.zeros(3), r"numpy\._core\.multiarray\._reconstruct"),
        (torch.nn.Linear(2, 2), r"torch\.nn\.modules\.linear\.Linear"),
    ],
    ids=["path", "array", "module"],
)
def test_other_values_are_refused_by_name(value, name, zipped, tmp_path):
    content = {"value": value, "state_dict": WEIGHTS}
    path = file_with(content, tmp_path / "a.pth", _use_new_zipfile_serialization=zipped)
    with pytest.raises(CheckpointError, match=name) as error:
        read(path)
    assert "\n" not in str(error.value)


def test_the_conversion_that_a_refusal_suggests_makes_the_file_importable(tmp_path):
    network = synthetic.source()
    content = {"root": pathlib.PurePosixPath("a"), "state_dict": network.state_dict()}
    path = file_with(content, tmp_path / "it is mine.pth")
    with pytest.raises(CheckpointError, match="if you trust its source, convert it once") as error:
        read(path)
    command = str(error.value).partition("import the result: ")[2]
    subprocess.run(shlex.split(command), check=True)
    assert bring(tmp_path / "it is mine.pth.plain", normalise="none").found.matched == 120


def flipped(data):
    """Change one bit of the weights."""
    position = data.index(torch.ones(2000).numpy().tobytes()) + 100
    return data[:position] + bytes([data[position] ^ 1]) + data[position + 1 :]


def archive(*names):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as opened:
        for name in names:
            opened.writestr(name, "content")
    return buffer.getvalue()


def arrays():
    buffer = io.BytesIO()
    np.savez(buffer, a=np.zeros(3))
    return buffer.getvalue()


BAD = {
    "html": (b"\n<!DOCTYPE html><html></html>", r"a web page \(HTML\), not the file; follow"),
    "lfs": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
    "empty": (b"", "empty; download it again"),
    "noise": (bytes(range(1, 200)), "no checkpoint: expected a file of torch.save or safetensors"),
    "text": (b"hello, world, hello", "no checkpoint: expected a file of torch.save or safetensors"),
    "zeros": (bytes(4096), "no checkpoint: expected a file of torch.save or safetensors"),
    "npz": (arrays(), r"numpy arrays \(\.npz\), no torch file"),
    "pickle 4": (
        pickle.dumps({"a": 1}, protocol=4),
        "a plain pickle, no file of torch.save",
    ),
    "pickle 2": (
        pickle.dumps({"a": 1}, protocol=2),
        "a plain pickle, no file of torch.save",
    ),
    "gzip": (b"\x1f\x8b\x08\x00" + bytes(600), "a compressed file or archive; unpack it"),
    "tar": (bytes(257) + b"ustar" + bytes(400), "a compressed file or archive; unpack it"),
    "other zip": (
        archive("ResNet50_1x/model.index"),
        "a zip of other files, such as ResNet50_",
    ),
    "script": (
        archive("m/data.pkl", "m/constants.pkl"),
        "a TorchScript program, not weights",
    ),
    "cut zip": (bytes_of(WEIGHTS)[:-500], "truncated or damaged .*; download it again"),
    "flipped zip": (flipped(bytes_of(WEIGHTS)), "damaged: the checksum of .* differs; download it"),
    "cut legacy": (
        bytes_of(WEIGHTS, _use_new_zipfile_serialization=False)[:-500],
        "truncated or damaged .*; download it again",
    ),
    "legacy head": (
        bytes_of(WEIGHTS, _use_new_zipfile_serialization=False)[:40],
        "truncated or damaged .*; download it again",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_checkpoint_is_refused_in_one_line(name, tmp_path):
    content, message = BAD[name]
    path = tmp_path / "a.pth"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=message) as error:
        read(path)
    assert str(error.value).startswith(f"{path}: ")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("cut", [20, 500])
def test_truncated_safetensors_are_refused(cut, tmp_path):
    path = tmp_path / "a.safetensors"
    save_file(WEIGHTS, path)
    path.write_bytes(path.read_bytes()[:-cut] if cut > 20 else path.read_bytes()[:cut])
    with pytest.raises(CheckpointError, match=r"truncated or damaged .*; download it again"):
        read(path)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_safetensors_are_recognised_whatever_the_length_of_their_header(count, tmp_path):
    path = tmp_path / "a.safetensors"
    firsts = set()
    for length in range(0, 256, 8):
        save_file({"a" * count: torch.ones(3)}, path, {"padding": "x" * length})
        firsts.add(path.read_bytes()[0])
        assert read(path).container == "safetensors"
    assert {0x80, 0x50} <= firsts, "of a pickle, and of a zip"


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    for path in (tmp_path / "none.pth", tmp_path):
        with pytest.raises(CheckpointError, match="cannot be read"):
            read(path)
        with pytest.raises(CheckpointError, match="no such file"):
            bring(path)
