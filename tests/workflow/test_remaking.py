"""The commands that `explain` prints make a cell again, to the last bit, and `diff` agrees."""

from __future__ import annotations

import shlex
import shutil

import pytest

from robustviews import artifacts
from robustviews.cli import main
from robustviews.study import cells, load_study

CELL = "accuracies:emp:digits/pgd2/8"
TABLE = "results/tiny/tables/accuracies.md"


@pytest.fixture
def project(finished, tmp_path, monkeypatch):
    copied = finished.copy(tmp_path / "project")
    monkeypatch.chdir(copied.folder)
    return copied


@pytest.fixture
def commands(project, capsys):  # noqa: ARG001  # it stands in the project's folder
    """What `explain` prints to be typed: with Snakemake, and by hand."""
    assert main(["explain", CELL]) == 0
    blocks = capsys.readouterr().out.split("\n\n")
    found = [block for block in blocks if block.startswith(("To make it again", "Or by hand"))]
    return [[shlex.split(line) for line in block.splitlines()[1:]] for block in found]


def chain(project):
    study = load_study(project.folder / "params.yaml")
    return cells.chain(study, cells.find(study, CELL)[1])


def written(project):
    """Return the hashes of what each job behind the cell wrote, but for curves with their times."""
    return {
        (job.key, name): artifacts.sha256(project.folder / job.folder / name)
        for job in chain(project)
        for name in artifacts.read_json(project.folder / job.folder / "record.json")["outputs"]
        if name != "training.jsonl"
    }


def accuracies(project):
    """Return the rows of the table but for their last column, which holds minutes."""
    lines = (project.folder / TABLE).read_text(encoding="utf-8").splitlines()
    return [line.rsplit("|", 2)[0] for line in lines if line.startswith("|")]


def test_by_hand_they_make_every_file_again_to_the_last_bit(project, finished, commands, capsys):
    before, table = written(project), accuracies(project)
    for job in chain(project):
        shutil.rmtree(project.folder / job.folder)
    (project.folder / TABLE).unlink()
    for line in commands[1]:
        assert line[0] == "robustviews"
        assert main(line[1:]) == 0
    assert len(before) == 5 + 5
    assert written(project) == before
    assert accuracies(project) == table
    capsys.readouterr()
    (last,) = (job.folder for job in chain(project) if job.rule == "attack")
    assert main(["diff", str(finished.folder / last), CELL]) == 0
    assert capsys.readouterr().out.startswith("No input that the records name differs\n")


def test_with_snakemake_they_run_the_chain_and_no_other_job(project, commands):
    before = written(project)
    first, second = commands[0]
    assert first[:2] == ["snakemake", "--forceall"]
    assert first[-2:] == second[-2:] == ["--config", "device=cpu"]  # as `project.snakemake` says
    done = project.snakemake(*first[1:-2])
    assert done.jobs() == {" ".join(job.key) for job in chain(project)}
    assert written(project) == before
    done = project.snakemake(*second[1:-2])
    assert done.status == 0, done.text
