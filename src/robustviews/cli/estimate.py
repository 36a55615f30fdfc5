"""The verb `estimate`: time, memory and disk of a study before anything runs."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from robustviews.estimating.amounts import Amount
from robustviews.estimating.estimate import Estimate, estimates, questions, schedule
from robustviews.machine import gpus
from robustviews.machine.humanize import duration, size
from robustviews.study import Study, load_study
from robustviews.study import jobs as pending
from robustviews.study.jobs import Job

if TYPE_CHECKING:
    from robustviews.estimating.calibrate import Calibration

_NUMBERS = ("seconds", "memory", "disk", "passes", "flop")  # of an amount, in JSON


def estimate(options: argparse.Namespace) -> None:
    """Estimate time, memory and disk of the jobs that are still to run."""
    from robustviews.estimating import calibrate
    from robustviews.machine import memory, runtime

    study = load_study(options.study)
    device = runtime.choose_device(options.device)
    settings = study.runtime
    at_once = options.jobs or _jobs_at_once(device.type, settings.threads)
    how: dict[str, Any] = {"threads": settings.threads, "deterministic": settings.deterministic}
    how["at_once"] = at_once
    context = {"device": device.type, **how}
    all_jobs, jobs = pending.jobs(study), pending.pending(study)
    needed = questions(study, jobs.values(), context)
    calibration = calibrate.load(device)
    new = [q for q in needed if options.recalibrate or q.key not in calibration.answers]
    if new:
        sys.stderr.write(
            f"calibrating on {calibration.device}: {len(new)} measurements, "
            f"at most {calibrate.SECONDS:.0f} s\n"
        )
        calibration.add(calibrate.answer(new, device, **how))
        try:
            calibrate.save(calibration, device)
        except OSError as error:  # the estimate is right nonetheless
            sys.stderr.write(f"not kept: {error.filename}: {error.strerror}\n")
    results = estimates(study, jobs.values(), context, calibration.answers)
    finished = len(all_jobs) - len(jobs)
    lines = (
        [json.dumps(_as_json(study, results, calibration, at_once), indent=1)]
        if options.json
        else _lines(
            study,
            results,
            calibration,
            at_once=at_once,
            finished=finished,
            every_job=options.each,
            left=memory.available(device),
        )
    )
    for line in lines:
        sys.stdout.write(f"{line}\n")


def _jobs_at_once(device: str, threads: int) -> int:
    """Return how many jobs the workflow's default profile runs at a time."""
    if device != "cpu":
        return max(1, len(gpus.visible()))
    affinity = getattr(os, "sched_getaffinity", None)  # only on Linux
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    return max(1, cores // threads)


def _lines(
    study: Study,
    estimates: list[Estimate],
    calibration: Calibration,
    *,
    at_once: int,
    finished: int,
    every_job: bool,
    left: float,
) -> Iterator[str]:
    """Yield the lines of the report; `left` are the available bytes of memory."""
    if not estimates:
        yield f"{study.study}: all {finished} jobs are done"
        return
    threads, total = study.runtime.threads, len(estimates) + finished
    yield f"{study.study}: {len(estimates)} of {total} jobs to do, {at_once} at a time"
    yield f"on {calibration.device}, {threads} {'thread' if threads == 1 else 'threads'} per job"
    yield f"measured {calibration.date}, torch {calibration.torch}"
    yield ""
    titles = ("rule", "jobs", "time", "memory", "disk", "passes", "PFLOP", "most expensive job")
    by_rule = {rule: [one for one in estimates if one.job.rule == rule] for rule in pending.RULES}
    yield from _aligned([titles, *(_row(rule, group) for rule, group in by_rule.items() if group)])
    yield ""
    if every_job:
        yield from _aligned([("time", "memory", "disk", "job"), *map(_job_row, estimates)])
        yield ""
    yield _whole(estimates, at_once)
    yield from _remarks(estimates)
    yield from _shortages(estimates, at_once, left)


def _shortages(estimates: list[Estimate], at_once: int, left: float) -> Iterator[str]:
    """Yield what to change if jobs need more memory than there is."""
    largest = max(_known(estimates), key=lambda pair: pair[0].memory, default=None)
    together = schedule(estimates, at_once=at_once)[1]
    if largest is not None and largest[0].memory > left:
        most, job = largest[0].memory, largest[1]
        fix = {"pretrain": "lower batch_size or views.count", "data": "use another machine"}
        todo = fix.get(job.rule, "lower runtime.evaluation_batch")
        name = " ".join(part for part in job.key if part)
        yield f"- {name} needs {size(most)} of memory, here are {size(left)}: {todo}"
    elif together > left:
        yield f"- jobs need {size(together)} of memory together, here are {size(left)}: run fewer"


def _row(rule: str, group: list[Estimate]) -> tuple[str, ...]:
    """Return a table row that sums the jobs of a rule."""
    known = _known(group)
    if not known:
        return rule, str(len(group)), *["unknown"] * 5, ""
    total = _total(group)
    at_least = "> " if len(known) < len(group) else ""
    longest, job = max(known, key=lambda pair: pair[0].seconds)
    return (
        rule,
        str(len(group)),
        f"{at_least}{duration(total.seconds)}",
        size(total.memory),
        f"{at_least}{size(total.disk)}",
        f"{at_least}{_millions(total.passes)}" if total.passes else "",
        f"{at_least}{total.flop / 1e15:.3g}" if total.passes else "",
        f"{duration(longest.seconds)}: {job.name}" if job.name and len(group) > 1 else "",
    )


def _job_row(estimate: Estimate) -> tuple[str, ...]:
    name = " ".join(part for part in estimate.job.key if part)
    if estimate.amount is None:
        return "unknown", "unknown", "unknown", name
    rough = "about " if estimate.rough else ""
    seconds = f"{rough}{duration(estimate.amount.seconds)}"
    return seconds, size(estimate.amount.memory), size(estimate.amount.disk), name


def _known(estimates: list[Estimate]) -> list[tuple[Amount, Job]]:
    return [(one.amount, one.job) for one in estimates if one.amount is not None]


def _total(estimates: list[Estimate]) -> Amount:
    """Return the sums over all jobs with a known amount, and the memory of the largest."""
    amounts = [amount for amount, _ in _known(estimates)]
    sums = {name: sum(getattr(one, name) for one in amounts) for name in _NUMBERS}
    return Amount(**sums | {"memory": max((one.memory for one in amounts), default=0.0)})


def _whole(estimates: list[Estimate], at_once: int) -> str:
    seconds, memory = schedule(estimates, at_once=at_once)
    total, unknown = _total(estimates), len(_known(estimates)) < len(estimates)
    return (
        f"whole study: {'more than ' if unknown else ''}{duration(seconds)}, "
        f"{size(memory)} of memory, {size(total.disk)} on disk; "
        f"{total.flop / 1e15:.3g} PFLOP in {_millions(total.passes)} passes of a view through an "
        "encoder"
    )


def _millions(count: float) -> str:
    return f"{count / 1e6:.3g} M"


def _remarks(estimates: list[Estimate]) -> Iterator[str]:
    """Yield notes on unknown and on rough estimates."""
    for note in dict.fromkeys(estimate.note for estimate in estimates if estimate.note):
        count = sum(estimate.note == note for estimate in estimates)
        yield f"- {note} ({count} {'job' if count == 1 else 'jobs'})"
    rough = sum(estimate.rough for estimate in estimates)
    if rough:
        yield (
            f"- {rough} jobs were not measured in time, but scaled from the nearest measurement; "
            "run `estimate` again to measure more"
        )


def _aligned(rows: Iterable[tuple[str, ...]]) -> Iterator[str]:
    """Yield lines with aligned columns."""
    rows = list(rows)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        yield "  ".join(cells).rstrip()


def _as_json(
    study: Study, estimates: list[Estimate], calibration: Calibration, at_once: int
) -> dict[str, Any]:
    seconds, memory = schedule(estimates, at_once=at_once)
    jobs = [
        {
            "rule": estimate.job.rule,
            "name": estimate.job.name,
            **{name: estimate.amount and getattr(estimate.amount, name) for name in _NUMBERS},
            "note": estimate.note,
            "rough": estimate.rough,
        }
        for estimate in estimates
    ]
    return {
        "study": study.study,
        "device": calibration.device,
        "torch": calibration.torch,
        "measured": calibration.date,
        "at_once": at_once,
        "seconds": seconds,
        "memory": memory,
        "disk": _total(estimates).disk,
        "unknown": len(estimates) - len(_known(estimates)),
        "jobs": jobs,
    }
