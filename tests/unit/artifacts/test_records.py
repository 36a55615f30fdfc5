"""Every verb that reads a damaged record names the record and the fix."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from robustviews import artifacts
from robustviews.artifacts import ArtifactError, Record
from robustviews.artifacts.records import Code
from robustviews.provenance import locate
from robustviews.reporting import results
from robustviews.workflow import checkout
from tests.unit.results_tree import small_study, write_tree

FOLDER = Path("results/tiny/pretrain/simclr-pgd5-digits-s0")
RECORD = FOLDER / "record.json"
DAMAGES = [
    ("inputs", []),
    ("outputs", "text"),
    ("spec", []),
    ("code", [1]),
    ("environment", "text"),
    ("stage", 1),
    ("name", ["x"]),
    ("study", {}),
    ("seconds", "long"),
    ("seconds", True),
    ("result", []),
    ("environment", {"device": []}),
    ("code", {"commit": 7}),
]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished study; tests must not change it."""
    root = tmp_path_factory.mktemp("finished")
    write_tree(root, small_study())
    return root


@pytest.fixture
def project(finished, tmp_path, monkeypatch):
    """Work in a copy of the finished study."""
    monkeypatch.chdir(shutil.copytree(finished, tmp_path / "project"))


READERS = {
    "report": lambda: results.records(small_study()),
    "frame": lambda: results.frame(small_study()),
    "diff": lambda: locate.locate(str(FOLDER), small_study),
}


@pytest.mark.usefixtures("project")
def test_complete_records_are_accepted():
    for read in READERS.values():
        read()


@pytest.mark.usefixtures("project")
@pytest.mark.parametrize(("part", "value"), DAMAGES, ids=str)
def test_each_reader_names_a_damaged_record_and_the_fix(part, value):
    record = artifacts.read_json(RECORD)
    artifacts.write_json(RECORD, record | {part: value})
    for read in READERS.values():
        with pytest.raises(ArtifactError) as refused:
            read()
        assert f"{RECORD}: not a job record: expected " in str(refused.value)
        assert f"remove {FOLDER} and run" in str(refused.value).replace(f"{Path.cwd()}/", "")
    checkout.check(small_study())


@pytest.mark.usefixtures("project")
@pytest.mark.parametrize("content", [[], None, "text", 3])
def test_json_other_than_a_mapping_is_refused(content):
    artifacts.write_json(RECORD, content)
    for read in READERS.values():
        with pytest.raises(ArtifactError, match="expected a mapping, found"):
            read()
    checkout.check(small_study())


@pytest.mark.parametrize("part", ["inputs", "code", "seconds", "result"])
def test_a_record_must_have_all_sections_only_where_all_are_read(part):
    record = complete()
    Record.parse(record, "x")
    del record[part]
    with pytest.raises(ArtifactError, match=f"it lacks {part}"):
        Record.parse(record, "x")
    if part != "inputs":
        assert not getattr(Record.parse(record, "x", whole=False), part, None) or part == "code"


@pytest.mark.parametrize(
    "changes",
    [
        {"started": "yesterday"},
        {"started": 12},
        {"seconds": -1.0},
        {"seconds": float("nan")},
        {"seconds": "1"},
        {"resumed": "once"},
        {"resumed": -1},
        {"outputs": {"head.safetensors": 3}},
        {"seed": "0"},
    ],
    ids=str,
)
def test_impossible_values_are_refused(changes):
    with pytest.raises(ArtifactError, match=next(iter(changes))):
        Record.parse(complete() | changes, "x")


def test_a_record_reads_back_as_it_was_written(tmp_path):
    (tmp_path / "head.safetensors").write_bytes(b"weights")
    artifacts.write_record(
        tmp_path,
        stage="probe",
        name="run/rle",
        study="tiny",
        spec={"code": "abc", "seed": 3},
        inputs=[tmp_path / "head.safetensors"],
        environment={"device": "cpu"},
        started=artifacts.Start(clock=0.0),
        result={"loss": 1.0},
        seconds=2.0,
        code=("0123abc", False),
    )
    record = Record.read(tmp_path / "record.json")
    assert record.code == Code("abc", "0123abc", False)
    assert (record.seed, record.start, record.seconds, record.resumed) == (3, 0.0, 2.0, 0)
    assert record.outputs == {"head.safetensors": artifacts.sha256(tmp_path / "head.safetensors")}


def complete():
    """Return the JSON of a record with all sections."""
    names = ("stage", "name", "study")
    record = dict.fromkeys(names, "x") | {"seconds": 1, "seed": None}
    record |= {"started": "2026-01-01T00:00:00Z"}
    return record | {
        name: {} for name in ("spec", "inputs", "outputs", "code", "environment", "result")
    }
