"""The jobs of a study, what each of them needs, and which are not done yet.

These are the jobs of the workflow. No Snakemake is needed and no file is hashed: records are
trusted.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from robustviews.artifacts import ArtifactError, Record
from robustviews.study import claims, folders, networks, plan, specs
from robustviews.study.schema import Figure, Study, Table
from robustviews.study.specs import Spec

Key = tuple[str, str]  # (rule, name)

_METRICS = ("metrics.json", "headline.json")
_TABLE, _DRAWN = (".md", ".csv", ".tex"), (".svg", ".png")
REPORTING = ("frame", "metrics", "table", "figure", "curves", "examples", "report")
RULES = ("data", "encoder", "pretrain", "probe", "attack", "sanity", *REPORTING)


@dataclass(frozen=True)
class Job:
    """One job of the workflow.

    Attributes:
        rule: rule of the workflow, an entry of `RULES`.
        name: name of the job within its rule: a prepared data set, run, run/probe,
            run/probe/attack, encoder (`networks.examination`), table or figure; empty if the rule
            has one job.
        reads: each file that the job reads, with the job that writes the file.
        writes: files that the job writes; the record of a computing job comes last.
        spec: what decides the result; the record repeats it.
        arguments: options of the stage function; empty for reporting.
        folder: folder of a computing job and its record; None for reporting.
    """

    rule: str
    name: str
    reads: Mapping[Path, Key]
    writes: tuple[Path, ...]
    spec: Spec
    arguments: Mapping[str, Any] = field(default_factory=dict)
    folder: Path | None = None

    @property
    def key(self) -> Key:
        """Rule and name."""
        return self.rule, self.name

    @property
    def parts(self) -> list[str]:
        """Run, probe and attack that the name is made of."""
        return self.name.split("/")

    @property
    def snakemake_rule(self) -> str:
        """The rule of the Snakefile; probes that tune an encoder have one, for their outputs."""
        return "tune" if self.rule == "probe" and folders.ENCODER in self.outputs else self.rule

    @property
    def outputs(self) -> tuple[str, ...]:
        """The names of the files that a computing job writes besides its record."""
        return tuple(path.name for path in self.writes[:-1])

    @property
    def record(self) -> Path:
        """Where a computing job writes its record."""
        return self.writes[-1]

    @property
    def needs(self) -> tuple[Key, ...]:
        """Jobs that must finish before this one starts."""
        return tuple(dict.fromkeys(self.reads.values()))


@cache
def jobs(study: Study) -> dict[Key, Job]:
    """Return all jobs of a study; each job follows those it needs."""
    computing = {job.key: job for job in _computing(study)}
    return computing | {job.key: job for job in _reporting(study, computing)}


def pending(study: Study) -> dict[Key, Job]:
    """Return the jobs that are not done yet; each job follows those it needs.

    A job is done when the jobs it needs are done, its record has the current spec of the study, and
    its files exist. A reporting job has no record. It is done when its files exist and no job it
    needs finished later; changes of its title or code since then are not detected here.
    """
    waiting: dict[Key, Job] = {}
    all_jobs = jobs(study)
    for key, job in all_jobs.items():
        if any(need in waiting for need in job.needs) or not _is_done(job, all_jobs):
            waiting[key] = job
    return waiting


def data_job(study: Study, dataset: str) -> Key:
    """Return the job that prepares a data set."""
    return "data", folders.data_folder(study, dataset).name


def attack_of(cell: plan.Cell) -> str:
    """Return the name of the attack on the first seed of a cell."""
    return f"{cell.runs[0]}/{cell.probe}/{cell.attack}"


def _computing(study: Study) -> Iterator[Job]:
    runs, nets = plan.pretrainings(study), plan.networks(study)

    def job(rule: str, name: str, reads: dict[Path, Key]) -> Job:
        return Job(
            rule,
            name,
            reads,
            folders.job_files(study, rule, name),
            specs.spec(study, rule, name),
            specs.arguments(study, rule, name),
            folders.job_folder(study, rule, name),
        )

    for dataset in plan.datasets(study):
        yield job(*data_job(study, dataset), {})
    for name in plan.encoders(study):
        yield job("encoder", name, {})
    for run, pretraining in runs.items():
        yield job("pretrain", run, _split(study, pretraining.dataset, "train"))
    for run, probe in plan.heads(study):
        start = study.probes[probe].starts_from
        reads = _network(study, run, *([start] if start else []))
        yield job("probe", f"{run}/{probe}", reads | _split(study, nets[run].dataset, "train"))
    for run, probe, attack in plan.evaluations(study):
        reads = _parts(study, run, probe, attack) or _network(study, run, probe)
        reads |= _split(study, nets[run].dataset, "test")
        yield job("attack", f"{run}/{probe}/{attack}", reads)
    for name, probes in plan.attacked(study).items():
        run = networks.examined(name)
        reads = _network(study, run, *probes) | _split(study, nets[run].dataset, "test")
        yield job("sanity", name, reads)


def _network(study: Study, run: str, *heads: str) -> dict[Path, Key]:
    """Return the files of an encoder and of heads; a tuned encoder belongs to its only head."""
    network = plan.networks(study)[run]
    key, taught = network.encoder, network.taught.name
    encoder: dict[Path, Key] = {folders.job_folder(study, *key) / folders.ENCODER: key}
    files: dict[Path, Key] = {}
    for probe in filter(lambda name: study.probes[name].trained, heads):
        key = "probe", f"{taught}/{probe}"
        folder = folders.job_folder(study, *key)
        files[folder / folders.HEAD] = key
        if networks.tunes(study, probe):
            encoder = {folder / folders.ENCODER: key}
    return encoder | files


def _split(study: Study, dataset: str, split: str) -> dict[Path, Key]:
    """Return the files of a prepared split, with the job that writes them."""
    key = data_job(study, dataset)
    folder = folders.job_folder(study, *key)
    return {folder / name: key for name in folders.split_files(split)}


def _parts(study: Study, run: str, probe: str, attack: str) -> dict[Path, Key]:
    """Return the flags that a worst case combines, with their jobs; none for other attacks."""
    names = [f"{run}/{probe}/{part}" for part in plan.parts(study, attack)]
    return {folders.job_files(study, "attack", name)[0]: ("attack", name) for name in names}


def _reporting(study: Study, computing: dict[Key, Job]) -> Iterator[Job]:
    root = folders.results_folder(study)

    def job(rule: str, name: str, reads: dict[Path, Key], *files: str) -> Job:
        block = name if rule in ("table", "figure") else ""
        spec = specs.report_spec(study, block, rule=rule)
        return Job(rule, name, reads, tuple(root / file for file in files), spec)

    def written(keys: Iterable[Key]) -> dict[Path, Key]:
        return {file: key for key in keys for file in computing[key].writes}

    curves = {
        folders.job_folder(study, "pretrain", run) / folders.CURVE: ("pretrain", run)
        for run in plan.pretrainings(study)
    }
    viewed: dict[Path, Key] = {}
    if example := plan.example_run(study):
        viewed = _split(study, plan.pretrainings(study)[example].dataset, "train")
        key = "pretrain", example
        viewed[folders.job_folder(study, *key) / folders.ENCODER] = key
    pictured = plan.examples(study)
    attacked = {
        file: source
        for shown in pictured.values()
        for cell in shown
        for file, source in computing["attack", attack_of(cell)].reads.items()
    }
    cells = written(_cells(study))
    shown = [
        *(
            job("table", name, written(_cells(study, table)), *_named(f"tables/{name}", _TABLE))
            for name, table in study.tables.items()
        ),
        *(
            job("figure", name, written(_cells(study, figure)), *_named(f"figures/{name}", _DRAWN))
            for name, figure in study.figures.items()
        ),
        job("curves", "", curves, *(_named("training/curves", _DRAWN) if curves else ())),
        job(
            "examples",
            "",
            viewed | attacked,
            *(_named("examples/views", _DRAWN) if viewed else ()),
            *(file for task in pictured for file in _named(folders.pictures(task), _DRAWN)),
        ),
    ]
    yield job("frame", "", cells, "frame.csv")
    yield job("metrics", "", written(_cells(study, *claims.measured(study))), *_METRICS)
    yield from (one for one in shown if one.writes)
    pages = {file: source.key for source in shown for file in source.writes}
    yield job("report", "", cells | pages, "report.html", "audit.html")


def _named(stem: str, suffixes: tuple[str, ...]) -> list[str]:
    return [f"{stem}{suffix}" for suffix in suffixes]


def _cells(study: Study, *blocks: Table | Figure) -> tuple[Key, ...]:
    """Return the jobs whose results the cells of some tables and figures show; all by default."""
    nets = plan.networks_of(study, *blocks)
    needs: dict[Key, None] = {network.encoder: None for network in nets.values()}
    for run, probe, attack in plan.evaluations(study, *blocks):
        for name in (attack, *plan.weaker(study, run, probe, attack)):
            needs["attack", f"{run}/{probe}/{name}"] = None
        if study.probes[probe].trained:
            needs["probe", f"{nets[run].taught.name}/{probe}"] = None
    needs |= {("sanity", name): None for name in plan.attacked(study, *blocks)}
    return tuple(needs)


def _is_done(job: Job, all_jobs: dict[Key, Job]) -> bool:
    if job.folder is not None:
        if not job.record.is_file():
            return False
        try:
            record = Record.read(job.record, whole=False)
        except ArtifactError:  # damaged: the workflow reruns the job
            return False
        files = (*job.writes, *(job.folder / name for name in folders.further(job.folder)))
        return record.spec == job.spec and all(file.is_file() for file in files)
    if not all(file.is_file() for file in job.writes):
        return False
    written = min(file.stat().st_mtime for file in job.writes)
    return all(_finished(all_jobs[need]) <= written for need in job.needs)


def _finished(job: Job) -> float:
    """Return when a finished job ended, in seconds since the epoch."""
    files = job.writes if job.folder is None else (job.record,)
    return max(file.stat().st_mtime for file in files)
