"""Every verb that reads a damaged record names the record and the fix."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from robustviews import artifacts
from robustviews.artifacts import ArtifactError, records
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
    names = ("stage", "name", "study", "started")
    record = dict.fromkeys(names, "x") | {"seconds": 1}
    record |= {name: {} for name in ("spec", "inputs", "outputs", "code", "environment", "result")}
    assert records.broken(record) == ""
    del record[part]
    assert records.broken(record) == f"it lacks {part}"
    assert bool(records.broken(record, whole=False)) == (part == "inputs")
