"""The verb `estimate`: time, memory and disk of a study before anything runs."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from robustviews.estimating.estimate import Estimate, estimates, questions, schedule
from robustviews.machine import gpus
from robustviews.machine.humanize import duration, size
from robustviews.study import Study, load_study
from robustviews.study import jobs as pending

if TYPE_CHECKING:
    from robustviews.estimating.calibrate import Calibration


def estimate(options: argparse.Namespace) -> None:
    """Estimate time, memory and disk of the jobs that are still to run."""
    from robustviews.estimating import calibrate
    from robustviews.machine import memory, runtime

    study = load_study(options.study)
    device = runtime.choose_device(options.device)
    settings = study.runtime
    at_once = options.jobs or _jobs_at_once(device.type, settings.threads)
    context = {
        "device": device.type,
        "threads": settings.threads,
        "at_once": at_once,
        "deterministic": settings.deterministic,
    }
    all_jobs, jobs = pending.jobs(study), pending.pending(study)
    needed = questions(study, jobs.values(), context)
    calibration = calibrate.load(device)
    new = [q for q in needed if options.recalibrate or q.key not in calibration.answers]
    if new:
        sys.stderr.write(
            f"calibrating on {calibration.device}: {len(new)} measurements, "
            f"at most {calibrate.SECONDS:.0f} s\n"
        )
        answers = calibrate.answer(
            new,
            device,
            threads=settings.threads,
            at_once=at_once,
            deterministic=settings.deterministic,
        )
        calibration.add(answers)
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
    yield from _aligned([titles, *(_row(rule, group) for rule, group in _by_rule(estimates))])
    yield ""
    if every_job:
        yield from _aligned([("time", "memory", "disk", "job"), *map(_job_row, estimates)])
        yield ""
    yield _total(estimates, at_once)
    yield from _remarks(estimates)
    yield from _shortages(estimates, at_once, left)


def _shortages(estimates: list[Estimate], at_once: int, left: float) -> Iterator[str]:
    """Yield what to change if jobs need more memory than there is."""
    known = [(one.amount.memory, one.job) for one in estimates if one.amount is not None]
    most, job = max(known, key=lambda pair: pair[0], default=(0.0, None))
    together = schedule(estimates, at_once=at_once)[1]
    if job is not None and most > left:
        fix = {"pretrain": "lower batch_size or views.count", "data": "use another machine"}
        todo = fix.get(job.rule, "lower runtime.evaluation_batch")
        name = " ".join(part for part in job.key if part)
        yield f"- {name} needs {size(most)} of memory, here are {size(left)}: {todo}"
    elif together > left:
        yield f"- jobs need {size(together)} of memory together, here are {size(left)}: run fewer"


def _by_rule(estimates: list[Estimate]) -> Iterator[tuple[str, list[Estimate]]]:
    for rule in pending.RULES:
        group = [estimate for estimate in estimates if estimate.job.rule == rule]
        if group:
            yield rule, group


def _row(rule: str, group: list[Estimate]) -> tuple[str, ...]:
    """Return a table row that sums the jobs of a rule."""
    measured = [estimate for estimate in group if estimate.amount is not None]
    if not measured:
        return rule, str(len(group)), *["unknown"] * 5, ""
    amounts = [estimate.amount for estimate in measured if estimate.amount is not None]
    seconds, passes = (sum(getattr(one, name) for one in amounts) for name in ("seconds", "passes"))
    at_least = "> " if len(measured) < len(group) else ""
    longest = max(zip(measured, amounts, strict=True), key=lambda pair: pair[1].seconds)
    name = longest[0].job.name
    return (
        rule,
        str(len(group)),
        f"{at_least}{duration(seconds)}",
        size(max(amount.memory for amount in amounts)),
        f"{at_least}{size(sum(amount.disk for amount in amounts))}",
        f"{at_least}{_millions(passes)}" if passes else "",
        f"{at_least}{sum(amount.flop for amount in amounts) / 1e15:.3g}" if passes else "",
        f"{duration(longest[1].seconds)}: {name}" if name and len(group) > 1 else "",
    )


def _job_row(estimate: Estimate) -> tuple[str, ...]:
    name = " ".join(part for part in estimate.job.key if part)
    if estimate.amount is None:
        return "unknown", "unknown", "unknown", name
    rough = "about " if estimate.rough else ""
    seconds = f"{rough}{duration(estimate.amount.seconds)}"
    return seconds, size(estimate.amount.memory), size(estimate.amount.disk), name


def _total(estimates: list[Estimate], at_once: int) -> str:
    seconds, memory = schedule(estimates, at_once=at_once)
    amounts = [estimate.amount for estimate in estimates if estimate.amount is not None]
    disk, passes, flop = (
        sum(getattr(amount, name) for amount in amounts) for name in ("disk", "passes", "flop")
    )
    unknown = any(estimate.amount is None for estimate in estimates)
    return (
        f"whole study: {'more than ' if unknown else ''}{duration(seconds)}, "
        f"{size(memory)} of memory, {size(disk)} on disk; "
        f"{flop / 1e15:.3g} PFLOP in {_millions(passes)} passes of a view through an encoder"
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
            "seconds": estimate.amount and estimate.amount.seconds,
            "memory": estimate.amount and estimate.amount.memory,
            "disk": estimate.amount and estimate.amount.disk,
            "passes": estimate.amount and estimate.amount.passes,
            "flop": estimate.amount and estimate.amount.flop,
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
        "disk": sum(estimate.amount.disk for estimate in estimates if estimate.amount is not None),
        "unknown": sum(estimate.amount is None for estimate in estimates),
        "jobs": jobs,
    }
