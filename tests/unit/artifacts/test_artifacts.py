"""Files: complete or absent, and the same bytes for the same values."""

from __future__ import annotations

import hashlib
import json
import os
import re
import resource
import stat
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from robustviews import artifacts, cli
from robustviews.artifacts import ArtifactError, files

RECORD = {
    "stage": "pretrain",
    "name": "emp-digits-s3",
    "study": "small",
    "spec": {"run": {"epochs": 3}, "seed": 3, "code": "0123456789abcdef"},
    "environment": {"python": "3.11"},
    "started": artifacts.Start(clock=1_767_225_600.5),
    "result": {"loss": 0.5},
}


@pytest.fixture
def full_disk():
    """No file may grow beyond 1000 bytes; the error is another than that of a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.fixture
def umask():
    before = os.umask(0o027)
    yield
    os.umask(before)


def test_a_file_appears_only_when_it_is_complete(tmp_path):
    path = tmp_path / "new" / "file.txt"
    with artifacts.atomic(path) as temporary:
        temporary.write_text("some")
        assert temporary.parent == path.parent
        assert not path.exists()
    assert path.read_text() == "some"
    assert list(path.parent.iterdir()) == [path]


def _write_array(path):
    with artifacts.atomic_folder(path) as into:
        artifacts.new_array(into / "x.npy", (5000,), np.uint8)


def _write_inner(path):
    with artifacts.atomic_folder(path) as into:
        artifacts.write_text(into / "x", 5000 * "x")


@pytest.mark.usefixtures("full_disk")
@pytest.mark.parametrize(
    "write",
    [
        lambda path: artifacts.write_text(path, 5000 * "x"),
        lambda path: artifacts.write_tensors(path, {"x": torch.zeros(5000)}),
        _write_array,
        _write_inner,
    ],
    ids=["text", "tensors", "array", "folder"],
)
def test_a_full_disk_is_an_error_that_names_the_file_and_leaves_nothing(tmp_path, write):
    with pytest.raises(OSError, match="File too large") as refused:
        write(tmp_path / "name")
    assert refused.value.filename == str(tmp_path / "name")
    assert list(tmp_path.iterdir()) == []


def test_files_reach_the_disk_before_their_names_and_the_record_comes_last(tmp_path, monkeypatch):
    done = []
    replace = Path.replace

    def log_replace(path, target):
        done.append(f"{target.name} appears")
        return replace(path, target)

    with artifacts.atomic_folder(tmp_path / "job") as into:
        for name in ("record.json", "weights"):
            (into / name).write_text(name)
        monkeypatch.setattr(files, "_sync", lambda path: done.append(path.name))
        monkeypatch.setattr(Path, "replace", log_replace)
    appears = ["weights appears", "job", "record.json appears", "job", tmp_path.name]
    assert done == ["weights", "record.json", *appears]


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "file.txt"
    path.write_text("old")

    def write() -> None:
        with artifacts.atomic(path) as temporary:
            temporary.write_text("new")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_failed_folder_leaves_the_old_files_and_nothing_else(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "encoder").write_text("old")

    def write() -> None:
        with artifacts.atomic_folder(folder) as into:
            (into / "encoder").write_text("new")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        write()
    assert list(tmp_path.iterdir()) == [folder]
    assert [path.read_text() for path in folder.iterdir()] == ["old"]
    with pytest.raises(ZeroDivisionError), artifacts.atomic_folder(tmp_path / "new"):
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == [folder]


def test_a_folder_gets_all_its_files_the_record_last(tmp_path, monkeypatch):
    folder = tmp_path / "results" / "run"
    moved = []
    replace = Path.replace
    monkeypatch.setattr(
        Path, "replace", lambda path, to: (moved.append(path.name), replace(path, to))
    )
    with artifacts.atomic_folder(folder) as into:
        for name in ("training.jsonl", "record.json", "encoder.safetensors"):
            (into / name).write_text(name)
        assert not folder.exists()
    assert {path.name: path.read_text() for path in folder.iterdir()} == {
        name: name for name in moved
    }
    assert sorted(moved) == ["encoder.safetensors", "record.json", "training.jsonl"]
    assert moved[-1] == "record.json"


@pytest.mark.usefixtures("umask")
def test_files_and_folders_have_the_rights_that_the_user_asks_for(tmp_path):
    with artifacts.atomic_folder(tmp_path / "run") as into:
        artifacts.write_text(into / "file.txt", "")
    assert stat.S_IMODE((tmp_path / "run" / "file.txt").stat().st_mode) == 0o640
    assert stat.S_IMODE((tmp_path / "run").stat().st_mode) == 0o750


def test_json_is_sorted_and_readable_and_has_no_nan(tmp_path):
    path = tmp_path / "a.json"
    artifacts.write_json(path, {"b": [1.5, None], "a": "ä"})
    assert list(json.loads(path.read_text())) == ["a", "b"]
    assert artifacts.read_json(path) == {"a": "ä", "b": [1.5, None]}
    with pytest.raises(ValueError, match="JSON compliant"):
        artifacts.write_json(path, {"loss": float("nan")})
    assert artifacts.read_json(path)["b"] == [1.5, None]


def test_lines_of_json_come_back_in_order(tmp_path):
    rows = [{"epoch": 1, "loss": 0.25}, {"epoch": 2, "loss": 1e-17}]
    artifacts.write_jsonl(tmp_path / "a.jsonl", rows)
    assert (tmp_path / "a.jsonl").read_text().count("\n") == 2
    assert artifacts.read_jsonl(tmp_path / "a.jsonl") == rows


def test_bytes_come_back(tmp_path):
    artifacts.write_bytes(tmp_path / "a.png", b"\x89PNG")
    assert (tmp_path / "a.png").read_bytes() == b"\x89PNG"


def tensors() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        "weight": torch.randn(4, 3, 5, 5, generator=generator),
        "half": torch.randn(3, generator=generator).bfloat16(),
        "count": torch.tensor(7),
        "flags": torch.tensor([1, 0, 1], dtype=torch.uint8),
        "none": torch.zeros(0, 3),
    }


def test_tensors_come_back_with_type_shape_and_bits(tmp_path):
    artifacts.write_tensors(tmp_path / "a.safetensors", tensors())
    loaded = artifacts.read_tensors(tmp_path / "a.safetensors")
    assert loaded.keys() == tensors().keys()
    for name, value in tensors().items():
        assert loaded[name].dtype == value.dtype
        assert loaded[name].shape == value.shape
        assert torch.equal(loaded[name], value)


def test_the_bytes_of_tensors_depend_on_their_values_only(tmp_path):
    def written(values: dict[str, torch.Tensor]) -> bytes:
        artifacts.write_tensors(tmp_path / "a", values, {"position": "0"})
        return (tmp_path / "a").read_bytes()

    plain = written(tensors())
    other = {name: value.clone() for name, value in reversed(tensors().items())}
    other["weight"] = other["weight"].to(memory_format=torch.channels_last).requires_grad_()
    other["half"] = torch.stack([other["half"], other["half"]], dim=1)[:, 0]
    assert not other["weight"].is_contiguous()
    assert written(other) == plain
    other["count"] = torch.tensor(8)
    assert written(other) != plain


def test_arrays_are_read_without_torch(tmp_path):
    path = tmp_path / "flags.safetensors"
    artifacts.write_tensors(path, {"clean": torch.tensor([1, 0], dtype=torch.uint8)})
    clean = artifacts.read_arrays(path)["clean"]
    assert isinstance(clean, np.ndarray)
    assert clean.tolist() == [1, 0]
    code = (
        "import sys; from pathlib import Path; from robustviews import artifacts;"
        f"artifacts.read_arrays(Path({str(path)!r})); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


READERS = {
    "json": artifacts.read_json,
    "jsonl": artifacts.read_jsonl,
    "tensors": artifacts.read_tensors,
    "arrays": artifacts.read_arrays,
    "sha256": artifacts.sha256,
}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("name", ["missing", "file/missing", "no/such/folder"])
def test_a_missing_file_is_named_with_the_command_that_makes_it(reader, name, tmp_path):
    (tmp_path / "file").write_text("")
    path = tmp_path / name
    expected = f"{path}: missing; make it with: snakemake {path}"
    with pytest.raises(ArtifactError, match=f"^{re.escape(expected)}$"):
        READERS[reader](path)


@pytest.mark.parametrize("reader", ["json", "jsonl", "tensors", "arrays"])
@pytest.mark.parametrize("content", [b"\x00", b"\xff\xfe{", b"{'a': 1}", b"{\n", b"\x00" * 64])
def test_a_damaged_file_is_named_with_a_fix(reader, content, tmp_path):
    path = tmp_path / "file"
    path.write_bytes(content)
    with pytest.raises(ArtifactError) as caught:
        READERS[reader](path)
    assert str(caught.value).startswith(f"{path}: damaged (")
    assert str(caught.value).endswith("); delete it and run snakemake again")


@pytest.mark.parametrize("length", [0, 4, 40, 0.5, -1])
def test_cut_off_tensors_are_damaged(length, tmp_path):
    path = tmp_path / "a.safetensors"
    artifacts.write_tensors(path, tensors())
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * length) if 0 < length < 1 else length])
    with pytest.raises(ArtifactError, match=r"damaged \(.*\); delete it and run snakemake again"):
        artifacts.read_tensors(path)


@pytest.mark.parametrize("reader", READERS)
def test_a_folder_in_the_place_of_a_file_is_reported(reader, tmp_path):
    with pytest.raises(ArtifactError, match=rf"^{tmp_path}: cannot be read \(.*\); see: ls -ld "):
        READERS[reader](tmp_path)


def test_hashes_are_those_of_sha256sum(tmp_path):
    (tmp_path / "a").write_bytes(b"abc" * 100_000)
    expected = hashlib.sha256(b"abc" * 100_000).hexdigest()
    assert artifacts.sha256(tmp_path / "a") == f"sha256:{expected}"


def test_a_record_holds_the_hashes_of_outputs_and_inputs(tmp_path):
    (tmp_path / "data.npy").write_text("data")
    folder = tmp_path / "run"
    folder.mkdir()
    for name in ("encoder.safetensors", "training.jsonl", "record.json", ".hidden"):
        (folder / name).write_text(name)
    (folder / "folder").mkdir()
    artifacts.write_record(folder, **RECORD, inputs=[tmp_path / "data.npy"], seconds=12.3456)
    record = artifacts.read_json(folder / "record.json")
    environment = record.pop("environment")
    assert environment.pop("python") == RECORD["environment"]["python"]
    assert environment["lock"] == artifacts.sha256(Path("requirements.lock"))
    assert environment["packages"]["torch"] == torch.__version__.partition("+")[0]
    assert environment["image"] is None
    code = record.pop("code")
    assert code["digest"] == "0123456789abcdef"
    assert code.keys() == {"digest", "commit", "dirty"}
    sha256 = {name: f"sha256:{hashlib.sha256(name.encode()).hexdigest()}" for name in (
        "data", "encoder.safetensors", "training.jsonl")}  # fmt: skip
    assert record == {
        **{key: value for key, value in RECORD.items() if key != "environment"},
        "seed": 3,
        "started": "2026-01-01T00:00:00Z",
        "seconds": 12.346,
        "resumed": 0,
        "inputs": {(tmp_path / "data.npy").as_posix(): sha256.pop("data")},
        "outputs": sha256,
    }


def test_a_record_holds_the_commit_that_was_checked_out_when_its_job_began(tmp_path, monkeypatch):
    commits = iter([("a" * 40, False), ("b" * 40, True)])
    monkeypatch.setattr(artifacts, "commit", lambda: next(commits))
    study = Path("tests/workflow/tiny.yaml").absolute()
    monkeypatch.chdir(tmp_path)
    assert cli.main(["data", "--study", str(study), "--dataset", "digits"]) == 0
    (record,) = tmp_path.glob("data/*/record.json")
    code = artifacts.read_json(record)["code"]
    assert (code["commit"], code["dirty"]) == ("a" * 40, False)
    assert next(commits)[0] == "b" * 40


def test_a_record_counts_its_seconds_from_the_start(tmp_path):
    started = {**RECORD, "started": artifacts.Start(ticks=time.monotonic() - 100)}
    artifacts.write_record(tmp_path, **started, inputs=[])
    assert 100 <= artifacts.read_json(tmp_path / "record.json")["seconds"] < 110


def test_a_record_of_a_missing_input_is_not_written(tmp_path):
    with pytest.raises(ArtifactError, match="missing"):
        artifacts.write_record(tmp_path, **RECORD, inputs=[tmp_path / "missing"])
    assert not list(tmp_path.iterdir())


def git(folder, *arguments: str) -> str:
    identity = ["-c", "user.name=n", "-c", "user.email=e", "-c", "commit.gpgsign=false"]
    process = subprocess.run(
        ["git", "-C", folder, *identity, *arguments], check=True, capture_output=True, text=True
    )
    return process.stdout.strip()


def test_the_commit_of_the_code_is_recorded_and_whether_it_was_changed(tmp_path, monkeypatch):
    module = tmp_path / "src" / "robustviews" / "__init__.py"
    module.parent.mkdir(parents=True)
    monkeypatch.setattr("robustviews.artifacts.revision._PACKAGE", module.parent)
    assert artifacts.commit() == (None, None)
    git(tmp_path, "init", "-q")
    module.write_text("1")
    assert artifacts.commit() == (None, None), "installed into a folder of some repository"
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-qm", "one")
    (tmp_path / "elsewhere").write_text("")
    commit = git(tmp_path, "rev-parse", "HEAD")
    assert artifacts.commit() == (commit, False)
    module.write_text("2")
    assert artifacts.commit() == (commit, True)
    git(tmp_path, "update-index", "--assume-unchanged", "src/robustviews/__init__.py")
    assert artifacts.commit() == (commit, True), "git is set to ignore the edit"
    (tmp_path / "COMMIT").write_text(f"{'0' * 40}\n")
    assert artifacts.commit() == (commit, True), "git takes precedence over an old COMMIT file"


@pytest.mark.parametrize(
    ("text", "commit"),
    [
        (f"{'a1' * 20}\n", ("a1" * 20, False)),
        (f"{'a1' * 20}-dirty\n", ("a1" * 20, True)),
        ("", (None, None)),
        ("a1a1a1a\n", (None, None)),
        ("v1.0\n", (None, None)),
    ],
)
def test_without_git_a_file_names_the_commit_of_the_sources(text, commit, tmp_path, monkeypatch):
    module = tmp_path / "src" / "robustviews" / "__init__.py"
    monkeypatch.setattr("robustviews.artifacts.revision._PACKAGE", module.parent)
    (tmp_path / "COMMIT").write_text(text)
    assert artifacts.commit() == commit
