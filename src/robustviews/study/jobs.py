"""Which jobs a study consists of, what each waits for, and which are still to be done.

The same jobs as the workflow's, without Snakemake and without hashing a file: records are trusted.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from robustviews import artifacts
from robustviews.artifacts import ArtifactError
from robustviews.study import folders, plan, specs
from robustviews.study.schema import Figure, Study, Table
from robustviews.study.specs import Spec

Key = tuple[str, str]  # (rule, name)

REPORTING = ("frame", "metrics", "table", "figure", "curves", "examples", "report")
RULES = ("data", "pretrain", "probe", "attack", *REPORTING)


@dataclass(frozen=True)
class Job:
    """One job of the workflow.

    Attributes:
        rule: of the workflow, an entry of `RULES`.
        name: of the job among those of its rule: a data set, run, run/probe, run/probe/attack,
            table or figure; empty where a rule has one job.
        needs: jobs that come before it.
        folder: where a job that leaves a record leaves it; None for reporting.
        spec: what its record must say; None for reporting.
        outputs: files of a reporting job, which leaves no record.
    """

    rule: str
    name: str
    needs: tuple[Key, ...] = ()
    folder: Path | None = None
    spec: Spec | None = None
    outputs: tuple[Path, ...] = ()

    @property
    def key(self) -> Key:
        """Rule and name."""
        return self.rule, self.name

    @property
    def parts(self) -> list[str]:
        """Run, probe and attack that the name is made of."""
        return self.name.split("/")


@cache
def jobs(study: Study) -> dict[Key, Job]:
    """Return all jobs of a study; each comes after those that it needs."""
    return {job.key: job for job in (*_computing(study), *_reporting(study))}


def pending(study: Study) -> dict[Key, Job]:
    """Return the jobs that are still to be done, each after those that it needs.

    A job is done when all that it needs is done, its record has the spec that the study resolves to
    now, and the files that the record names exist. A reporting job, which has no record, is done
    when its files exist and none of what it needs was made later; that its title or code changed
    since is not seen here.
    """
    waiting: dict[Key, Job] = {}
    every = jobs(study)
    for key, job in every.items():
        if any(need in waiting for need in job.needs) or not _is_done(job, every):
            waiting[key] = job
    return waiting


def data_job(study: Study, dataset: str) -> Key:
    """Return the job that prepares a data set."""
    return "data", folders.data_folder(study, dataset).name


def _computing(study: Study) -> Iterator[Job]:
    runs = plan.jobs(study)
    for dataset in dict.fromkeys(job.dataset for job in runs.values()):
        folder = folders.data_folder(study, dataset)
        yield Job("data", folder.name, (), folder, specs.data_spec(study, dataset))
    for name, job in runs.items():
        needs: tuple[Key, ...] = (data_job(study, job.dataset),)
        spec = specs.pretrain_spec(study, name)
        yield Job("pretrain", name, needs, folders.pretrain_folder(study, name), spec)
    heads = set(plan.heads(study))
    for run, probe in plan.heads(study):
        start = plan.head_start(study, probe)
        needs = (("pretrain", run), data_job(study, runs[run].dataset))
        if start:
            needs += (("probe", f"{run}/{start}"),)
        spec = specs.probe_spec(study, run, probe)
        yield Job("probe", f"{run}/{probe}", needs, folders.probe_folder(study, run, probe), spec)
    for run, probe, attack in plan.evaluations(study):
        needs = (("pretrain", run), data_job(study, runs[run].dataset))
        if (run, probe) in heads:
            needs += (("probe", f"{run}/{probe}"),)
        folder = folders.attack_folder(study, run, probe, attack)
        spec = specs.attack_spec(study, run, probe, attack)
        yield Job("attack", f"{run}/{probe}/{attack}", needs, folder, spec)


def _reporting(study: Study) -> Iterator[Job]:
    root = folders.results_folder(study)

    def files(*stems: str, kinds: tuple[str, ...]) -> tuple[Path, ...]:
        return tuple(root / f"{stem}.{kind}" for stem in stems for kind in kinds)

    drawn, example = ("svg", "png"), plan.example_run(study)
    yield Job("frame", "", _cells(study), outputs=files("frame", kinds=("csv",)))
    wanted = _cells(study, *study.tables.values())
    yield Job("metrics", "", wanted, outputs=files("metrics", kinds=("json",)))
    for name, table in study.tables.items():
        made = files(f"tables/{name}", kinds=("md", "csv", "tex"))
        yield Job("table", name, _cells(study, table), outputs=made)
    for name, figure in study.figures.items():
        made = files(f"figures/{name}", kinds=drawn)
        yield Job("figure", name, _cells(study, figure), outputs=made)
    trained = tuple(("pretrain", name) for name in plan.jobs(study))
    yield Job("curves", "", trained, outputs=files("training/curves", kinds=drawn))
    seen = (("pretrain", example), data_job(study, plan.jobs(study)[example].dataset))
    yield Job("examples", "", seen, outputs=files("examples/views", kinds=drawn))
    parts = (
        *(("table", name) for name in study.tables),
        *(("figure", name) for name in study.figures),
        ("curves", ""),
        ("examples", ""),
    )
    needs = (*_cells(study), *parts)
    yield Job("report", "", needs, outputs=files("report", "audit", kinds=("html",)))


def _cells(study: Study, *blocks: Table | Figure) -> tuple[Key, ...]:
    """Return the jobs that the cells of tables and figures are read from; of all without any."""
    needs: dict[Key, None] = {("pretrain", run): None for run in plan.pretrainings(study, *blocks)}
    heads = set(plan.heads(study))
    for run, probe, attack in plan.evaluations(study, *blocks):
        needs["attack", f"{run}/{probe}/{attack}"] = None
        if (run, probe) in heads:
            needs["probe", f"{run}/{probe}"] = None
    return tuple(needs)


def _is_done(job: Job, every: dict[Key, Job]) -> bool:
    if job.folder is not None:
        record = job.folder / "record.json"
        if not record.is_file():
            return False
        try:
            said = artifacts.read_json(record)
        except ArtifactError:  # damaged: the workflow makes it again
            return False
        if not isinstance(said, dict) or said.get("spec") != job.spec:
            return False
        return all((job.folder / name).is_file() for name in said.get("outputs", ()))
    if not all(file.is_file() for file in job.outputs):
        return False
    made = min(file.stat().st_mtime for file in job.outputs)
    return all(_made(every[need]) <= made for need in job.needs)


def _made(job: Job) -> float:
    """Return when a finished job ended, in seconds since the epoch."""
    files = job.outputs if job.folder is None else (job.folder / "record.json",)
    return max(file.stat().st_mtime for file in files)


# What a job of each rule leaves beside its record.
OUTPUTS = {
    "data": (
        "summary.json",
        "test_images.npy",
        "test_labels.npy",
        "train_images.npy",
        "train_labels.npy",
    ),
    "pretrain": ("encoder.safetensors", "training.jsonl"),
    "probe": ("head.safetensors", "training.jsonl"),
    "attack": ("flags.safetensors",),
}
