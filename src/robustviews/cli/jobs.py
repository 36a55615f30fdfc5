"""Verbs of the workflow that compute: data, pretrain, probe, attack. Load, call, save."""

from __future__ import annotations

import argparse
import dataclasses
import logging
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from robustviews import artifacts
from robustviews.artifacts.resume import Resume
from robustviews.attacks import AutoAttack
from robustviews.cli.loading import load_encoder, load_head, load_split
from robustviews.cli.names import UsageError, known
from robustviews.methods import divide
from robustviews.study import Study, folders, load_study, plan, specs
from robustviews.workflow import locks

if TYPE_CHECKING:
    import torch


class _Begin(NamedTuple):
    """What is known when a job begins, and may be another by its end."""

    started: float
    code: tuple[str | None, bool | None]


def _begin() -> _Begin:
    return _Begin(time.time(), artifacts.commit())


def _resume(study: Study, name: str, spec: specs.Spec, inputs: list[Path], began: _Begin) -> Resume:
    """Return where a job of this name keeps its state."""
    return Resume(
        folders.state_folder(study) / name.replace("/", "-"),
        spec,
        inputs,
        study.runtime.checkpoint_minutes,
        started=began.started,
    )


def data(options: argparse.Namespace) -> None:
    """Prepare a data set: verified, decoded, as uint8 arrays."""
    study, began = load_study(options.study), _begin()
    known(options.dataset, study.datasets, "data set")
    folder, spec = (
        folders.data_folder(study, options.dataset),
        specs.data_spec(study, options.dataset),
    )
    with (
        locks.acquire(folder, f"data {folder.name}"),
        artifacts.atomic_folder(folder) as into,
    ):
        summary = study.datasets[options.dataset].prepare(into)
        # Jobs read this, not the record, whose time and commit decide nothing that they do.
        artifacts.write_json(into / "summary.json", summary)
        artifacts.write_record(
            into,
            stage="data",
            name=folder.name,
            study=study.study,
            spec=spec,
            inputs=[],
            environment={"python": sys.version.split()[0]},
            started=began.started,
            code=began.code,
            result=summary,
        )


def pretrain(options: argparse.Namespace) -> None:
    """Train one encoder; the processes that torchrun started train it together."""
    study, began = load_study(options.study), _begin()
    known(options.run, plan.jobs(study), "run")
    from robustviews.machine import distributed

    with (
        locks.acquire(folders.pretrain_folder(study, options.run), f"pretrain {options.run}"),
        distributed.joined(options.device) as options.device,
    ):
        if distributed.rank() > 0:
            logging.getLogger().setLevel(logging.WARNING)  # rank 0 says the same
        _pretrain(options, study, began)


def _pretrain(options: argparse.Namespace, study: Study, began: _Begin) -> None:
    from robustviews import step
    from robustviews.encoder import build_encoder
    from robustviews.machine import distributed, feed, memory, runtime
    from robustviews.pretrain import pretrain as train

    device = set_up(options, tuned=True)
    job, spec = plan.jobs(study)[options.run], specs.pretrain_spec(study, options.run)
    run = study.runs[job.entry]
    images, labels, summary, inputs = load_split(study, job.dataset, "train")
    encoder = build_encoder(
        **spec["run"]["encoder"],
        classes=summary["classes"] if run.method.supervised else None,
        seed=job.seed,
    ).to(device)
    state = _resume(study, job.name, spec, inputs, began)
    ranks, views = distributed.ranks(), run.views.count
    share = divide(run.method, views=views, batch_size=run.batch_size, ranks=ranks)[0]
    needed = step.step_bytes(
        encoder,
        run.method,
        run.regime,
        dataclasses.replace(run.views, count=len(share.views)),
        size=summary["size"],
        batch_size=len(share.images),
        precision=run.precision,
    )
    sharers = ranks if device.type == "cpu" else 1  # of the device's memory
    step.check_step(needed * sharers, encoder, title=job.name)
    others = (sharers - 1) * images.nbytes  # since each holds them all, where they fit
    if run.precision == "bf16" and not runtime.native_bf16(device):
        logging.info("bf16 is not native on %s: precision: fp32 would be faster", device)
    with memory.explained(job.name, step.SMALLER_STEP):
        done = train(
            encoder,
            feed.choose(images, device, needed=needed * sharers + others),
            labels,
            method=run.method,
            regime=run.regime,
            views=run.views,
            size=summary["size"],
            epochs=run.epochs,
            epochs_meaning=run.epochs_meaning,
            batch_size=run.batch_size,
            optimizer=spec["run"]["optimizer"],
            precision=run.precision,
            compiled=run.compile,
            seed=job.seed,
            state=state,
            title=job.name,
        )
    if distributed.rank() > 0:
        return
    with artifacts.atomic_folder(folders.pretrain_folder(study, options.run)) as into:
        artifacts.write_tensors(into / "encoder.safetensors", encoder.state_dict())
        artifacts.write_jsonl(into / "training.jsonl", done.history)
        artifacts.write_record(
            into,
            stage="pretrain",
            name=job.name,
            study=study.study,
            spec=spec,
            inputs=inputs,
            environment={**runtime.environment(device), "ranks": ranks},
            started=began.started,
            code=began.code,
            seconds=done.seconds,
            resumed=done.resumed,
            result={
                "loss": done.history[-1]["loss"],
                "updates": done.update,
                "passes": done.epoch,
                "compilation": done.compilation,
                "compile_seconds": round(done.compile_seconds, 3),
                "step_bytes": needed,
                "peak_bytes": runtime.peak_bytes(device),
                "classes": summary["classes"],
                "size": summary["size"],
            },
        )
    state.discard()


