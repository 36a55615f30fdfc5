"""Check by attacking again: some images of an attack, with the encoder and head on disk.

Random starts belong to a minibatch, so whole minibatches are attacked. In the environment of the
record the flags must be the same; elsewhere rounding may change some of them.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import math
import random
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from robustviews import artifacts, stages
from robustviews.artifacts import ArtifactError, Record
from robustviews.attacks import WorstOf
from robustviews.provenance.checks import remake
from robustviews.provenance.disk import Disk
from robustviews.provenance.findings import Finding, State, failed, unknown, verified
from robustviews.provenance.plausible import SLIGHT
from robustviews.provenance.values import Array, Flags, read_flags
from robustviews.study import inputs
from robustviews.study.jobs import Job
from robustviews.tasks.protocol import Task

if TYPE_CHECKING:
    import torch
    from torch import Tensor

_ROUNDING = 0.02  # of the images whose quality at a radius may differ elsewhere; or one
_CHOICE = random.SystemRandom()  # nobody can know which images will be attacked again


def check(disk: Disk, job: Job, *, images: int, device: str = "auto") -> list[Finding]:
    """Attack images of an evaluation again, and compare the flags one by one.

    Args:
        disk: files of the study.
        job: a job of rule `attack` with a record.
        images: number of images, at least; rounded up to whole minibatches.
        device: as for `runtime.choose_device`; `auto` prefers the device of the record.
    """
    from robustviews.machine import runtime

    if isinstance(job.arguments["attack"], WorstOf):
        return []  # its parts are attacked again, and the check of its flags combines them
    record, flags = disk.stated(job), job.writes[0]
    if record.spec != job.spec:
        return [unknown("again", flags, "not attacked again: the study differs from its record")]
    stated = record.environment
    on_cpu = device == "auto" and str(stated.get("device")).startswith("cpu")
    target = runtime.choose_device("cpu" if on_cpu else device)
    runtime.configure(
        threads=int(stated.get("threads") or disk.study.runtime.threads),
        deterministic=bool(stated.get("deterministic")),
        tuned=job.arguments["attack"].fixed_batch,
    )
    here = {"packages": artifacts.packages(), **runtime.environment(target)}
    if "variables" not in stated:  # of an earlier version
        del here["variables"]
    before, now = runtime.decisive(stated), runtime.decisive(here)
    names = sorted(name for name in {*before, *now} if before.get(name) != now.get(name))
    try:
        recorded = read_flags(disk, job.name)
        pairs = list(_pairs(disk, job, recorded, images=images, device=target))
        return [_judge(disk, job, record, pairs, ", ".join(names))]
    except (ArtifactError, ValueError, KeyError) as error:
        return [unknown("again", flags, f"cannot be attacked again: {error}")]


def _judge(
    disk: Disk, job: Job, record: Record, pairs: list[tuple[Flags, Flags]], differing: str
) -> Finding:
    """Return the finding of recorded and new flags."""
    flags, count = job.writes[0], sum(len(new["clean"]) for _, new in pairs)
    by_name = {
        name: sum(_changed(old[name], new[name]) for old, new in pairs) for name in pairs[0][1]
    }
    total, wrong = count * len(by_name), sum(by_name.values())
    text = f"{count} images attacked again at {len(pairs[0][1]) - 1} radii: "
    if not wrong:
        return verified("again", flags, f"{text}the same flags")
    text += f"{wrong} of {total} flags differ"
    if not differing and record.environment.get("deterministic"):
        text += f", though the environment is that of the record; {remake(disk, job)}"
        return failed("again", flags, text)
    cause = f"other {differing}" if differing else "the job was not deterministic"
    task = disk.study.probes[job.parts[1]].task
    moved = (sum(_moved(task, *pair, name) for pair in pairs) for name in by_name)
    if max(moved) > max(1, _ROUNDING * count):
        text += f", more than rounding explains ({cause}); repeat it on the machine of the record"
        return Finding("again", str(flags), State.DOUBT, text)
    return verified("again", flags, f"{text}, as rounding can cause ({cause})")


def _changed(old: Array, new: Array) -> int:
    """Return about how many images two arrays of answers differ."""
    return int((old != new).reshape(len(new), -1).any(axis=1).sum())


def _moved(task: Task, old: Flags, new: Flags, name: str) -> int:
    """Return how many images have answers of another quality."""
    before, after = (task.quality(one[name], old["labels"]).astype(float) for one in (old, new))
    return int((abs(after - before) > SLIGHT).sum())


def _pairs(
    disk: Disk, job: Job, recorded: Flags, *, images: int, device: torch.device
) -> Iterator[tuple[Flags, Flags]]:
    """Yield recorded flags, with `labels`, and new ones, by name, of random minibatches."""
    arguments = job.arguments
    at_once = max(1, arguments["batch"] // arguments["probe"].stack)  # as `evaluate.evaluate`
    batches = math.ceil(len(recorded["index"]) / at_once)
    number = min(batches, math.ceil(images / at_once))
    root, split = disk.root, inputs.load_split(job, disk.root)
    encoder, head = inputs.load_encoder(job, root), inputs.load_head(job, root)
    attack = functools.partial(
        stages.attack,
        encoder,
        head,
        split.images,
        split.labels,
        classes=split.classes,
        size=split.size,
        **inputs.completed_arguments(job, root),
        device=device,
        title=job.name,
    )
    for batch in sorted(_CHOICE.sample(range(batches), number)):
        new = _one_batch(attack, batch)
        part = slice(batch * at_once, batch * at_once + len(new["clean"]))
        yield {name: recorded[name][part] for name in ("labels", *new)}, new


class _Finished(Exception):  # noqa: N818  # no error
    """One minibatch is attacked."""


class _OneBatch:
    """A checkpoint that begins at a minibatch and ends the evaluation after it."""

    def __init__(self, batch: int) -> None:
        self.batch = batch
        self.flags: dict[str, Tensor] = {}

    def load(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        return {}, {"batches": self.batch, "flags": []}

    def due(self) -> bool:
        return True

    def save(self, tensors: dict[str, Tensor], position: dict[str, Any]) -> None:
        del position
        self.flags = tensors
        raise _Finished


def _one_batch(attack: Callable[..., object], batch: int) -> Flags:
    """Return the flags of one minibatch, by name."""
    only = _OneBatch(batch)
    logging.disable(logging.INFO)  # the stage would report that it resumes
    try:
        with contextlib.suppress(_Finished):
            attack(checkpoint=only)
    finally:
        logging.disable(logging.NOTSET)
    return {name: np.asarray(value) for name, value in only.flags.items()}
