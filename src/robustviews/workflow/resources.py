"""What to ask a cluster for: memory and time of each job, from the study alone and without torch.

Nothing is measured, because what plans a study there has no GPU; `robustviews estimate` measures.
What is asked for is several times what a job should take, for a job that takes more is ended. Tried
again it resumes from its checkpoint, and asks for more.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from robustviews.datasets.splits import images_in_file
from robustviews.probe.dense import KEPT, DenseProbe
from robustviews.study import networks, plan
from robustviews.study.schema import Run, Study
from robustviews.study.shapes import Shape, shape_of
from robustviews.study.work import Evaluation, Examination, Fit, Training, seen_run
from robustviews.tasks.segmentation import SEGMENTATION
from robustviews.tasks.table import task_of

LONGEST = 24 * 60
"""Minutes at most that a job asks for, however often it was tried.

Many partitions allow no more, and some let a job that asks for more wait for ever.
"""
MOST_IMAGES = 64_000_000_000
"""Bytes of images at most that a job asks memory for: it reads from files what does not fit."""
_SHORTEST = 30  # minutes, for what counts in no formula: starting, loading, a busy file system
_BASE_MB = {"cpu": 2_000, "cuda": 8_000}  # Python, torch, and CUDA's libraries
_DECODING = 0.02  # seconds an image file takes
# By this count the paper's minutes (Table 1, an A6000) come to 14e12 operations a second: a third
# is reckoned with. A core does 3e10 and more, but less in small networks.
_RATE = {"cpu": 1e10, "cuda": 5e12}
_PASS = 0.02  # seconds that a forward and backward pass of the smallest network takes
_BOTH = 3  # forward passes that a forward and a backward pass take together
# By width^2 and pixel behind the stem, multiply-accumulates of a forward pass; by width and pixel,
# bytes that it keeps for the backward pass in fp32: as counted by torch for the paper's networks.
_MACS = {"resnet18": 140, "resnet50": 320}
_KEPT = {"resnet18": 75, "resnet50": 395}
_KEPT_BY_STEM = 50  # more, with the one for ImageNet
_MAPS = {"resnet18": 7.5, "resnet50": 30.0}  # by width and pixel behind the stem, bytes of all maps
_HEAD = 10_000  # by pixel behind the stem, multiply-accumulates of a dense head, at most
_LOGITS = 12  # by class and pixel, bytes of a segmented image: logits, softmax and their gradient
_SLACK = 1.5  # of memory: workspaces, and what the allocator does not give back
_DECODERS = 16  # at most: cores that decode a data set in shards
_DECODER = 100_000_000  # bytes per decoding process (`python -m benchmarks.large_sets`: 52e6)
_LISTED = 700  # bytes per image: its path, and the hash of its pixels
_COMPILING = 8  # cores of torch.compile, which runs one compiler per core
# ImageNet-100, which does not tell before it is prepared.
_UNKNOWN_TRAIN, _UNKNOWN_TEST, _UNKNOWN_CLASSES = 130_000, 10_000, 100


@dataclass(frozen=True)
class Allocation:
    """What a job asks for."""

    mem_mb: int  # memory of the host, in MB
    runtime: int  # minutes until the job is ended
    cores: int  # CPU cores; the threads of the job, or more while it compiles


@dataclass(frozen=True)
class _Work:
    """Work of a job."""

    views: int  # that pass the network
    passes: float  # how often each does, counted in forward passes
    calls: float  # of the network, with `at_once` views
    at_once: int  # views
    held: float = 0.0  # bytes besides images and network


def allocation(study: Study, rule: str, name: str, *, device: str, attempt: int = 1) -> Allocation:
    """Return what a job asks for: at its second try twice as much as at its first, and so on.

    Args:
        study: that it is of.
        rule: `data`, `encoder`, `pretrain`, `probe`, `attack` or `sanity`.
        name: of the data set; of the others as in `robustviews.study.jobs`: run, run/probe or
            run/probe/attack.
        device: `cpu`, or what else is computed on.
        attempt: how often it will have been tried then.
    """
    cores = _cores(study, rule, name, device=device)
    if rule == "data":
        megabytes, minutes = _preparation(study, name, cores)
    elif rule == "encoder":
        megabytes, minutes = 2 * _BASE_MB["cpu"], _SHORTEST
    else:
        megabytes, minutes = _computation(study, rule, name, device=device)
    return Allocation(
        500 * math.ceil(attempt * megabytes / 500),
        min(10 * math.ceil(attempt * minutes / 10), LONGEST),
        cores,
    )


def _cores(study: Study, rule: str, name: str, *, device: str) -> int:
    threads = study.runtime.threads
    if rule == "data":
        return max(threads, _decoders(study, name, _shape(study, name)))
    if rule != "pretrain":
        return threads
    compiles = device != "cpu" and study.runs[plan.pretrainings(study)[name].entry].compile
    return study.runtime.ranks * (max(threads, _COMPILING) if compiles else threads)


def _decoders(study: Study, dataset: str, shape: Shape) -> int:
    """Return how many processes can decode the larger split of a data set, each a file."""
    options = study.datasets[dataset]
    if getattr(options, "task", "classification") != "classification":
        return 1
    in_file, images = getattr(options, "shard_images", None), max(shape.train, shape.test)
    return min(_DECODERS, math.ceil(images / (in_file or images_in_file(shape.size))))


def held(study: Study, dataset: str, shape: Shape) -> int:
    """Return the bytes that the preparation of a data set holds besides those of Python."""
    decoders = _decoders(study, dataset, shape)
    images = shape.train + shape.test
    return decoders * _DECODER + images * _LISTED if decoders > 1 else images * shape.example


def _preparation(study: Study, dataset: str, cores: int) -> tuple[float, float]:
    """Return megabytes and minutes of the preparation of a data set."""
    shape = _shape(study, dataset)
    decoders = min(cores, _decoders(study, dataset, shape))
    minutes = _SHORTEST + (shape.train + shape.test) * _DECODING / 60 / decoders
    return _BASE_MB["cpu"] + held(study, dataset, shape) / 1e6, minutes


def _computation(study: Study, rule: str, name: str, *, device: str) -> tuple[float, float]:
    """Return megabytes and minutes of a training, a probe, an attack or checks."""
    entry, *parts = name.split("/")
    shape = _shape(study, plan.dataset_of(study, rule, name))
    if rule == "pretrain":
        run = study.runs[plan.pretrainings(study)[entry].entry]
        work = _training(run, shape)
    else:
        run = seen_run(study, networks.examined(entry))
        if rule == "probe":
            work = _probe(study, run, shape, *parts)
        elif rule == "sanity":
            work = _sanity(study, shape, entry)
        else:
            work = _attack(study, shape, *parts)
    processes = study.runtime.ranks if rule == "pretrain" else 1
    base = processes * _BASE_MB["cpu" if device == "cpu" else "cuda"]
    megabytes = base + _megabytes(run, work, shape=shape, device=device, processes=processes)
    minutes = _SHORTEST + _minutes(study, run, work, shape=shape, device=device) / processes
    return megabytes, minutes


def _minutes(study: Study, run: Run, work: _Work, *, shape: Shape, device: str) -> float:
    operations = 2 * _MACS[run.encoder.backbone] * run.encoder.width**2 * _pixels(run, shape)
    rate = _RATE["cpu"] * study.runtime.threads if device == "cpu" else _RATE["cuda"]
    return (work.views * work.passes * operations / rate + work.calls * _PASS) / 60


def _megabytes(run: Run, work: _Work, *, shape: Shape, device: str, processes: int) -> float:
    images = min((shape.train + shape.test) * shape.example, MOST_IMAGES)
    if device != "cpu":
        return images / 1e6
    images *= processes  # each holds them all
    stem = _KEPT_BY_STEM if run.encoder.stem == "imagenet" else 0
    kept = (_KEPT[run.encoder.backbone] + stem) * run.encoder.width * _pixels(run, shape)
    if shape.task is SEGMENTATION:
        kept += _LOGITS * shape.classes * shape.size**2
    return (images + work.held + _SLACK * work.at_once * kept) / 1e6


def _pixels(run: Run, shape: Shape) -> float:
    """Return the pixels of an image behind the stem."""
    return shape.size**2 / (16 if run.encoder.stem == "imagenet" else 1)


def _training(run: Run, shape: Shape) -> _Work:
    work = Training.of(run, shape)
    return _Work(
        views=work.minibatches * work.views,
        passes=_BOTH * work.passes,
        calls=work.minibatches * work.passes,
        at_once=work.views,
    )


def _probe(study: Study, run: Run, shape: Shape, name: str) -> _Work:
    probe, held = study.probes[name], 0.0
    work, epochs = Fit.of(probe, shape), probe.epochs or 1
    seen = math.ceil(work.updates * work.batch / work.images)
    if probe.network_updates:
        epochs = seen
    passes: float = _BOTH * epochs * work.passes or 1
    if isinstance(probe, DenseProbe) and not probe.tuned:
        backbone, width = run.encoder.backbone, run.encoder.width
        maps = work.images * _MAPS[backbone] * width * _pixels(run, shape)
        kept = maps <= KEPT and not probe.flip
        passes = (1 if kept else seen) + _BOTH * seen * _HEAD / (_MACS[backbone] * width**2)
        held = 2 * maps if kept else 0.0  # minibatches, and all together
    return _Work(
        views=work.images * work.stack,
        passes=passes,
        calls=work.updates * max(1, work.passes),
        at_once=max(study.runtime.evaluation_batch, work.batch if work.passes else 1),
        held=held,
    )


def _attack(study: Study, shape: Shape, probe: str, name: str) -> _Work:
    batch = study.runtime.evaluation_batch
    work = Evaluation.of(
        plan.attack_on(study, probe, name), study.probes[probe], shape, batch=batch
    )
    passes = work.radii * work.passes + 1
    return _Work(
        views=work.images * work.stack,
        passes=_BOTH * passes,
        calls=passes * math.ceil(work.images / work.at_once),
        at_once=batch,
    )


def _sanity(study: Study, shape: Shape, run: str) -> _Work:
    batch = study.runtime.evaluation_batch
    every = [
        Examination.of(study.sanity, study.probes[probe], shape, batch=batch)
        for probe in plan.attacked(study)[run]
    ]
    passes = every[0].passes + every[0].forwards / _BOTH
    return _Work(
        views=sum(work.images * work.stack for work in every),
        passes=_BOTH * passes,
        calls=passes * sum(work.calls for work in every),
        at_once=2 * batch,  # AS13 computes in float64
    )


def _shape(study: Study, dataset: str) -> Shape:
    known = shape_of(study, dataset)
    if known is not None:
        return known
    size, task = study.datasets[dataset].size, task_of(study.datasets[dataset])
    return Shape(_UNKNOWN_TRAIN, _UNKNOWN_TEST, _UNKNOWN_CLASSES, size, task)
