"""The graph of jobs of a study, and what Snakemake says before anything runs."""

from __future__ import annotations

import os
import re
import shutil
import sys
import time
from collections import Counter

import pytest
import yaml

from robustviews.study import folders, load_study
from robustviews.study.jobs import jobs
from tests.workflow.project import REPOSITORY, TINY, Project

SHIPPED = [REPOSITORY / "params.yaml", *sorted((REPOSITORY / "studies").glob("*.yaml"))]
# Every kind of job: the paper's, imported encoders, dense tasks, tuning.
PLANNED = (
    "params.yaml",
    "studies/cf-amc-ssl.yaml",
    "studies/ssl-robustness.yaml",
    "studies/ssl-robustness-demo.yaml",
)
NASTY = """a "study"; touch broken-1 $(touch broken-2) `touch broken-3` 'of' {mine} & more.yaml"""


def seeds_of(study, run):
    """Return the seeds of a run: its own, those of the last block it uses, or the study's."""
    options, defaults = study["runs"][run], study.get("defaults", {})
    blocks = [defaults.get(name, {}) for name in ("all", *options.get("use", []))]
    own = [block["seeds"] for block in (study, *blocks, options) if "seeds" in block]
    return own[-1] if own else [0]


def expected_jobs(path):
    """Count the jobs of a study from its YAML alone."""
    study = yaml.safe_load(path.read_text(encoding="utf-8"))
    tables, figures = study["tables"], study.get("figures", {})
    blocks = [*tables.values(), *figures.values()]
    trainings, heads, attacks, checked = set(), set(), set(), set()
    tuning = {
        name
        for name, probe in study["probes"].items()
        if probe["kind"] == "finetune" or probe.get("tuned")
    }
    datasets = {column.split("/")[0] for block in blocks for column in block["columns"]}
    for block in blocks:
        for column in block["columns"]:
            dataset, metric = column.partition(":")[0].split("/")[:2]
            attacked = metric not in ("clean", "minutes")
            if metric == "clean":
                others = [each.split("/") for each in block["columns"]]
                named = [each[1] for each in others if each[0] == dataset and len(each) == 3]
                metric = [*named, next(iter(study["attacks"]))][0]
            for row in block["rows"].values():
                run, probe = row["run"], row["probe"]
                for seed in seeds_of(study, run):
                    training = (run, row.get("pretrained_on", dataset), seed)
                    start = study["probes"].get(probe, {}).get("rle_start", "fresh")
                    trainings.add(training)
                    own = probe if probe in tuning else ""
                    checked |= {(*training, dataset, own)} if attacked else set()
                    heads |= {(*training, dataset, each) for each in (probe, start)}
                    if metric != "minutes":
                        parts = study["attacks"].get(metric, {}).get("of", [])
                        attacks |= {(*training, dataset, probe, each) for each in (metric, *parts)}
    return Counter(
        data=len(datasets | {dataset for _, dataset, _ in trainings}),
        pretrain=len(trainings),
        probe=len({head for head in heads if head[-1] not in ("own", "fresh", *tuning)}),
        tune=len({head for head in heads if head[-1] in tuning}),
        attack=len(attacks),
        sanity=len(checked),
        table=len(tables),
        figure=len(figures),
        **dict.fromkeys(("curves", "examples", "frame", "metrics", "report", "all"), 1),
    )


def planned_jobs(path):
    """Count the jobs of a study, and the rule that asks for all of them."""
    found = jobs(load_study(path)).values()
    return Counter(["all", *(job.snakemake_rule for job in found)])


COUNTED = [path for path in SHIPPED if not load_study(path).encoders]


@pytest.mark.parametrize("path", COUNTED, ids=lambda path: path.name)
def test_a_shipped_study_has_the_jobs_of_its_cells(path):
    assert planned_jobs(path) == expected_jobs(path)


@pytest.mark.parametrize("name", PLANNED)
def test_snakemake_plans_these_jobs_in_little_time_and_without_torch(name, tmp_path):
    path = REPOSITORY / name
    project = Project.create(tmp_path / "project", path)
    imported = yaml.safe_load(path.read_text(encoding="utf-8")).get("encoders") or {}
    started = time.monotonic()
    done = project.snakemake("--dry-run", forbidden="torch")
    assert time.monotonic() - started < 40  # seconds; 2 to 5 where nothing else runs
    assert {f"encoder {name}" for name in imported} == {
        job for job in done.jobs() if job.startswith("encoder ")
    }
    assert done.counts() == planned_jobs(path)


def test_a_table_alone_takes_the_jobs_of_its_cells(tmp_path):
    project = Project.create(tmp_path / "project")
    done = project.snakemake("--dry-run", "results/tiny/tables/accuracies.md")
    assert done.counts() == Counter(data=1, pretrain=3, probe=3, attack=3, sanity=3, table=1)


def test_a_broken_study_is_told_by_its_lines_and_nothing_runs(tmp_path):
    project = Project.create(tmp_path / "project")
    project.edit("params.yaml", "    epochs: 1\n", "    epochs: one\n")
    project.edit("params.yaml", "replays: 2", "repeats: 2")
    done = project.snakemake("--cores", "1")
    assert done.status != 0
    lines = TINY.read_text(encoding="utf-8").splitlines()
    epochs, regime = (
        1 + next(number for number, line in enumerate(lines) if text in line)
        for text in ("    epochs: 1", "replays: 2")
    )
    assert f"params.yaml:{epochs}: defaults.all.epochs: " in done.text
    assert f"params.yaml:{regime}: runs.emp-free.regime.repeats: unknown key" in done.text
    assert "2 mistakes found, nothing was run" in done.text
    assert "Traceback" not in done.text
    assert len(done.text.splitlines()) < 10
    assert not (project.folder / "results").exists()


def test_names_from_outside_run_no_command(tmp_path):
    project = Project.create(tmp_path / "project")
    shutil.move(project.folder / "params.yaml", project.folder / NASTY)
    before = {path.name for path in project.folder.iterdir()}
    data = folders.data_folder(load_study(TINY), "digits").name
    done = project.snakemake(f"data/{data}/record.json", study=NASTY, device="cpu; touch broken-4")
    assert done.jobs() == {f"data {data}"}
    assert (project.folder / "data" / data / "record.json").is_file()
    made = {path.name for path in project.folder.iterdir()} - before
    assert made == {".snakemake", "data", "logs"}


@pytest.mark.parametrize(("arguments", "gpus"), [([], 2), (["--resources", "gpu=1"], 1)])
def test_as_many_gpu_jobs_run_at_a_time_as_the_machine_has_gpus(arguments, gpus, tmp_path):
    project = Project.create(tmp_path / "project")
    program = tmp_path / "bin/nvidia-smi"
    program.parent.mkdir()
    listed = "".join(f"GPU {i}: Pretended (UUID: GPU-{i}{i})\n" for i in range(2))
    program.write_text(f"#!/bin/sh\nprintf '{listed}'\n", encoding="utf-8")
    program.chmod(0o755)
    path = f"PATH={program.parent}:{os.environ['PATH']}"
    snakemake = [sys.executable, "-m", "snakemake", "all_data", "--quiet", "reason", *arguments]
    found = project.run("env", path, *snakemake, "--config", "device=cuda").said()
    assert re.search(rf"Provided resources: gpu=\D*{gpus}\b", found)
