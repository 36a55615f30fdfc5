"""Calibration: measure this machine for an estimate in about a minute, and save the answers.

As many processes measure at a time as jobs will run, so that they slow each other down as jobs do.
"""

from __future__ import annotations

import contextlib
import io
import logging
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path

import torch

from robustviews import artifacts
from robustviews.artifacts import ArtifactError
from robustviews.estimating import measure, start_up, tally
from robustviews.estimating.question import About, Answer, Question
from robustviews.machine import gpus, runtime
from robustviews.study import fingerprint, specs

log = logging.getLogger(__name__)

FOLDER = Path("results/.calibration")
_LEAST = 4.0  # seconds per question: few precise answers are better than many imprecise ones
SECONDS = 60.0  # the longest calibration
# Stages whose jobs let CUDA search for its fastest algorithms; only AutoAttack's do not.
_TUNED = ("pretrain", "probe", "network")


@dataclass
class Calibration:
    """The measurements of a device, with this version of torch, by this code."""

    device: str  # its name
    torch: str
    code: str  # digest of the measured and of the measuring code
    date: str = ""  # of the last measurement, UTC
    answers: dict[str, Answer] = field(default_factory=dict)  # by key of the question

    def add(self, answers: dict[str, Answer]) -> None:
        """Add new answers, and update the date."""
        self.answers |= answers
        self.date = f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC"


def load(device: torch.device, folder: Path = FOLDER) -> Calibration:
    """Return the saved calibration of a device; an empty one if device or code have changed."""
    environment = runtime.environment(device)
    fresh = Calibration(environment["device"], environment["torch"], code_digest())
    try:
        saved = Calibration(**artifacts.read_json(_path(device, folder)))
    except (ArtifactError, TypeError):  # missing, or from another version of this package
        return fresh
    matches = all(
        getattr(saved, name) == getattr(fresh, name) for name in ("device", "torch", "code")
    )
    return saved if matches else fresh


def code_digest(source: Path = fingerprint.SOURCE) -> str:
    """Hash the measured and the measuring code in the folder of a package."""
    return fingerprint.digest(
        *specs.NETWORK,
        ("methods", "METHODS"),  # whole tables, since a question may hold any of their classes
        ("regimes", "REGIMES"),
        ("probe", "PROBES"),
        ("attacks", "ATTACKS"),
        ("estimating.calibrate", "serve"),
        ("estimating.start_up", "starts"),
        ("estimating.start_up", "begin"),  # named only in a string, for a separate process
        source=source,
    )


def save(calibration: Calibration, device: torch.device, folder: Path = FOLDER) -> None:
    """Save a calibration."""
    artifacts.write_json(_path(device, folder), asdict(calibration))


def _path(device: torch.device, folder: Path) -> Path:
    return folder / f"{str(device).replace(':', '-')}.json"


def answer(
    questions: Sequence[Question],
    device: torch.device,
    *,
    threads: int,
    at_once: int,
    deterministic: bool,
    seconds: float = SECONDS,
) -> dict[str, Answer]:
    """Answer questions in several processes within a time limit.

    Args:
        questions: most important first.
        device: device of the jobs.
        threads: threads per job.
        at_once: jobs at a time.
        deterministic: whether jobs refuse operations that are not reproducible.
        seconds: time limit for all questions together.

    Returns:
        Answers by key of the question, each with the question's `weight`; without those that could
        not be measured in time.
    """
    end = time.monotonic() + seconds
    answers = _starts(questions, device, seconds, at_once=at_once)
    left = deque(question for question in questions if question.stage != "start")
    workers = _start_workers(min(at_once, len(left)), device, threads, deterministic)
    count = len(workers)

    def send_next(worker: Connection) -> None:
        """Send the next question with its share of the remaining time; None after the last."""
        share = max(_LEAST, (end - time.monotonic()) * count / max(count, len(left)))
        with contextlib.suppress(OSError):  # the process ended; `recv` below reports it
            worker.send((left.popleft(), share) if left else None)

    for worker in list(workers):
        send_next(worker)
    while workers and (ready := wait(list(workers), max(0.0, end - time.monotonic()))):
        for worker in [connection for connection in workers if connection in ready]:
            try:
                question, measured = worker.recv()
            except EOFError:
                process = workers.pop(worker)
                process.join()
                if process.exitcode == -signal.SIGKILL:
                    log.warning("calibration: a measurement was killed; perhaps memory ran out")
                continue
            if measured is None:
                send_next(worker)
            else:
                answers[question.key] = measured | {"weight": question.weight}
    for process in workers.values():  # their questions take too long
        process.terminate()
        process.join()
    return answers


def _starts(
    questions: Sequence[Question], device: torch.device, seconds: float, *, at_once: int
) -> dict[str, Answer]:
    """Answer the questions on starts of jobs; none if a start fails or takes too long."""
    asked = [question for question in questions if question.stage == "start"]
    try:
        measured = start_up.starts([q.about for q in asked], device, seconds, at_once=at_once)
    except subprocess.SubprocessError as error:
        log.warning("calibration of starts: %s", error)
        return {}
    return {q.key: found | {"weight": q.weight} for q, found in zip(asked, measured, strict=True)}


def _start_workers(
    count: int, device: torch.device, threads: int, deterministic: bool
) -> dict[Connection, BaseProcess]:
    spawn = multiprocessing.get_context("spawn")  # a fork would share the state of CUDA
    workers: dict[Connection, BaseProcess] = {}
    for _ in range(count):
        here, there = spawn.Pipe()
        arguments = (there, str(device), threads, deterministic)
        workers[here] = spawn.Process(target=serve, args=arguments, daemon=True)
        workers[here].start()
        there.close()
    return workers


def serve(connection: Connection, device: str, threads: int, deterministic: bool) -> None:
    """Answer questions from a connection; the main function of a worker process.

    Args:
        connection: receives (question, seconds), or None at the end; sends (question, answer) for
            each better answer, then (question, None).
        device: device to measure.
        threads: threads per job.
        deterministic: as in `answer`.
    """
    parent = multiprocessing.parent_process()
    if parent is not None:  # otherwise it would measure on after its parent was killed
        threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    sys.stderr = io.StringIO()  # progress bars
    with gpus.taken(device):
        while (task := connection.recv()) is not None:
            question, seconds = task
            tuned = question.stage in _TUNED
            runtime.configure(threads=threads, deterministic=deterministic, tuned=tuned)
            where = torch.device(device)
            try:
                for measured in STAGES[question.stage](question.about, where, seconds):
                    connection.send((question, measured))
            except Exception as error:  # of any kind: other questions can still be answered
                log.warning("calibration of %s: %s", question.key, error)
            connection.send((question, None))


def _end_with(parent: BaseProcess) -> None:
    parent.join()
    os._exit(1)


STAGES: dict[str, Callable[[About, torch.device, float], Iterator[Answer]]] = {
    "scenes": measure.scenes,
    "pretrain": measure.training_step,
    "probe": measure.head,
    "network": measure.network,
    "attack": tally.attack,
}
