"""What each rule's jobs take, put together from answers to questions that can be measured.

Nothing here knows what a method, a probe or an attack costs: a question is for example "how long is
one minibatch of this training?", and `calibrate` answers it by running the very functions that the
job will run. Jobs that differ only in what does not change the amount of work (seed, label, length,
and every number that is no whole number: radii, rates, scales of crops) ask the same question.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

from robustviews.attacks import WorstOf
from robustviews.datasets.scenes import Scenes
from robustviews.estimating import operations
from robustviews.estimating.operations import Passes
from robustviews.estimating.question import Answer, Ask, Question, UnknownError
from robustviews.probe import Probe, dense
from robustviews.probe.dense import DenseProbe
from robustviews.study import networks, plan
from robustviews.study.jobs import REPORTING, Job
from robustviews.study.schema import Run, Study
from robustviews.study.shapes import Shape, shape_of
from robustviews.study.work import Evaluation, Examination, Fit, Training, seen_run
from robustviews.tasks.classification import CLASSIFICATION
from robustviews.workflow.resources import MOST_IMAGES, held

SURVIVORS = 0.5
"""Part of the attacked images that an attack which drops fooled ones has to go on with.

Not known before the attack. Robust classifiers of arXiv 2501.03507 keep about 20 to 60 % of
CIFAR-10 under PGD (Table 1); a standard one keeps none, and AutoAttack is then far quicker.
"""
_SURVIVING = (
    f"{SURVIVORS:.0%} of images are taken to survive: "
    f"up to {1 / SURVIVORS:.0f} times as long if all do"
)
_NOT_COMPILED = "no time was left to compile: what that takes and gains is not counted"
_OWN_DEVICE = "each is taken to have a GPU of its own, whose memory is told"
_ROWS = 14  # flags of AS4, AS6, AS8 and of the information for each image
_INPUTS = ("task", "size", "classes", "probe", "views", "batch")  # that an attack depends on
_LENGTHS = {"epochs": 1, "updates": 1, "images": None}  # of a probe or an attack
_NO_WORK = {"label", "seeds", "datasets", "epochs", "epochs_meaning"}  # of a run


@dataclasses.dataclass(frozen=True)
class Amount:
    """What a job takes."""

    seconds: float  # expected
    memory: float  # bytes at its peak, of the device that computes
    disk: float  # bytes that it leaves
    note: str = ""  # what is not counted, if anything
    places: int = 1  # how many of the jobs at a time it stands for
    passes: float = 0.0  # of single views through the encoder
    flop: float = 0.0  # floating-point operations of these passes


def amount(study: Study, job: Job, context: dict[str, Any], ask: Ask) -> Amount:
    """Return what a job takes.

    Args:
        study: study of the job.
        job: one of its jobs.
        context: how jobs run, which is a part of every question: device, threads, jobs at once.
        ask: answers questions, or only notes them.

    Raises:
        UnknownError: the data set is not prepared and does not say its size, or `ask` has no
            answer.
    """

    def in_context(stage: str, **about: Any) -> Answer:  # noqa: ANN401  # options of any kind
        return ask(Question(stage, about | context))

    if job.rule in REPORTING:
        return _reporting(job, in_context)
    if job.rule == "encoder":
        start = in_context("start", kind="train")
        size = _size(study.encoders[job.name].file)
        return Amount(start["seconds"], start["bytes"] + 2 * size, size)
    dataset = plan.dataset_of(study, job.rule, job.name)
    shape = shape_of(study, dataset)
    if shape is None:
        raise UnknownError(f"unknown until data set `{dataset}` is prepared")
    if job.rule == "data":
        return _data(study, dataset, shape, in_context)
    if job.rule == "pretrain":
        own = context["device"] != "cpu"
        return _pretrain(study, job, shape, in_context, own=own, at_once=context["at_once"])
    computing = {"probe": _probe, "attack": _attack, "sanity": _sanity}
    return computing[job.rule](study, job, shape, in_context)


def _size(file: str) -> int:
    return path.stat().st_size if (path := Path(file)).is_file() else 2**27


def _reporting(job: Job, ask: Callable[..., Answer]) -> Amount:
    drawn = job.rule not in ("frame", "metrics", "table")
    start = ask("start", kind="figure" if drawn else "table")
    seconds = start["seconds"]
    if job.rule == "examples":  # loads an encoder too
        seconds += ask("start", kind="train")["seconds"]
    return Amount(seconds, start["bytes"], 2**18 if drawn else 2**14)


def _data(study: Study, dataset: str, shape: Shape, ask: Callable[..., Answer]) -> Amount:
    start = ask("start", kind="data")
    options, count = study.datasets[dataset], shape.train + shape.test
    seconds, memory = start["seconds"], start["bytes"] + held(study, dataset, shape)
    counted = options.root is None  # as the set that the start is measured with
    note = "" if counted else f"downloading and decoding `{dataset}` is not counted"
    if isinstance(options, Scenes):
        seconds += count * ask("scenes", dataset=options)["image_seconds"]
    return Amount(seconds, memory, count * shape.example, note)


def _pretrain(
    study: Study, job: Job, shape: Shape, ask: Callable[..., Answer], *, own: bool, at_once: int
) -> Amount:
    """Return what a training takes, of which several processes do even parts.

    Each process has a device of its own (`own`); else they share the cores, and as many compute at
    a time as jobs would (`at_once`).
    """
    run = study.runs[plan.pretrainings(study)[job.name].entry]
    start = ask("start", kind="train")
    options = {f.name: getattr(run, f.name) for f in dataclasses.fields(run)}
    about = {name: value for name, value in options.items() if name not in _NO_WORK}
    about["classes"] = shape.classes if run.method.supervised else 0
    about["compile"] = run.compile and own  # on a CPU nothing is compiled
    step = ask("pretrain", **about, size=shape.size)
    minibatches = Training.of(run, shape).minibatches
    passes = operations.of_minibatch(
        run.method,  # type: ignore[arg-type]  # frozen dataclasses can be hashed
        run.regime,  # type: ignore[arg-type]
        views=run.views.count,
        batch_size=run.batch_size,
    ).times(minibatches)
    flop = operations.forward_flop(run.encoder, size=shape.size, classes=about["classes"] or None)
    ranks, places = study.runtime.ranks, min(study.runtime.ranks, at_once)
    faster = ranks if own else places
    seconds = start["seconds"] + minibatches * step["seconds"] / faster + step.get("compiling", 0.0)
    memory = start["bytes"] + min(shape.train * shape.image, MOST_IMAGES)  # of each process
    memory = memory + step["step_bytes"] / ranks if own else ranks * memory + step["step_bytes"]
    notes = [_NOT_COMPILED] * (about["compile"] and "compiling" not in step)
    if ranks > 1:
        told = _OWN_DEVICE if own else f"they take the places of {places} of {at_once} jobs"
        notes.append(f"{ranks} processes a training: {told}; waiting for each other is not counted")
    note = "; ".join(notes)
    return Amount(seconds, memory, step["disk"], note, places, passes.forwards, passes.flop(flop))


def _probe(study: Study, job: Job, shape: Shape, ask: Callable[..., Answer]) -> Amount:
    run, probe = seen_run(study, job.parts[0]), study.probes[job.parts[1]]
    start, work = ask("start", kind="train"), Fit.of(probe, shape)
    fit = ask("probe", **(_seen(study, run, probe, shape) | {"probe": _plain(probe)}))
    kept = 4 * fit["width"] * work.images
    once, seen = work.images, work.updates * work.batch
    if isinstance(probe, DenseProbe):
        if kept > dense.KEPT:  # then each update computes what it reads
            once, kept = seen, 4 * fit["width"] * min(work.images, study.runtime.evaluation_batch)
        kept *= 2  # minibatches, and all together
    seconds = start["seconds"] + once * fit["image_seconds"] + work.updates * fit["update_seconds"]
    images = min(shape.train * shape.example, MOST_IMAGES)
    memory = start["bytes"] + images + kept + fit["work_bytes"]
    if probe.network_updates:
        counted = Passes(seen, seen, seen)
    elif isinstance(probe, DenseProbe):
        counted = Passes(seen if probe.flip else once)
    else:  # passes of each image in each epoch, the last one only forward
        forwards = once * ((probe.epochs or 1) * work.passes or probe.stack)
        counted = Passes(forwards, forwards * (work.passes - 1) / work.passes if work.passes else 0)
    encoder, head = _forward_flop(run, probe, shape)
    flop = counted.flop(encoder) + Passes(seen, seen, seen).flop(head)
    return Amount(seconds, memory, fit["disk"], passes=counted.forwards, flop=flop)


def _attack(study: Study, job: Job, shape: Shape, ask: Callable[..., Answer]) -> Amount:
    run, probe = seen_run(study, job.parts[0]), study.probes[job.parts[1]]
    attack = plan.attack_on(study, *job.parts[1:])
    counted = Evaluation.of(attack, probe, shape, batch=study.runtime.evaluation_batch)
    seen = _seen(study, run, probe, shape)
    start = ask("start", kind="train")
    inputs = {name: seen[name] for name in _INPUTS if name in seen}
    if head := _dense_head(run, probe, shape):
        inputs["outputs"] = head.outputs
    measured = study.attacks[attack.of[0]] if isinstance(attack, WorstOf) else attack
    options = dataclasses.replace(_plain(measured), eps=measured.eps[:1])
    work = ask("attack", **inputs, attack=options)
    disk = counted.images * (work["stored_once"] + counted.radii * work["stored_per_radius"])
    if isinstance(attack, WorstOf):
        return Amount(start["seconds"], start["bytes"], disk)
    network = _network(seen, ask)

    def seconds(part: str, unit: str) -> float:
        """Return what an image, or a minibatch besides its images, costs."""
        views = probe.stack if unit == "image" else 1
        return work[f"{part}_{unit}_seconds"] + views * sum(
            work[f"{part}_{unit}_{way}s"] * network[f"{way}_{unit}_seconds"]
            for way in ("forward", "backward")
        )

    calls = counted.calls * seconds("alive", "call")
    images = counted.radii * counted.images
    alive, fallen = (images * seconds(part, "image") for part in ("alive", "fallen"))
    memory = start["bytes"] + shape.test * shape.example

    def of_views(way: str) -> float:
        """Return how many views pass the network, of images that survive or not."""
        alive, fallen = (work[f"{part}_image_{way}s"] for part in ("alive", "fallen"))
        return images * probe.stack * (SURVIVORS * alive + (1 - SURVIVORS) * fallen)

    passes = Passes(of_views("forward"), of_views("backward"))
    return Amount(
        passes=passes.forwards,
        flop=passes.flop(sum(_forward_flop(run, probe, shape))),
        seconds=start["seconds"] + calls + SURVIVORS * alive + (1 - SURVIVORS) * fallen,
        memory=memory + counted.at_once * probe.stack * network["view_bytes"],
        disk=disk,
        note=_SURVIVING if alive > fallen else "",
    )


def _sanity(study: Study, job: Job, shape: Shape, ask: Callable[..., Answer]) -> Amount:
    run = seen_run(study, networks.examined(job.name))
    start = ask("start", kind="train")
    seconds, images, work_bytes = start["seconds"], 0, 0.0
    views, flop = 0.0, 0.0
    for probe in (study.probes[name] for name in plan.attacked(study)[job.name]):
        work = Examination.of(study.sanity, probe, shape, batch=study.runtime.evaluation_batch)
        network = _network(_seen(study, run, probe, shape), ask)
        forward, backward = (
            work.calls * network[f"{way}_call_seconds"]
            + work.images * work.stack * network[f"{way}_image_seconds"]
            for way in ("forward", "backward")
        )
        seconds += work.passes * (forward + backward) + work.forwards * forward
        images += work.images
        passes = Passes(work.passes + work.forwards, work.passes).times(work.images * work.stack)
        views += passes.forwards
        flop += passes.flop(sum(_forward_flop(run, probe, shape)))
        work_bytes = max(work_bytes, work.at_once * work.stack * network["view_bytes"])
    rows = len(study.sanity.radii) + study.sanity.restarts + _ROWS
    memory = start["bytes"] + shape.test * shape.example + 2 * work_bytes  # float64
    return Amount(seconds, memory, images * (16 + rows), passes=views, flop=flop)


def _forward_flop(run: Run, probe: Probe, shape: Shape) -> tuple[float, float]:
    """Return the operations of a view's forward pass, in the encoder and in a dense head."""
    classes = shape.classes if run.method.supervised else None
    encoder = operations.forward_flop(
        run.encoder, size=shape.size, classes=classes, feature=probe.feature
    )
    head = _dense_head(run, probe, shape)
    return encoder, head.flop if head else 0.0


