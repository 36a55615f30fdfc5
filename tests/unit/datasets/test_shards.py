"""Shards: the same pixels whatever the files, processes and interruptions; pictures kept whole."""

from __future__ import annotations

import json
import multiprocessing
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from robustviews.artifacts import array_again, read_json
from robustviews.cli import main
from robustviews.datasets import DataError, Folder, open_split, shards, splits
from robustviews.datasets.framing import centre

COUNT, SHARD = 11, 2
STUDY = """\
study: large
title: A large folder
datasets:
  pictures: {kind: folder, root: SOURCE, size: 16, OPTIONS}
runs:
  run:
    {method: simclr, views: {count: 2}, regime: standard, datasets: [pictures], epochs: 1,
     batch_size: 4}
probes:
  linear: {kind: linear}
attacks:
  pgd: {kind: pgd, eps: [8]}
tables:
  all: {title: All, columns: [pictures/clean], rows: {run: {run: run, probe: linear}}}
"""
# Prints a line per shard; the second picture of each shard takes a while, so that it can be killed.
SLOW = """\
import logging, sys
from pathlib import Path
from tests.unit.datasets import test_shards
if __name__ == "__main__":
    logging.basicConfig(level="INFO", format="%(message)s", stream=sys.stdout)
    test_shards.fill(Path(sys.argv[1]), Path(sys.argv[2]), frame=test_shards.slow)
"""


