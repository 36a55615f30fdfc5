"""The verb `estimate`: what a study will take, told before anything runs."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from robustviews.estimating.estimate import Estimate, estimates, questions, schedule
from robustviews.machine.humanize import duration, size
from robustviews.study import Study, load_study
from robustviews.study import jobs as pending

if TYPE_CHECKING:
    from robustviews.estimating.calibrate import Calibration


def estimate(options: argparse.Namespace) -> None:
    """Tell time, memory and disk of what is still to be done."""
    from robustviews.estimating import calibrate
    from robustviews.machine import runtime

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
    every, jobs = pending.jobs(study), pending.pending(study)
    asked = questions(study, jobs.values(), context)
    known = calibrate.load(device)
    new = [each for each in asked if options.recalibrate or each.key not in known.answers]
    if new:
        sys.stderr.write(
            f"calibrating on {known.device}: {len(new)} measurements, "
            f"at most {calibrate.SECONDS:.0f} s\n"
        )
        answers = calibrate.answer(
            new,
            device,
            threads=settings.threads,
            at_once=at_once,
            deterministic=settings.deterministic,
        )
        known.add(answers)
        calibrate.save(known, device)
    found = estimates(study, jobs.values(), context, known.answers)
    done = len(every) - len(jobs)
    said = (
        [json.dumps(_as_json(study, found, known, at_once), indent=1)]
        if options.json
        else _lines(study, found, known, at_once=at_once, done=done, each=options.each)
    )
    for line in said:
        sys.stdout.write(f"{line}\n")


def _jobs_at_once(device: str, threads: int) -> int:
    """Return how many jobs the workflow's default profile runs at a time."""
    if device != "cpu":
        return 1
    affinity = getattr(os, "sched_getaffinity", None)  # Linux alone has it
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    return max(1, cores // threads)


def _lines(
    study: Study, found: list[Estimate], known: Calibration, *, at_once: int, done: int, each: bool
) -> Iterator[str]:
    """Yield what to tell people."""
    if not found:
        yield f"{study.study}: all {done} jobs are done"
        return
    threads = study.runtime.threads
    yield f"{study.study}: {len(found)} of {len(found) + done} jobs to do, {at_once} at a time"
    yield f"on {known.device}, {threads} {'thread' if threads == 1 else 'threads'} a job"
    yield f"measured {known.date}, torch {known.torch}"
    yield ""
    titles = ("rule", "jobs", "time", "memory", "disk", "most expensive job")
    yield from _aligned([titles, *(_row(rule, some) for rule, some in _by_rule(found))])
    yield ""
    if each:
        yield from _aligned([("time", "memory", "disk", "job"), *map(_job_row, found)])
        yield ""
    yield _total(found, at_once)
    yield from _remarks(found)


def _by_rule(found: list[Estimate]) -> Iterator[tuple[str, list[Estimate]]]:
    for rule in pending.RULES:
        some = [each for each in found if each.job.rule == rule]
        if some:
            yield rule, some


def _row(rule: str, some: list[Estimate]) -> tuple[str, ...]:
    """Return a line for the jobs of a rule, one after the other."""
    told = [each for each in some if each.amount is not None]
    if not told:
        return rule, str(len(some)), "unknown", "unknown", "unknown", ""
    amounts = [each.amount for each in told if each.amount is not None]
    seconds = sum(amount.seconds for amount in amounts)
    some_unknown = "> " if len(told) < len(some) else ""
    dearest = max(zip(told, amounts, strict=True), key=lambda pair: pair[1].seconds)
    name = dearest[0].job.name
    return (
        rule,
        str(len(some)),
        f"{some_unknown}{duration(seconds)}",
        size(max(amount.memory for amount in amounts)),
        f"{some_unknown}{size(sum(amount.disk for amount in amounts))}",
        f"{duration(dearest[1].seconds)}: {name}" if name and len(some) > 1 else "",
    )


def _job_row(each: Estimate) -> tuple[str, ...]:
    name = " ".join(part for part in each.job.key if part)
    if each.amount is None:
        return "unknown", "unknown", "unknown", name
    rough = "about " if each.rough else ""
    seconds = f"{rough}{duration(each.amount.seconds)}"
    return seconds, size(each.amount.memory), size(each.amount.disk), name


def _total(found: list[Estimate], at_once: int) -> str:
    seconds, memory = schedule(found, at_once=at_once)
    disk = sum(each.amount.disk for each in found if each.amount is not None)
    unknown = any(each.amount is None for each in found)
    return (
        f"whole study: {'more than ' if unknown else ''}{duration(seconds)}, "
        f"{size(memory)} of memory, {size(disk)} on disk"
    )


def _remarks(found: list[Estimate]) -> Iterator[str]:
    """Yield what is not known, or only roughly."""
    for note in dict.fromkeys(each.note for each in found if each.note):
        count = sum(each.note == note for each in found)
        yield f"- {note} ({count} {'job' if count == 1 else 'jobs'})"
    rough = sum(each.rough for each in found)
    if rough:
        yield (
            f"- {rough} jobs were not measured in time, but scaled from the nearest; "
            "another `estimate` goes on measuring"
        )


def _aligned(rows: Iterable[tuple[str, ...]]) -> Iterator[str]:
    """Yield lines whose columns begin below each other."""
    rows = list(rows)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        yield "  ".join(cells).rstrip()


def _as_json(
    study: Study, found: list[Estimate], known: Calibration, at_once: int
) -> dict[str, Any]:
    seconds, memory = schedule(found, at_once=at_once)
    jobs = [
        {
            "rule": each.job.rule,
            "name": each.job.name,
            "seconds": each.amount and each.amount.seconds,
            "memory": each.amount and each.amount.memory,
            "disk": each.amount and each.amount.disk,
            "note": each.note,
            "rough": each.rough,
        }
        for each in found
    ]
    return {
        "study": study.study,
        "device": known.device,
        "torch": known.torch,
        "measured": known.date,
        "at_once": at_once,
        "seconds": seconds,
        "memory": memory,
        "disk": sum(each.amount.disk for each in found if each.amount is not None),
        "unknown": sum(each.amount is None for each in found),
        "jobs": jobs,
    }
