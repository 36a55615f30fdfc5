"""The study through the Slurm profile: devices are not shared, and what is interrupted goes on."""

from __future__ import annotations

import itertools
import re
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from ci.cluster.slurm import GPUS
from robustviews import artifacts
from tests.workflow.project import Project

HERE = Path(__file__).parent
PROFILE = "workflow/profiles/slurm"
CPU = ("device=cpu", "gpus=1")  # jobs ask for a GPU, get one that is pretended, and do without
CANCELLED, PREEMPTED, LEFT = "emp-free-digits-s0", "emp-free-digits-s1", "supervised-std-digits-s0"
# What goes before asks for both GPUs, so that Slurm has no choice whom to end.
DISTURBANCES = {
    CANCELLED: "scancel {job}",
    PREEMPTED: "sbatch --partition=urgent --gpus=2 --output=/dev/null --wrap=true",
}
TABLE = "results/cluster/tables/accuracies.md"
PATIENCE = 400  # seconds that a run of the workflow may take
MINUTE = 60


@dataclass(frozen=True)
class Run:
    """A finished run of the workflow.

    Attributes:
        project: where it ran.
        text: that Snakemake wrote.
        asked: what Slurm said of the job of each training before it was disturbed.
        preempted: what it said afterwards of the one that was preempted.
        steps: of the jobs.
    """

    project: Project
    text: str
    asked: dict
    preempted: str
    steps: list


@dataclass(frozen=True)
class Several:
    """A run of the workflow in which one training failed, and when that was noticed."""

    project: Project
    text: str
    noticed: float
    steps: list


@contextmanager
def snakemake(project, *arguments, study="params.yaml"):
    """Run the workflow through the profile; its output is a file, which can be watched."""
    output = project.folder / f"{Path(study).stem}.output"
    config = [*CPU, f"study={study}"]
    command = [sys.executable, "-m", "snakemake", "--workflow-profile", PROFILE, *arguments]
    with output.open("w") as file:
        process = subprocess.Popen(
            [*command, "--config", *config],
            cwd=project.folder,
            env=project.environment(),
            stdout=file,
            stderr=file,
        )
    try:
        yield process, output
    finally:
        process.kill()
        process.wait()


def until(found, process, output, what):
    """Return what a look finds as soon as it finds something."""
    deadline = time.monotonic() + PATIENCE
    while not (seen := found()):
        assert process.poll() is None, f"ended before {what}:\n{output.read_text()}"
        assert time.monotonic() < deadline, f"no {what} yet:\n{output.read_text()}"
        time.sleep(0.05)
    return seen


def training(slurm, project, run):
    """Return the job of a training that runs and has saved a state, or None."""
    if not list(project.folder.glob(f"results/.state/cluster/{run}-*/state-*.safetensors")):
        return None
    jobs = slurm.run("squeue", "--noheader", "--states=RUNNING", "--format=%i %k").splitlines()
    found = [job.split()[0] for job in jobs if job.endswith(f"rule_pretrain_wildcards_{run}")]
    return found[0] if found else None