def probe(options: argparse.Namespace) -> None:
    """Train one head on a frozen encoder."""
    study, began = load_study(options.study), _begin()
    known(options.run, plan.jobs(study), "run")
    known(options.probe, study.probes, "probe")
    folder = folders.probe_folder(study, options.run, options.probe)
    with locks.acquire(folder, f"probe {options.run}/{options.probe}"):
        _probe(options, study, began)


def _probe(options: argparse.Namespace, study: Study, began: _Begin) -> None:
    from robustviews.machine import feed, memory, runtime
    from robustviews.probe import Task

    device = set_up(options, tuned=True)
    job, spec = plan.jobs(study)[options.run], specs.probe_spec(study, options.run, options.probe)
    images, labels, summary, inputs = load_split(study, job.dataset, "train")
    encoder, encoder_file = load_encoder(study, options.run, summary["classes"], device)
    inputs.append(encoder_file)
    start = None
    before = plan.head_start(study, options.probe)
    if before is not None:
        start, head_file = load_head(
            study, options.run, before, encoder, summary["classes"], device
        )
        inputs.append(head_file)
    title = f"{options.run}/{options.probe}"
    state = _resume(study, title, spec, inputs, began)
    task = Task(
        images=feed.choose(images, device),
        labels=labels.to(device),
        classes=summary["classes"],
        views=study.runs[job.entry].views,
        size=summary["size"],
        seed=job.seed,
        batch=study.runtime.evaluation_batch,
        title=title,
        state=state,
    )
    with memory.explained(title, memory.SMALLER_BATCH):
        head, history = study.probes[options.probe].train(encoder, task, start=start)
    for row in history:
        logging.info("probe=%s %s", title, " ".join(f"{key}={row[key]:.6g}" for key in row))
    with artifacts.atomic_folder(folders.probe_folder(study, options.run, options.probe)) as into:
        artifacts.write_tensors(into / "head.safetensors", head.state_dict())
        artifacts.write_jsonl(into / "training.jsonl", history)
        artifacts.write_record(
            into,
            stage="probe",
            name=title,
            study=study.study,
            spec=spec,
            inputs=inputs,
            environment=runtime.environment(device),
            started=began.started,
            code=began.code,
            seconds=state.seconds(),
            resumed=state.resumed,
            result=history[-1] if history else {},
        )
    state.discard()


def attack(options: argparse.Namespace) -> None:
    """Attack one classifier at every radius of an attack."""
    study, began = load_study(options.study), _begin()
    known(options.run, plan.jobs(study), "run")
    known(options.probe, study.probes, "probe")
    known(options.attack, study.attacks, "attack")
    folder = folders.attack_folder(study, options.run, options.probe, options.attack)
    with locks.acquire(folder, f"attack {options.run}/{options.probe}/{options.attack}"):
        _attack(options, study, began)


def _attack(options: argparse.Namespace, study: Study, began: _Begin) -> None:
    from robustviews.evaluate import Classifier, evaluate
    from robustviews.machine import feed, memory, runtime

    # AutoAttack goes on with the images that still hold: every batch has another shape.
    device = set_up(options, tuned=not isinstance(study.attacks[options.attack], AutoAttack))
    job = plan.jobs(study)[options.run]
    spec = specs.attack_spec(study, options.run, options.probe, options.attack)
    images, labels, summary, inputs = load_split(study, job.dataset, "test")
    encoder, encoder_file = load_encoder(study, options.run, summary["classes"], device)
    head, head_file = load_head(
        study, options.run, options.probe, encoder, summary["classes"], device
    )
    inputs += sorted({encoder_file, head_file})
    name = f"{options.run}/{options.probe}/{options.attack}"
    state = _resume(study, name, spec, inputs, began)
    with memory.explained(name, memory.SMALLER_BATCH):
        flags = evaluate(
            Classifier(encoder, head, study.probes[options.probe]),
            study.attacks[options.attack],
            feed.choose(images, device),
            labels,
            views=study.runs[job.entry].views,
            size=summary["size"],
            seed=job.seed,
            batch=study.runtime.evaluation_batch,
            state=state,
            title=name,
        )
    accuracy = {
        key: value.float().mean().item()
        for key, value in flags.items()
        if key not in ("index", "labels")
    }
    folder = folders.attack_folder(study, options.run, options.probe, options.attack)
    with artifacts.atomic_folder(folder) as into:
        artifacts.write_tensors(into / "flags.safetensors", flags)
        artifacts.write_record(
            into,
            stage="attack",
            name=name,
            study=study.study,
            spec=spec,
            inputs=inputs,
            environment=runtime.environment(device),
            started=began.started,
            code=began.code,
            seconds=state.seconds(),
            resumed=state.resumed,
            result={
                "n": len(flags["index"]),
                "clean": accuracy.pop("clean"),
                "eps": {key.removeprefix("eps_"): value for key, value in accuracy.items()},
            },
        )
    state.discard()


def set_up(options: argparse.Namespace, *, tuned: bool = False) -> torch.device:
    """Set the process up as a study says, and return the device."""
    from robustviews.machine import distributed, runtime

    if distributed.launched() and distributed.ranks() == 1:
        raise UsageError(f"torchrun starts the verb pretrain alone; run {options.name} without it")
    settings = load_study(options.study).runtime
    runtime.configure(
        threads=options.threads or settings.threads,
        deterministic=settings.deterministic,
        tuned=tuned,
    )
    return runtime.choose_device(options.device)
