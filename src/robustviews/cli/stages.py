"""Verbs that run the workflow's stages: data, pretrain, probe, attack, sanity."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from robustviews import artifacts, stages
from robustviews.attacks import WorstOf, flag_name
from robustviews.attacks.worst_case import combine
from robustviews.cli.names import known
from robustviews.cli.working import Work, computation, set_up, working
from robustviews.datasets import DataError, equal_images, shards
from robustviews.study import Study, enough, folders, load_study, specs
from robustviews.study.inputs import (
    Split,
    completed_arguments,
    fitting,
    load_encoder,
    load_flags,
    load_head,
    load_heads,
    load_split,
)
from robustviews.study.jobs import Job
from robustviews.workflow import locks

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray


def data(options: argparse.Namespace) -> None:
    """Verify and decode a data set into uint8 arrays."""
    study, started, commit = load_study(options.study), artifacts.Start(), artifacts.commit()
    known(options.dataset, study.datasets, "data set")
    folder = folders.data_folder(study, options.dataset)
    job = Job("data", folder.name, {}, (), specs.data_spec(study, options.dataset))
    with locks.acquire(folder, f"data {folder.name}"):
        with artifacts.atomic_folder(folder, resumes=shards.JOURNALS) as into:
            summary = _prepare(study, options.dataset, into)
            equal = equal_images(into)
            _report_equal(options.dataset, equal, summary)
            shards.discard_journals(into)
            Work(study, job, folder, started, commit).write_record(
                into,
                environment={"python": sys.version.split()[0]},
                result={**summary, "equal_images": equal},
            )
            arrays = {path.name for path in into.glob("*.npy")}
        for path in folder.glob("*.npy"):
            if path.name not in arrays:  # of an earlier preparation, with more images
                path.unlink()


def _prepare(study: Study, dataset: str, into: Path) -> dict[str, Any]:
    """Write the arrays of a data set and their summary, which is returned."""
    created = set[Path]()

    def create(name: str, shape: tuple[int, ...], dtype: type[np.generic]) -> NDArray[Any]:
        path = into / f"{name}.npy"
        created.add(path)
        return artifacts.array_again(path, shape, dtype)

    summary = stages.prepare(study.datasets[dataset], create)
    _check_enough(study, dataset, summary)
    for path in {*into.glob("*.npy")} - created:  # of an interrupted start with more images
        path.unlink()
    further = sorted({path.name for path in created}.difference(folders.OUTPUTS["data"]))
    if further:
        summary[folders.FURTHER] = {name: artifacts.sha256(into / name) for name in further}
    # Jobs read this file, since the record's time and commit must not make them stale.
    artifacts.write_json(into / folders.SUMMARY, summary)
    return summary


def _check_enough(study: Study, dataset: str, summary: dict[str, Any]) -> None:
    """Refuse a data set that has too few images or classes for the study, before any training."""
    found = enough.Numbers(*(summary[name] for name in enough.Numbers._fields))
    lacking = list(enough.lacks(study, {dataset: found}))
    if lacking:
        raise DataError("\n".join(f"{study.file}: {lack}" for lack in lacking))


def _report_equal(dataset: str, equal: dict[str, int], summary: dict[str, Any]) -> None:
    """Log how many images of a data set occur more than once."""
    for split, count in (("train", equal["train"]), ("test", equal["test"])):
        if count:
            logging.warning("%s: %d %s images repeat another one", dataset, count, split)
    if equal["shared"]:
        logging.warning(
            "%s: %d of %d test images are also training images: accuracy on them is no test",
            dataset,
            equal["shared"],
            summary["test"],
        )


def encoder(options: argparse.Namespace) -> None:
    """Import one encoder of the study."""
    import torch

    from robustviews.machine import runtime

    with working(options, "encoder", options.encoder) as work:
        set_up(options, work.study)
        path = Path(work.study.encoders[options.encoder].file)
        imported = stages.bring(path, **work.job.arguments)
        work.save(
            {folders.ENCODER: imported.weights},
            imported.summary(path.name),
            metadata=imported.metadata,
            environment=runtime.environment(torch.device("cpu")),
        )


def pretrain(options: argparse.Namespace) -> None:
    """Train one encoder, in distributed training together with torchrun's other processes."""
    from robustviews import step
    from robustviews.machine import distributed, memory, runtime

    with (
        working(options, "pretrain", options.run) as work,
        distributed.joined(options.device, own_gpu=work.own_gpu) as options.device,
    ):
        if distributed.rank() > 0:
            logging.getLogger().setLevel(logging.WARNING)  # rank 0 logs the same
        if work.job.arguments["compile"]:
            os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(folders.COMPILED.resolve()))
        run = computation(options, work, tuned=True, ranks=distributed.ranks())
        split = load_split(work.job)
        with memory.explained(work.job.name, step.SMALLER_STEP):
            _check_least(work.job, split, run.device)
            weights, progress, step_bytes = run.call(stages.pretrain, split, **work.job.arguments)
        if distributed.rank() > 0:
            return
        run.save(
            {folders.ENCODER: weights, folders.CURVE: progress.history},
            {
                "weights": work.job.arguments["method"].evaluated,
                "loss": progress.history[-1]["loss"],
                "updates": progress.update,
                "passes": progress.epoch,
                "compilation": progress.compilation,
                "compile_seconds": round(progress.compile_seconds, 3),
                "step_bytes": step_bytes,
                "peak_bytes": runtime.peak_bytes(run.device),
                "classes": split.classes,
                "size": split.size,
            },
            seconds=progress.seconds,
            resumed=progress.resumed,
        )


