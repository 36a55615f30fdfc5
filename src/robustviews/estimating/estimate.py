"""Estimate a study before it runs: what to measure, what each job takes, and the schedule."""

from __future__ import annotations

import heapq
import json
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from robustviews.estimating.amounts import Amount, amount
from robustviews.estimating.question import Answer, Question, UnknownError
from robustviews.study.jobs import Job, Key
from robustviews.study.schema import Study

# Paths in a key, of what decides the kind of work: no answer is scaled from one kind to another.
_SAME = ("/0", "/1/attack/kind", "/1/task", "/1/probe/tuned")
_NAMES = {
    "start": "the start of a job",
    "scenes": "the composition of scenes",
    "pretrain": "a training",
    "probe": "a probe",
    "network": "a network",
    "attack": "this kind of attack",
}


@dataclass(frozen=True)
class Estimate:
    """The estimate of a job."""

    job: Job  # a job still to run
    amount: Amount | None  # time, memory and disk of the job; None if unknown
    note: str = ""  # why the amount is unknown, or what it leaves out; empty otherwise
    rough: bool = False  # whether an answer was scaled from that of another question


@dataclass
class _Book:
    """The measured answers, and the questions asked so far."""

    measured: dict[str, Answer]  # answers by key of the question
    asked: dict[str, Question] = field(default_factory=dict)  # questions by key
    rough: bool = False  # whether an answer was scaled from that of another question

    def store(self, question: Question) -> Answer:
        """Store a question, and return an answer of zeros."""
        self.asked[question.key] = question
        return defaultdict(float)

    def ask(self, question: Question) -> Answer:
        """Return the measured answer, or one scaled from the nearest question."""
        if question.key in self.measured:
            return self.measured[question.key]
        self.rough = True
        return nearest(question, self.measured)


def questions(study: Study, jobs: Iterable[Job], context: dict[str, Any]) -> list[Question]:
    """Return the questions to measure for some jobs: each once, light ones first.

    The context is that of `amounts.amount`.
    """
    book = _Book({})
    for job in jobs:
        try:
            amount(study, job, context, book.store)
        except UnknownError:
            continue  # `estimates` reports it
    return _ordered(list(book.asked.values()))


def _ordered(unordered: list[Question]) -> list[Question]:
    """Order questions so that kinds alternate and each kind begins with its lightest.

    Whichever questions are answered in time, the others can then be scaled from a similar one.
    """
    kinds: dict[tuple[Any, ...], list[Question]] = {}
    for question in sorted(unordered, key=lambda question: question.weight):
        kinds.setdefault(_kind(_leaves(json.loads(question.key))), []).append(question)
    ranked = [pair for group in kinds.values() for pair in enumerate(group)]
    return [question for _, question in sorted(ranked, key=lambda pair: pair[0])]


def estimates(
    study: Study, jobs: Iterable[Job], context: dict[str, Any], measured: dict[str, Answer]
) -> list[Estimate]:
    """Return the estimate of each job, from measured answers by key of the question.

    A missing answer is scaled from the nearest. The context is that of `amounts.amount`.
    """
    results = []
    for job in jobs:
        book = _Book(measured)
        try:
            taken = amount(study, job, context, book.ask)
        except UnknownError as error:
            results.append(Estimate(job, None, str(error)))
        else:
            results.append(Estimate(job, taken, taken.note, book.rough))
    return results


def nearest(question: Question, measured: dict[str, Answer]) -> Answer:
    """Scale the answer to the most similar question by the rough work of both questions.

    Raises:
        UnknownError: no question of this stage was measured; or none on this kind of attack, task
            or probe, since one kind may take a hundred times the passes of another.
    """
    target = _leaves(json.loads(question.key))
    common: dict[str, int] = {}
    for key in measured:
        leaves = _leaves(json.loads(key))
        if _kind(leaves) == _kind(target):
            common[key] = len(target.items() & leaves.items())
    if not common:
        name = _NAMES[question.stage]
        raise UnknownError(f"no time was left to measure {name}; run `estimate` again")
    answer = measured[max(common, key=lambda key: common[key])]
    ratio = 1.0 if question.stage == "attack" else question.weight / answer["weight"]
    return {k: v * ratio if k.endswith(("seconds", "bytes")) else v for k, v in answer.items()}


def _kind(leaves: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(leaves.get(path) for path in _SAME)


def _leaves(value: Any, path: str = "") -> dict[str, Any]:  # noqa: ANN401  # JSON
    if isinstance(value, dict | list):
        pairs = value.items() if isinstance(value, dict) else enumerate(value)
        return {k: v for name, child in pairs for k, v in _leaves(child, f"{path}/{name}").items()}
    return {path: value}


def schedule(estimates: Iterable[Estimate], *, at_once: int) -> tuple[float, float]:
    """Simulate the run of some jobs, trainings first as in the workflow.

    Args:
        estimates: of jobs, each after those that it needs; unknown ones take nothing.
        at_once: jobs at a time; no job takes more slots than this.

    Returns:
        Seconds until the last job ends, and the bytes that jobs need together at the peak.
    """
    jobs = {estimate.job.key: estimate.job for estimate in estimates}
    amounts = {estimate.job.key: estimate.amount or Amount(0, 0, 0) for estimate in estimates}
    waiting = {key: {need for need in job.needs if need in jobs} for key, job in jobs.items()}
    order = {key: (key[0] != "pretrain", number) for number, key in enumerate(jobs)}
    ready = [(order[key], key) for key in jobs if not waiting[key]]
    running: list[tuple[float, Key]] = []
    now = peak = used = 0.0
    free = at_once
    while ready or running:
        for entry in sorted(ready):
            taken = amounts[entry[1]]
            if taken.places <= free:
                ready.remove(entry)
                heapq.heappush(running, (now + taken.seconds, entry[1]))
                free -= taken.places
                used += taken.memory
                peak = max(peak, used)
        now, ended = heapq.heappop(running)
        free += amounts[ended].places
        used -= amounts[ended].memory
        for key in [key for key, needs in waiting.items() if ended in needs]:
            waiting[key].remove(ended)
            if not waiting[key]:
                ready.append((order[key], key))
    return now, peak
