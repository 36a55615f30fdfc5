"""Every file that the project reads back, damaged in many ways: no traceback, and a message."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path

import pytest

from robustviews import artifacts, cli
from robustviews.provenance.audit import audit
from robustviews.provenance.findings import State
from robustviews.study import load_study
from tests.unit.results_tree import small_study
from tests.workflow.project import TINY

VALUES = (None, [], {}, "x", -1, True, [None], {"a": None}, 10**400, 1e308, "\u202e<b>")
RUN = "emp-free3-digits-s1"
LOCK = b"schema: '2.0'\nstages:\n  data:\n    outs:\n    - path: data\n      md5: 0123.dir\n"
FILES = {
    "results/tiny/metrics.json": "metrics",
    "results/tiny/frame.csv": "frame",
    f"results/tiny/pretrain/{RUN}/record.json": "record",
    f"results/tiny/pretrain/{RUN}/training.jsonl": "bytes",
    "dvc.lock": "dvc",
    ".dvc/config": "",
}


@pytest.fixture
def project(root):
    """A copy of the project, which uses DVC."""
    (root / "dvc.lock").write_bytes(LOCK)
    (root / ".dvc").mkdir()
    (root / ".dvc/config").write_text("[cache]\n    dir = ../cache\n")
    return root


def mutants(data, chance):
    """Yield what a power cut, another program or a stranger makes of a file."""
    yield from (b"", data[: len(data) // 2], b"\xff" + data, b"null", b"[]", b"NaN", 10**5 * b"[")
    try:
        json.loads(data)
    except ValueError:
        for _ in range(8):
            place = chance.randrange(len(data))
            yield data[:place] + chance.choice([b"{", b"\0", b"*a", b"!!x ", b"\t"]) + data[place:]
        return
    for _ in range(12):
        changed = json.loads(data)
        inner, key = changed, chance.choice(sorted(changed))
        while isinstance(inner[key], dict) and inner[key] and chance.random() < 0.7:
            inner, key = inner[key], chance.choice(sorted(inner[key]))
        inner[key] = chance.choice([*VALUES, float("nan")])
        yield json.dumps(changed).encode()


@pytest.mark.slow
@pytest.mark.parametrize("name", FILES)
def test_the_audit_of_a_damaged_file_names_it(name, project):
    path, chance = project / name, random.Random(name)
    before = path.read_bytes()
    for content in mutants(before, chance):
        path.write_bytes(content)
        try:
            findings = audit(small_study(), project).all_findings()
        except artifacts.ArtifactError as error:
            assert Path(name).name in str(error)  # noqa: PT017  # a message for users
            continue
        bad = [finding for finding in findings if finding.state is State.FAILED]
        if FILES[name] and content != before and FILES[name] != "dvc":
            parent = Path(name).parent.as_posix()
            named = [one for one in bad if name in str(one) or parent in str(one)]
            assert named, f"{name}: {content[:80]!r} is not reported"


@pytest.mark.slow
@pytest.mark.parametrize("verb", ["report", "frame", "metrics", "curves", "summary", "check"])
def test_a_verb_on_damaged_files_ends_with_a_message(verb, project, monkeypatch, capsys):
    shutil.copy(TINY, project / "params.yaml")
    monkeypatch.chdir(project)
    chance = random.Random(verb)
    study = load_study("params.yaml")
    summaries = [path.relative_to(project) for path in project.glob("data/*/summary.json")]
    assert study.datasets
    assert summaries
    for name in (*FILES, *summaries):
        before = Path(name).read_bytes()
        for content in list(mutants(before, chance))[::3]:
            Path(name).write_bytes(content)
            words = ["params.yaml"] if verb == "check" else ["--partial"]
            assert cli.main([verb, *words]) in (0, 2)
            assert "Traceback" not in capsys.readouterr().err
        Path(name).write_bytes(before)