def _check_least(job: Job, split: Split, device: torch.device) -> None:
    from robustviews import step
    from robustviews.machine import distributed
    from robustviews.methods import divide

    method, batch_size = (job.arguments[name] for name in ("method", "batch_size"))
    views, ranks = job.arguments["views"].count, distributed.ranks()
    share = divide(method, views=views, batch_size=batch_size, ranks=ranks)[0]
    step.check_least(
        job.arguments["encoder"],
        len(share.views),
        size=split.size,
        batch_size=len(share.images),
        classes=split.classes if method.supervised else None,
        device=device,
        title=job.name,
    )


def probe(options: argparse.Namespace) -> None:
    """Train one head, and the encoder with it if the probe tunes the encoder."""
    with working(options, "probe", options.run, options.probe) as work, fitting(work.job):
        run = computation(options, work, tuned=True)
        split, arguments = load_split(work.job), completed_arguments(work.job)
        encoder, start = load_encoder(work.job), load_head(work.job)
        weights, history = run.call(stages.probe, split, encoder, **arguments, start=start)
        result = (history[-1] if history else {}) | _tuned_options(work.job, arguments)
        run.save({**_files(weights, work.job), folders.CURVE: history}, result)


def _files(weights: dict[str, torch.Tensor], job: Job) -> dict[str, dict[str, torch.Tensor]]:
    """Return the weights of a probe by file; those of a tuned encoder have a file of their own."""
    from robustviews.optim import with_prefix

    if folders.ENCODER not in job.outputs:
        return {folders.HEAD: weights}
    return {
        folders.HEAD: with_prefix("head.", weights),
        folders.ENCODER: with_prefix("encoder.", weights),
    }


def _tuned_options(job: Job, arguments: dict[str, Any]) -> dict[str, Any]:
    """Return the options of a tuned imported encoder, which no study file states."""
    imported = job.arguments["encoder"] is None and folders.ENCODER in job.outputs
    return {"encoder": arguments["encoder"]} if imported else {}


def attack(options: argparse.Namespace) -> None:
    """Attack one classifier at every radius of an attack, or combine finished attacks."""
    names = options.run, options.probe, options.attack
    with working(options, "attack", *names) as work, fitting(work.job):
        job, arguments = work.job, completed_arguments(work.job)
        attack = arguments["attack"]
        run = computation(options, work, tuned=attack.fixed_batch)
        if isinstance(attack, WorstOf):
            flags = combine(load_flags(job), attack.eps, arguments["probe"].task)
        else:
            split, encoder, head = load_split(job), load_encoder(job), load_head(job)
            flags = run.call(stages.attack, split, encoder, head, **arguments)
        run.save({folders.FLAGS: flags}, _accuracies(job, flags))


def sanity(options: argparse.Namespace) -> None:
    """Check on each attacked head of a run whether the attack is established."""
    with working(options, "sanity", options.run) as work, fitting(work.job):
        run = computation(options, work)
        split, arguments = load_split(work.job), completed_arguments(work.job)
        encoder, heads = load_encoder(work.job), load_heads(work.job)
        examined = run.call(stages.sanity, split, encoder, heads, **arguments)
        for probe, result in examined.heads.items():
            faults = "; ".join(f"{check}: {fault}" for check, fault in result["failed"].items())
            logging.info("sanity=%s/%s %s", work.job.name, probe, faults or "passed")
        run.save({folders.FLAGS: examined.flags}, examined.heads)


def _accuracies(job: Job, flags: dict[str, torch.Tensor]) -> dict[str, Any]:
    """Return the number of attacked images, and the task's metric, clean and by radius."""
    task, truth = job.arguments["probe"].task, flags["labels"].numpy()

    def score(eps: float) -> float:
        answers, once = flags[flag_name(eps)].numpy(), np.ones((1, len(truth)))
        return float(task.score(answers, truth, once)[0])

    if np.isnan(score(0.0)):
        text = f"none of the {len(truth)} attacked images has an object, so it has no"
        raise DataError(f"{job.name}: {text} {task.metrics[0]}; raise `images` of the attack")
    by_radius = {f"{eps:g}": score(eps) for eps in job.arguments["attack"].eps}
    return {"n": len(flags["index"]), "clean": score(0.0), "eps": by_radius}
