"""dvc.yaml names every output of a study once, and every option that decides an output."""

from __future__ import annotations

import dataclasses
import re
from itertools import pairwise
from pathlib import Path

import pytest
import yaml

from robustviews.study import jobs, load_study
from robustviews.study.schema import Study

REPOSITORY = Path(__file__).parents[3]
STAGES = yaml.safe_load((REPOSITORY / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
STUDY = load_study(REPOSITORY / "params.yaml")


def paths(entries):
    """Return the paths of outputs or dependencies, with the study's name in them."""
    names = [next(iter(entry)) if isinstance(entry, dict) else entry for entry in entries]
    return [name.replace("${study}", STUDY.study) for name in names]


@pytest.mark.parametrize("job", jobs.jobs(STUDY).values(), ids=lambda job: "-".join(job.key))
def test_the_files_of_every_job_are_in_outputs_of_its_stage(job):
    stage = job.rule if job.rule in STAGES else "report"
    outs = [Path(path) for path in paths(STAGES[stage]["outs"])]
    for file in [job.folder] if job.folder else job.writes:
        assert [out for out in outs if file.is_relative_to(out)], f"{file} is no output of {stage}"


def test_no_stage_has_its_outputs_deleted_before_it_runs():
    outs = [out for stage in STAGES.values() for out in stage["outs"]]
    assert [out for out in outs if next(iter(out.values())).get("persist") is not True] == []


def test_every_stage_depends_on_sources_and_on_all_stages_before_it():
    before = ["src/robustviews", "workflow", "requirements.lock"]
    for stage in STAGES.values():
        assert paths(stage["deps"]) == before
        before += paths(stage["outs"])


def test_parameters_are_keys_of_the_study_and_later_stages_share_the_tables():
    params = yaml.safe_load((REPOSITORY / "params.yaml").read_text(encoding="utf-8"))
    known = {field.name for field in dataclasses.fields(Study)} | {"defaults"}
    named = [set(stage["params"]) for stage in STAGES.values()]
    assert set().union(*named) == known - {"study", "file"}
    assert set().union(*named) <= set(params)
    for earlier, later in pairwise(named):
        # What decides an input decides its bytes, and those are a dependency; rows of tables
        # decide at every stage which jobs there are.
        assert {"tables", "figures"} <= earlier & later


@pytest.mark.parametrize("name", ["cf-amc-ssl", "precision", "reference-code"])
def test_a_shipped_study_has_every_parameter_that_dvc_needs_in_params_yaml(name):
    text = (REPOSITORY / "studies" / f"{name}.yaml").read_text(encoding="utf-8")
    needed = set().union(*(stage["params"] for stage in STAGES.values()))
    assert needed - set(yaml.safe_load(text)) == set()


def test_a_stage_verifies_its_results_and_sets_no_number_of_cores():
    for name, stage in STAGES.items():
        assert re.fullmatch(rf"workflow/stage {name}( results/\S+)*", stage["cmd"])
    script = (REPOSITORY / "workflow" / "stage").read_text(encoding="utf-8")
    assert "--cores" not in script
    assert re.search(r"^snakemake .*\nfor .*\n(#.*\n)*robustviews verify ", script, re.M)


def test_a_stage_creates_the_folders_that_a_study_may_leave_empty():
    folder = f"results/{STUDY.study}"
    expected = {
        "data": [],
        "pretrain": [],
        "probe": [f"{folder}/probe"],
        "attack": [f"{folder}/attack"],
        "sanity": [f"{folder}/sanity"],
        "report": [f"{folder}/{name}" for name in ("tables", "figures", "training", "examples")],
    }
    assert {name: paths(stage["cmd"].split()[2:]) for name, stage in STAGES.items()} == expected
    for name, stage in STAGES.items():
        assert set(expected[name]) <= set(paths(stage["outs"]))
