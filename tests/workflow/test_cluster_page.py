"""The commands of docs/cluster.md, of which Snakemake must understand every word."""

from __future__ import annotations

import re
import shlex
import sys
from collections import Counter

import pytest

from tests.workflow.project import REPOSITORY, Project

PAGE = (REPOSITORY / "docs" / "cluster.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", PAGE, re.M | re.S)  # language, text
TYPED = "".join(text for language, text in BLOCKS if not language).replace("\\\n", " ")
LINES = [shlex.split(line, comments=True) for line in TYPED.splitlines()]
# In an image nothing is planned without Apptainer.
COMMANDS = [line[1:] for line in LINES if line[:1] == ["snakemake"] and "apptainer" not in line]
FLAGS = [word for line in LINES if line and line[0].startswith("--") for word in line]
TABLE = "results/cf-amc-ssl/tables/table1.md"


@pytest.fixture(scope="module")
def paper(tmp_path_factory):
    """A checkout with one seed of the paper's study as params.yaml, of which nothing was run."""
    folder = tmp_path_factory.mktemp("paper") / "project"
    project = Project.create(folder, REPOSITORY / "studies" / "cf-amc-ssl.yaml")
    for seeds in ("seeds: [0, 1, 2, 3, 4]", "seeds: [0, 1, 2]"):
        project.edit("params.yaml", seeds, "seeds: [0]")  # which is planned in less time
    return project


def planned(project, words):
    """Return what a command would run."""
    return project.run(sys.executable, "-m", "snakemake", *words, "--dry-run")


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_a_command_plans_the_study_or_what_the_table_needs(paper, words):
    done = planned(paper, words)
    done.said()
    if "--until" in words:
        assert done.counts() == Counter(data=2)
    elif TABLE in words:
        assert done.counts()["pretrain"] == 20
        assert "imagenet" not in done.text.partition("Building DAG")[2]
    else:
        assert done.counts()["pretrain"] == 64


def test_every_flag_that_may_be_added_is_known(paper):
    assert len(FLAGS) > 10
    done = planned(paper, ["--workflow-profile", "workflow/profiles/slurm", *FLAGS])
    assert done.counts()["pretrain"] == 64, done.text
