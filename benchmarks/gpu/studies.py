"""Parts c1-c4: the jobs of a study, by the functions of the verbs, with their records."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from benchmarks import speed
from benchmarks.gpu.report import Report
from benchmarks.gpu.runner import Setting, say
from robustviews import artifacts, cli, stages
from robustviews.attacks import AutoAttack
from robustviews.study import folders, load_study
from robustviews.study import jobs as plans
from robustviews.study.inputs import load_encoder, load_head, load_split
from robustviews.study.jobs import Job

ROOT = Path(__file__).parents[2]
HEADLINE = ROOT / "studies" / "headline.yaml"
SMALL = Path(__file__).with_name("small.yaml")
PUBLISHED_MINUTES = 97  # arXiv 2501.03507v1, Table 1: CF-AMC-SSL on one A6000
TF32_BAR = 0.0005  # 0.05 points of accuracy


class JobError(RuntimeError):
    """A verb refused its job; its message is on stderr."""


def pretraining(setting: Setting, report: Report) -> None:
    """c1: the data, and every pretraining; speed in crop-passes a second."""
    prepare(setting)
    study = load_study(setting.study)
    for job in _chosen(setting, "pretrain"):
        record = do(job, setting.study, setting, report)
        found = speed.of_training(study, job.name, record, str(setting.device))
        report.numbers[job.name] |= {key: found[key] for key in _SPEED}
        report.numbers[job.name]["ms_per_update"] = (
            1e3 * record["seconds"] / record["result"]["updates"]
        )
        if not setting.small:
            outcome, minutes = record["result"]["compilation"], record["seconds"] / 60
            report.hold("compiles", outcome, "compiled", met=outcome == "compiled")
            met = minutes < PUBLISHED_MINUTES
            report.hold("minutes", minutes, f"< {PUBLISHED_MINUTES}, published", met=met)


_SPEED = ("crop_passes", "crop_passes_per_second", "tflop_per_second", "share", "matrix")


def probes(setting: Setting, report: Report) -> None:
    """c2: every head, the robust ones first."""
    prepare(setting)
    for job in sorted(_chosen(setting, "probe"), key=lambda job: -job.arguments["probe"].steps):
        do(job, setting.study, setting, report)


def pgd(setting: Setting, report: Report) -> None:
    """c3: PGD on every head, robust ones first; then examples computed in TF32, scored in fp32."""
    prepare(setting)
    chosen = _attacks(setting, official=False)
    for job in chosen:
        do(job, setting.study, setting, report)
    if chosen:
        with report.trying("TF32"):
            crafted_in_tf32(chosen[0], setting, report)


def autoattack(setting: Setting, report: Report) -> None:
    """c4: AutoAttack, then the checks whether the attacks are established."""
    prepare(setting)
    for job in (*_attacks(setting, official=True), *_chosen(setting, "sanity")):
        do(job, setting.study, setting, report)


def prepare(setting: Setting) -> None:
    """Prepare the data that is not prepared yet."""
    waiting = plans.pending(load_study(setting.study))
    for job in _chosen(setting, "data"):
        if job.key in waiting:
            do(job, setting.study, setting)


def jobs(study: Path) -> list[Job]:
    """Return every job of a study that leaves a record, each after those it is made from."""
    return [job for job in plans.jobs(load_study(study)).values() if job.folder is not None]


def do(job: Job, study: Path, setting: Setting, report: Report | None = None) -> dict[str, Any]:
    """Run a job as its verb does, add its folder and result to a report, return its record.

    Raises:
        JobError: the verb refused it.
    """
    words = verb(job, study)
    status = cli.main([*words, "--study", str(study), "--device", str(setting.device)])
    if status:
        raise JobError(f"robustviews {' '.join(words)}: exit status {status}")
    record: dict[str, Any] = artifacts.read_json(job.record)
    if report is not None:
        assert job.folder is not None
        report.folders.append(job.folder)
        report.numbers[job.name] = {"seconds": record["seconds"], **record["result"]}
        say(f"{job.rule} {job.name}: {record['seconds']:.1f} s")
    return record


def verb(job: Job, study: Path) -> list[str]:
    """Return what to type after `robustviews` for a job, without study and device."""
    if job.rule == "data":
        loaded = load_study(study)
        (name,) = (name for name in loaded.datasets if plans.data_job(loaded, name) == job.key)
        return ["data", "--dataset", name]
    options = zip(("--run", "--probe", "--attack"), job.parts, strict=False)
    return [job.rule, *(word for option in options for word in option)]


def _chosen(setting: Setting, rule: str) -> list[Job]:
    """Return the jobs of a rule."""
    return [job for job in jobs(setting.study) if job.rule == rule]


def _attacks(setting: Setting, *, official: bool) -> list[Job]:
    """Return the attacks that are AutoAttack, or those that are not; robust heads first."""
    found = [
        job
        for job in _chosen(setting, "attack")
        if isinstance(job.arguments["attack"], AutoAttack) == official
    ]
    return sorted(found, key=lambda job: -job.arguments["probe"].steps)


def crafted_in_tf32(job: Job, setting: Setting, report: Report) -> None:
    """Attack as a job did, examples computed in TF32; compare accuracies with its flags."""
    split = load_split(job)
    attack = dataclasses.replace(job.arguments["attack"], craft_precision="tf32")
    assert job.folder is not None
    found = stages.attack(
        load_encoder(job),
        load_head(job),
        split.images,
        split.labels,
        classes=split.classes,
        size=split.size,
        **{**job.arguments, "attack": attack},
        device=setting.device,
    )
    exact = artifacts.read_tensors(job.folder / folders.FLAGS)
    for name in sorted(set(exact) - {"index", "labels"}):
        apart = abs(float(found[name].float().mean() - exact[name].float().mean()))
        report.at_most(f"TF32 against fp32, {name}", apart, TF32_BAR)