@pytest.fixture(scope="module")
def disturbed(slurm, tmp_path_factory):
    """The study, of which one training was cancelled and another one preempted."""
    project = Project.create(tmp_path_factory.mktemp("cluster") / "project", HERE / "study.yaml")
    more = ["--slurm-init-seconds-before-status-checks=2", "--latency-wait=20"]
    more += ["--default-resources", "slurm_partition=main"]
    asked, jobs = {}, {}

    def disturb():
        for run in DISTURBANCES.keys() - jobs.keys():
            if job := training(slurm, project, run):
                asked[run] = slurm.run("scontrol", "show", "job", job)
                slurm.run(*DISTURBANCES[run].format(job=job).split())
                jobs[run] = job
        return DISTURBANCES.keys() == jobs.keys()

    project.snakemake("all_data").said()
    with snakemake(project, "all_pretrain", TABLE, *more) as (process, output):
        until(disturb, process, output, "disturbance")
        process.wait(PATIENCE)
    text = output.read_text()
    assert process.returncode == 0, text
    preempted = slurm.run("scontrol", "show", "job", jobs[PREEMPTED])
    return Run(project, text, asked, preempted, slurm.steps())


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The same trainings without Slurm and without a disturbance."""
    folder = tmp_path_factory.mktemp("alone") / "project"
    project = Project.create(folder, HERE / "study.yaml")
    project.robustviews("data", "--dataset", "digits").said()
    for run in (CANCELLED, PREEMPTED):
        project.robustviews("pretrain", "--run", run).said()
    return project


def jobs_of(text, run):
    """Return the Slurm jobs that a training was submitted as."""
    return re.findall(rf"SLURM jobid (\d+) \(log: \S+/rule_pretrain/{run}/", text)


def test_two_trainings_never_share_a_gpu_and_both_gpus_are_used_at_once(disturbed):
    runs = (CANCELLED, PREEMPTED, LEFT)
    trainings = {job for run in runs for job in jobs_of(disturbed.text, run)}
    steps = [step for step in disturbed.steps if step.job in trainings]
    assert len(steps) >= 5, steps  # two of them in two parts
    assert {step.devices for step in steps} == set(GPUS)
    pairs = [
        (one, other)
        for one, other in itertools.combinations(steps, 2)
        if one.began < other.ended and other.began < one.ended
    ]
    assert pairs, "no two trainings ran at the same time"
    assert all(one.devices != other.devices for one, other in pairs), pairs


def test_the_preempted_training_was_ended_by_slurm_which_queued_it_again(disturbed):
    assert "Restarts=0" in disturbed.asked[PREEMPTED]
    assert "Restarts=1" in disturbed.preempted
    assert "JobState=COMPLETED" in disturbed.preempted


@pytest.mark.parametrize(("run", "tries"), [(CANCELLED, 2), (PREEMPTED, 1)])
def test_a_disturbed_training_goes_on_and_ends_with_the_bytes_of_one_left_alone(
    disturbed, undisturbed, run, tries
):
    folder = Path("results") / "cluster" / "pretrain" / run
    ended, expected = (each.folder / folder for each in (disturbed.project, undisturbed))
    record = artifacts.read_json(ended / "record.json")
    assert record["resumed"] >= 1  # one that was cancelled may be preempted beside the other
    assert len(jobs_of(disturbed.text, run)) == tries  # Slurm itself requeues: the same job again
    name = "encoder.safetensors"
    assert (ended / name).read_bytes() == (expected / name).read_bytes()
    kept = ("epoch", "loss", "lr")
    ours, theirs = (
        [[row[key] for key in kept] for row in artifacts.read_jsonl(each / "training.jsonl")]
        for each in (ended, expected)
    )
    assert ours == theirs


def test_what_comes_after_the_trainings_is_made_too(disturbed):
    assert (disturbed.project.folder / TABLE).is_file()
    assert not list(disturbed.project.folder.glob("results/.state/cluster/*"))


@pytest.mark.parametrize("run", [CANCELLED, PREEMPTED])
def test_slurm_is_asked_for_what_the_study_needs(disturbed, run):
    said = disturbed.asked[run]
    assert "TimeLimit=00:40:00" in said
    assert "TRES=cpu=1,mem=2500M,node=1," in said
    assert "TresPerJob=gres:gpu:1" in said
    assert "Requeue=1" in said


@pytest.fixture(scope="module")
def several(disturbed, slurm):
    """Trainings by two processes, of which one fails, as often looked at as the profile says."""
    project = disturbed.project
    (project.folder / "several.yaml").write_bytes((HERE / "several.yaml").read_bytes())
    before = len(slurm.steps())
    with snakemake(project, "--retries=0", "all_pretrain", study="several.yaml") as run:
        process, output = run
        until(lambda: "Error in rule" in output.read_text(), process, output, "error")
        noticed = time.time()
        process.wait(PATIENCE)
    assert process.returncode == 1, output.read_text()
    return Several(project, output.read_text(), noticed, slurm.steps()[before:])


def test_a_failed_job_is_noticed_within_a_minute_and_named_with_its_log(several):
    failed = jobs_of(several.text, "hasty-digits-s0")
    ended = [step.ended for step in several.steps if [step.job] == failed]
    assert len(ended) == 1
    assert 0 <= several.noticed - ended[0] < MINUTE
    assert several.text.count(f"external_jobid: {failed[0]}\n") == 1
    assert "logs/several/pretrain/hasty-digits-s0.log" in several.text
    assert "hasty-digits-s0: the loss is nan after pass 1; lower optimizer.lr" in several.text


def test_a_training_by_two_processes_gets_two_gpus_and_ends_beside_one_that_fails(several):
    assert [step.devices for step in several.steps] == [",".join(GPUS)] * 2
    folder = several.project.folder / "results" / "several" / "pretrain"
    record = artifacts.read_json(folder / "together-digits-s0" / "record.json")
    assert record["environment"]["ranks"] == 2
    assert not (folder / "hasty-digits-s0").exists()