def _dense_head(run: Run, probe: Probe, shape: Shape) -> operations.DenseHead | None:
    if probe.task is CLASSIFICATION:
        return None
    return operations.dense_head(
        run.encoder, task=probe.task.name, size=shape.size, classes=shape.classes
    )


def _network(seen: dict[str, Any], ask: Callable[..., Answer]) -> Answer:
    return ask("network", **{k: v for k, v in seen.items() if k not in ("probe", "views")})


def _seen(study: Study, run: Run, probe: Probe, shape: Shape) -> dict[str, Any]:
    """Return what decides the work of looking at an image through a probe.

    Probes that look at whole images look at them alike; others may do so as their options say.
    """
    about = {
        "encoder": dataclasses.replace(run.encoder, projection=1),  # no probe runs the projector
        "supervised": run.method.supervised,
        "task": probe.task.name,
        "feature": probe.feature,
        "size": shape.size,
        "classes": shape.classes,
        "batch": study.runtime.evaluation_batch,
    }
    if probe.stack > 1:
        about |= {"probe": _plain(probe), "views": run.views}
    if isinstance(probe, DenseProbe):
        about["probe"] = type(probe)()  # however it was trained
    return about


def _plain(options: Any) -> Any:  # noqa: ANN401  # options of any kind
    """Return options without their lengths and numbers of images, which are counted."""
    named = {field.name for field in dataclasses.fields(options)} & _LENGTHS.keys()
    return dataclasses.replace(options, **{name: _LENGTHS[name] for name in named})
