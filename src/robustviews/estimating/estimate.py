"""What a study will take before it runs: what has to be measured for it, and the jobs in turn."""

from __future__ import annotations

import heapq
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from robustviews.estimating.amounts import Amount, Answer, Question, UnknownError, amount
from robustviews.study.jobs import Job, Key
from robustviews.study.schema import Study

_SAME = ("/0", "/1/attack/kind")  # stage, and class of the attack
_NAMES = {
    "start": "the start of a job",
    "pretrain": "a training",
    "probe": "a probe",
    "network": "a network",
    "attack": "this kind of attack",
}


@dataclass(frozen=True)
class Estimate:
    """A job and what it takes.

    Attributes:
        job: still to be done.
        amount: what it takes; None when that is unknown.
        note: why it is unknown, or what is not counted; empty otherwise.
        rough: whether some answer was scaled from that to another question.
    """

    job: Job
    amount: Amount | None
    note: str = ""
    rough: bool = False


@dataclass
class _Book:
    """Answers that were measured, and what was asked of them.

    Attributes:
        measured: answers by key of the question.
        asked: questions by key.
        rough: whether some answer had to be scaled from another one.
    """

    measured: dict[str, Answer]
    asked: dict[str, Question] = field(default_factory=dict)
    rough: bool = False

    def note(self, question: Question) -> Answer:
        """Note a question whose answer does not matter yet."""
        self.asked[question.key] = question
        return _Blank()

    def ask(self, question: Question) -> Answer:
        """Return the measured answer, else one scaled from the nearest question."""
        if question.key in self.measured:
            return self.measured[question.key]
        self.rough = True
        return nearest(question, self.measured)


class _Blank(Answer):
    def __missing__(self, name: str) -> float:
        return 0.0


def questions(study: Study, jobs: Iterable[Job], context: dict[str, Any]) -> list[Question]:
    """Return what to measure to tell what jobs take, each question once, light ones first.

    Args:
        study: that the jobs are of.
        jobs: to be estimated.
        context: as in `amounts.amount`.
    """
    book = _Book({})
    for job in jobs:
        try:
            amount(study, job, context, book.note)
        except UnknownError:
            continue  # and so told by `estimates`
    return _in_turn(list(book.asked.values()))


def _in_turn(asked: list[Question]) -> list[Question]:
    """Put light questions first, and one of each kind in turn.

    So whatever there is time for, the others can be scaled from something near.
    """
    kinds: dict[tuple[str, type], list[Question]] = {}
    for question in sorted(asked, key=lambda each: each.weight):
        kind = question.stage, type(question.about.get("attack"))  # as `_SAME` has it
        kinds.setdefault(kind, []).append(question)
    ranked = [pair for some in kinds.values() for pair in enumerate(some)]
    return [question for _, question in sorted(ranked, key=lambda pair: pair[0])]


def estimates(
    study: Study, jobs: Iterable[Job], context: dict[str, Any], measured: dict[str, Answer]
) -> list[Estimate]:
    """Return what each job takes.

    Args:
        study: that the jobs are of.
        jobs: to be estimated.
        context: as in `amounts.amount`.
        measured: answers by key of the question; one that is missing is scaled from the nearest.
    """
    found = []
    for job in jobs:
        book = _Book(measured)
        try:
            taken = amount(study, job, context, book.ask)
        except UnknownError as error:
            found.append(Estimate(job, None, str(error)))
        else:
            found.append(Estimate(job, taken, taken.note, book.rough))
    return found


def nearest(question: Question, measured: dict[str, Answer]) -> Answer:
    """Scale the answer to the question that has most in common, by the rough work of both.

    Raises:
        UnknownError: no question of this stage was measured; or none about this kind of attack, of
            which one may take a hundred times the passes of another.
    """
    wanted = _leaves(json.loads(question.key))
    alike: dict[str, int] = {}
    for key in measured:
        leaves = _leaves(json.loads(key))
        if all(leaves.get(same) == wanted.get(same) for same in _SAME):
            alike[key] = len(wanted.items() & leaves.items())
    if not alike:
        name = _NAMES[question.stage]
        raise UnknownError(f"no time was left to measure {name}; another `estimate` goes on")
    answer = measured[max(alike, key=lambda key: alike[key])]
    ratio = 1.0 if question.stage == "attack" else question.weight / answer["weight"]
    return {k: v * ratio if k.endswith(("seconds", "bytes")) else v for k, v in answer.items()}


def _leaves(value: Any, path: str = "") -> dict[str, Any]:  # noqa: ANN401  # JSON
    if isinstance(value, dict | list):
        pairs = value.items() if isinstance(value, dict) else enumerate(value)
        return {k: v for name, each in pairs for k, v in _leaves(each, f"{path}/{name}").items()}
    return {path: value}


def schedule(found: Iterable[Estimate], *, at_once: int) -> tuple[float, float]:
    """Run jobs in thought, trainings first as the workflow does.

    Args:
        found: jobs, each after those that it needs; unknown ones take nothing.
        at_once: jobs at a time; none stands for more.

    Returns:
        Seconds until the last job ends, and the bytes that jobs need together at the peak.
    """
    jobs = {each.job.key: each.job for each in found}
    amounts = {each.job.key: each.amount or Amount(0, 0, 0) for each in found}
    left = {key: {need for need in job.needs if need in jobs} for key, job in jobs.items()}
    order = {key: (key[0] != "pretrain", number) for number, key in enumerate(jobs)}
    ready = [(order[key], key) for key in jobs if not left[key]]
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
        for key in [key for key, needs in left.items() if ended in needs]:
            left[key].remove(ended)
            if not left[key]:
                ready.append((order[key], key))
    return now, peak
