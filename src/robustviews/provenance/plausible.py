"""Checks of whether numbers can be: what no hash sees, because records and files agree.

One rule compares two radii of an attack, of which the clean images are the first. On the images
where their answers differ in quality (`tasks.protocol.Task`; of classification, in being right),
those that are better at the larger radius should not outnumber the others by more than chance. If
both were as likely, that many would have a probability below `_CHANCE` (a one-sided sign test). A
single image may be better at a larger radius than at a smaller one, since an attack is not the
worst case; so only numbers of images are compared.

The other rule compares an attack with the PGD-20 of the sanity checks at the same radius on the
same images, by the same test: a job of its own that attacked the same head. AutoAttack, and PGD of
20 steps or more on the cross-entropy, should leave no more images right than it does.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import combinations

import numpy as np

from robustviews import artifacts, sanity
from robustviews.artifacts import ArtifactError
from robustviews.attacks import Attack, AutoAttack, PgdAttack, flag_name
from robustviews.provenance.disk import Disk
from robustviews.provenance.findings import Finding, State, verified
from robustviews.provenance.values import Flags, flag_names, read_flags
from robustviews.study import networks
from robustviews.study.jobs import Job
from robustviews.tasks.classification import CLASSIFICATION
from robustviews.tasks.protocol import Task

_CHANCE = 1e-4  # with a hundred pairs of radii whose accuracies are equal, one false doubt in 100
_SHARED = 0.01  # of the test images that may also be training images
SLIGHT = 0.01  # differences of quality that count nothing: large radii leave next to none
_STEPS = 20  # of PGD in the sanity checks
_DEVIATIONS = 3.0  # by which an accuracy of guessing may exceed 1 / classes


def check(disk: Disk, job: Job) -> list[Finding]:
    """Return whether the result of a data set or of an attack can be; nothing for other jobs."""
    if job.rule == "data":
        return list(_data(disk, job))
    flags = _flags(disk, job)
    if flags is None:
        return []
    path, task = job.writes[0], disk.study.probes[job.parts[1]].task
    problems = [*_rising(flags, flag_names(job), task), *_above_checks(disk, job, flags)]
    if problems:
        text = "; ".join(problems) + "; attack some images again: robustviews audit --again 20"
        return [Finding("plausible", str(path), State.DOUBT, text)]
    text = (
        "no radius is right on more images than a smaller one, or than the checks, but for chance"
        if task is CLASSIFICATION
        else "no radius has better answers than a smaller one, but for chance"
    )
    return [verified("plausible", path, text)]


def remarks(disk: Disk) -> Iterator[str]:
    """Yield a line for each attack that changed nothing because the network guesses."""
    for job in disk.jobs.values():
        flags = _flags(disk, job)
        if flags is None or disk.study.probes[job.parts[1]].task is not CLASSIFICATION:
            continue  # one over the number of classes is no guess of pixels or boxes
        classes = disk.stated(disk.data_of(job)).result.get("classes")
        if not isinstance(classes, int) or classes < 2:
            continue
        count, chance = len(flags["index"]), 1 / classes
        right = {int((flags[name] == 1).sum()) for name in flag_names(job)}
        limit = chance * count + _DEVIATIONS * math.sqrt(chance * (1 - chance) * count)
        if count and len(right) == 1 and max(right) <= limit:
            yield (
                f"{job.name}: clean and every robust accuracy are {max(right) / count:.1%}, as a "
                f"guess among {classes} classes would be: the network may have diverged"
            )


def _data(disk: Disk, job: Job) -> Iterator[Finding]:
    result = disk.stated(job).result
    equal, count = result.get("equal_images"), result.get("test")
    if not isinstance(equal, dict) or not isinstance(count, int) or "shared" not in equal:
        return  # of an earlier version
    shared = equal["shared"]
    text = f"{shared} of {count} test images are also training images"
    state = State.DOUBT if shared > _SHARED * count else State.VERIFIED
    yield Finding("plausible", str(job.record), state, text)


def _flags(disk: Disk, job: Job) -> Flags | None:
    """Return the flags of an attack; None if they are missing or wrong, as other checks report."""
    if job.rule != "attack":
        return None
    try:
        flags = read_flags(disk, job.name)
        task, truth = disk.study.probes[job.parts[1]].task, flags["labels"]
        wrong = [text for name in flag_names(job) for text in task.wrong(flags[name], truth)]
    except (ArtifactError, LookupError, ValueError):
        return None
    return None if wrong or len(truth) != len(flags["index"]) else flags


def _rising(flags: Flags, radii: list[str], task: Task) -> Iterator[str]:
    qualities = {name: task.quality(flags[name], flags["labels"]) for name in radii}
    for smaller, larger in combinations(radii, 2):
        rises = qualities[larger].astype(float) - qualities[smaller]
        gained, lost = int((rises > SLIGHT).sum()), int((rises < -SLIGHT).sum())
        if _is_improbable(gained, lost):
            yield (
                f"{larger} is right on {gained} images on which {smaller} is wrong, and wrong on "
                f"{lost} on which {smaller} is right: more than chance"
                if task is CLASSIFICATION
                else f"{larger} has better answers than {smaller} about {gained} images, and worse "
                f"about {lost}: more than chance"
            )


def _above_checks(disk: Disk, job: Job, flags: Flags) -> Iterator[str]:
    """Yield each radius at which the attack leaves more images right than PGD-20 of the checks."""
    run, probe, attack = job.parts
    key = ("sanity", networks.examination(disk.study, run, probe))
    if key not in disk.jobs or not _at_least_pgd20(disk.study.attacks[attack]):
        return
    try:
        arrays = artifacts.read_arrays(disk.root / disk.jobs[key].writes[0])
        head = sanity.of_head(arrays, probe)
        _, here, there = np.intersect1d(flags["index"], head["index"], return_indices=True)
        for radius in set(disk.study.attacks[attack].eps).intersection(disk.study.sanity.radii):
            ours, theirs = flags[flag_name(radius)][here] == 1, head[f"pgd_{radius:g}"][there] == 1
            kept, lost = int((ours & ~theirs).sum()), int((theirs & ~ours).sum())
            if _is_improbable(kept, lost):
                yield (
                    f"{flag_name(radius)} is right on {kept} images that PGD-20 of the sanity "
                    f"checks fools, and wrong on {lost} that it does not: more than chance"
                )
    except (ArtifactError, LookupError, ValueError):
        return  # other checks report the file


def _at_least_pgd20(attack: Attack) -> bool:
    """Return whether an attack should be no weaker than PGD-20 of the checks."""
    if isinstance(attack, PgdAttack):
        is_alike = attack.loss in ("cross_entropy", "ce") and attack.norm == "linf"
        return is_alike and attack.steps >= _STEPS and not attack.weak
    return isinstance(attack, AutoAttack) and attack.norm == "linf"


def _is_improbable(gained: int, lost: int) -> bool:
    """Return whether so many images are better, though each were as likely to be worse."""
    if gained <= lost:
        return False
    trials = gained + lost
    ways = sum(math.comb(trials, count) for count in range(gained, trials + 1))
    return float(ways / 2**trials) < _CHANCE