def slow(image, size):
    time.sleep(0.2)
    return centre(image, size)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A folder of two classes in two splits, with a red border around each picture."""
    root, rng = tmp_path_factory.mktemp("source"), np.random.default_rng(0)
    for split in ("train", "val"):
        for name in ("a", "b"):
            (root / split / name).mkdir(parents=True)
            for number in range(COUNT):
                pixels = rng.integers(0, 256, (40, 64, 3), dtype=np.uint8)
                pixels[:, :9] = pixels[:, -9:] = 255, 0, 0
                Image.fromarray(pixels).save(root / split / name / f"{number}.png")
    return root


def fill(source, into, *, frame=centre, processes=1, shard=SHARD):
    into.mkdir(exist_ok=True)
    files = sorted((source / "train/a").iterdir())
    return shards.fill(
        lambda name, shape, dtype: array_again(into / f"{name}.npy", shape, dtype),
        "train",
        files,
        np.arange(len(files), dtype=np.int64),
        folder=source,
        size=16,
        frame=frame,
        shard=shard,
        processes=processes,
    )


def content(folder):
    return {path.name: path.read_bytes() for path in folder.glob("*.npy")}


def journal(folder):
    lines = (folder / ".train_images.journal").read_text().splitlines()
    return [json.loads(line)["number"] for line in lines if line.endswith("}")]


def test_processes_change_no_byte_and_shards_no_pixel(source, tmp_path):
    results = [fill(source, tmp_path / str(n), processes=n) for n in (1, 2)]
    assert results[0] == results[1]
    assert content(tmp_path / "1") == content(tmp_path / "2")
    assert len(journal(tmp_path / "2")) == 6
    fill(source, tmp_path / "whole", shard=None)
    assert set(content(tmp_path / "whole")) == {"train_images.npy", "train_labels.npy"}
    fill(source, tmp_path / "one", shard=COUNT)
    assert content(tmp_path / "whole") == content(tmp_path / "one")
    many, one = (open_split(tmp_path / name, "train") for name in ("1", "whole"))
    assert np.array_equal(many[0][:], one[0])
    assert np.array_equal(many[1], one[1])


def test_a_split_that_does_not_fit_a_file_is_decoded_into_several(source, tmp_path, monkeypatch):
    monkeypatch.setattr(splits, "FILE_BYTES", 4 * 3 * 16**2 + 5)
    fill(source, tmp_path / "many", shard=None, processes=2)
    lengths = [len(np.load(path)) for path in sorted((tmp_path / "many").glob("*_images*.npy"))]
    assert lengths == [4, 3, 4]  # -00001, -00002, and the first file without a number
    assert np.load(tmp_path / "many/train_images-00002.npy").shape == (3, 3, 16, 16)


def test_a_killed_preparation_resumes_and_leaves_no_process(source, tmp_path):
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    (tmp_path / "slow.py").write_text(SLOW)
    command = [sys.executable, tmp_path / "slow.py", source, tmp_path / "killed"]
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        lines = [process.stdout.readline() for _ in range(2)]
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        workers = children.read_text().split() if children.is_file() else []
        os.kill(process.pid, signal.SIGKILL)
        for _ in range(100):
            if not any(Path(f"/proc/{worker}").exists() for worker in workers):
                break
            time.sleep(0.1)
        else:
            os.killpg(process.pid, signal.SIGKILL)
            pytest.fail("a worker outlives its parent")
    assert lines == ["split=train images=2/11\n", "split=train images=4/11\n"]
    finished = journal(tmp_path / "killed")
    assert 2 <= len(finished) < 6
    whole = fill(source, tmp_path / "whole")
    assert fill(source, tmp_path / "killed") == whole
    assert content(tmp_path / "killed") == content(tmp_path / "whole")
    assert len(journal(tmp_path / "killed")) == 6, "finished shards were decoded again"


@pytest.mark.parametrize("what", ["rows", "file", "journal"])
def test_a_shard_that_changed_since_the_interruption_is_decoded_again(what, source, tmp_path):
    files = sorted((source / "train/a").iterdir())
    fill(source, tmp_path / "x")
    before = content(tmp_path / "x")
    if what == "rows":
        np.load(tmp_path / "x/train_images-00001.npy", mmap_mode="r+")[1] = 0
    if what == "file":
        os.utime(files[3], ns=(1, 1))
    if what == "journal":
        lines = (tmp_path / "x/.train_images.journal").read_text()
        (tmp_path / "x/.train_images.journal").write_text(lines[:-9])
    fill(source, tmp_path / "x")
    assert content(tmp_path / "x") == before
    assert sorted(set(journal(tmp_path / "x"))) == [0, 1, 2, 3, 4, 5]
    assert len(journal(tmp_path / "x")) == (6 if what == "journal" else 7)


def test_damaged_files_are_listed_at_the_end_and_the_other_shards_are_kept(source, tmp_path):
    copy = tmp_path / "source/train/a"
    copy.mkdir(parents=True)
    for path in (source / "train/a").iterdir():
        (copy / path.name).write_bytes(b"" if path.stem in "35" else path.read_bytes())
    with pytest.raises(DataError, match=r"(?s)3\.png: damaged.*5\.png: damaged"):
        fill(tmp_path / "source", tmp_path / "x", processes=2)
    assert len(journal(tmp_path / "x")) == 4


def test_a_whole_picture_is_stored_for_crops_and_the_central_square_for_the_test(source):
    arrays = {}

    def create(name, shape, dtype):
        arrays[name] = np.empty(shape, dtype)
        return arrays[name]

    Folder(str(source), size=16, store="resize").prepare(create)
    picture = Image.open(source / "train/a/0.png").resize((16, 16), Image.Resampling.BILINEAR)
    assert np.array_equal(arrays["train_images"][0].transpose(1, 2, 0), np.asarray(picture))
    red = np.array([255, 0, 0])[:, None]
    assert (arrays["train_images"][..., 0] == red).all()
    assert not (arrays["test_images"][..., 0] == red).all()


def test_the_verb_data_resumes_and_writes_the_bytes_of_a_single_process(
    source, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    for name, options in (("one", "test: val"), ("many", "shard_images: 3")):
        text = STUDY.replace("SOURCE", str(source)).replace("OPTIONS", options)
        Path(f"{name}.yaml").write_text(text)
    damaged = source / "val/b/9.png"
    whole = damaged.read_bytes()
    damaged.write_bytes(b"")
    assert main(["data", "--study", "many.yaml", "--dataset", "pictures"]) != 0
    (partial,) = Path("data").glob(".*.partial")
    assert (partial / ".train_images.journal").is_file()
    damaged.write_bytes(whole)
    assert main(["data", "--study", "many.yaml", "--dataset", "pictures"]) == 0
    assert not partial.exists()
    (many,) = Path("data").glob("pictures-*")
    assert main(["data", "--study", "one.yaml", "--dataset", "pictures"]) == 0
    (one,) = set(Path("data").glob("pictures-*")) - {many}
    assert not [path for path in many.iterdir() if path.name.startswith(".")]
    for split in ("train", "test"):
        for ours, theirs in zip(open_split(many, split), open_split(one, split), strict=True):
            assert np.array_equal(ours[:], theirs)
    further = {f"{split}_images-{n:05}.npy" for split in ("train", "test") for n in range(1, 8)}
    assert set(read_json(many / "summary.json")["further"]) == further
    assert further < set(read_json(many / "record.json")["outputs"])
    assert "further" not in read_json(one / "summary.json")


@pytest.mark.slow
def test_files_of_images_that_are_no_longer_there_are_removed(source, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    copy = shutil.copytree(source, tmp_path / "copy")
    text = STUDY.replace("SOURCE", str(copy)).replace("OPTIONS", "shard_images: 3")
    Path("params.yaml").write_text(text)
    names = []
    for _ in range(2):
        assert main(["data", "--dataset", "pictures"]) == 0
        (made,) = Path("data").glob("pictures-*")
        names.append({path.name for path in made.glob("train_images*.npy")})
        for number in range(4, COUNT):
            (copy / f"train/a/{number}.png").unlink(missing_ok=True)
    assert [len(one) for one in names] == [8, 5]
    assert len(open_split(made, "train")[0]) == COUNT + 4


def test_a_process_holds_few_images_of_a_shard(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "picture.png")
    peaks = []
    for count in (64, 960):  # 10 and 144 MB
        path = tmp_path / f"{count}.npy"
        array_again(path, (count, 3, 224, 224), np.uint8)
        work = shards.Work(0, path, (tmp_path / "picture.png",) * count, tmp_path, centre)
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
            pool.submit(shards._decode, work).result()
            peaks.append(pool.submit(peak).result())
    assert peaks[1] - peaks[0] < 40e6, peaks


def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (
        1024 if sys.platform == "linux" else 1
    )
