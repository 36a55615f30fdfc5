"""Calibration: a minute in which this machine answers what an estimate asks, kept for the next one.

As many processes measure at a time as jobs will run, so that they get in each other's way alike.
"""

from __future__ import annotations

import contextlib
import io
import logging
import multiprocessing
import sys
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
from robustviews.estimating.amounts import About, Answer, Question
from robustviews.machine import runtime
from robustviews.study import fingerprint, specs

log = logging.getLogger(__name__)

FOLDER = Path("results/.calibration")
_LEAST = 4.0  # seconds for a question: rather some answered well than all of them badly
SECONDS = 60.0  # that a calibration takes at most
# Stages in which CUDA may try its algorithms, as jobs let it; only those of AutoAttack do not.
_TUNED = ("pretrain", "probe", "network")


@dataclass
class Calibration:
    """What was measured on a device.

    Attributes:
        device: its name.
        torch: version.
        code: digest of all code that was measured, and that measures.
        date: of the last measurement, UTC.
        answers: by key of the question.
    """

    device: str
    torch: str
    code: str
    date: str = ""
    answers: dict[str, Answer] = field(default_factory=dict)

    def add(self, answers: dict[str, Answer]) -> None:
        """Take up new answers, with the date."""
        self.answers |= answers
        self.date = f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC"


def load(device: torch.device, folder: Path = FOLDER) -> Calibration:
    """Return what was measured on a device; nothing if on another one, or of other code."""
    here = runtime.environment(device)
    fresh = Calibration(here["device"], here["torch"], code_digest())
    try:
        found = Calibration(**artifacts.read_json(_path(device, folder)))
    except (ArtifactError, TypeError):  # none, or of another version of this package
        return fresh
    same = all(getattr(found, name) == getattr(fresh, name) for name in ("device", "torch", "code"))
    return found if same else fresh


def code_digest(source: Path = fingerprint.SOURCE) -> str:
    """Hash all code that a calibration measures, and that measures it.

    Args:
        source: folder of the package.
    """
    return fingerprint.digest(
        *specs.NETWORK,
        ("methods", "METHODS"),  # the tables, since any of their classes comes in a question
        ("regimes", "REGIMES"),
        ("probe", "PROBES"),
        ("attacks", "ATTACKS"),
        ("estimating.calibrate", "serve"),
        ("estimating.start_up", "begin"),  # in a process of its own, which names it in a string
        source=source,
    )


def save(calibration: Calibration, device: torch.device, folder: Path = FOLDER) -> None:
    """Keep what was measured."""
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
    """Measure, in several processes, what can be measured in some seconds.

    Args:
        questions: most important first.
        device: where jobs will run.
        threads: of a job.
        at_once: jobs at a time.
        deterministic: whether jobs refuse operations that are not reproducible.
        seconds: for all questions together.

    Returns:
        Answers by key of the question, each with the question's `weight`; of what could not be
        measured in time there is none.
    """
    end = time.monotonic() + seconds
    left, found = deque(questions), dict[str, Answer]()
    workers = _hire(min(at_once, len(left)), device, threads, deterministic)
    hired = len(workers)

    def give(worker: Connection) -> None:
        """Send the next question and its fair share of the time left; or that there is none."""
        share = max(_LEAST, (end - time.monotonic()) * hired / max(hired, len(left)))
        with contextlib.suppress(OSError):  # it ended: so tells the pipe below
            worker.send((left.popleft(), share) if left else None)

    for worker in list(workers):
        give(worker)
    while workers and (heard := wait(list(workers), max(0.0, end - time.monotonic()))):
        for worker in [each for each in workers if each in heard]:
            try:
                question, said = worker.recv()
            except EOFError:
                workers.pop(worker).join()
                continue
            if said is None:
                give(worker)
            else:
                found[question.key] = said | {"weight": question.weight}
    for process in workers.values():  # what they are at takes too long
        process.terminate()
        process.join()
    return found


def _hire(
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
    """Answer questions that come through a connection, in a process of its own.

    Args:
        connection: brings (question, seconds), or None at the end; takes (question, answer) as soon
            as and whenever there is a better one, and (question, None) at last.
        device: where to measure.
        threads: of a job.
        deterministic: as in `answer`.
    """
    sys.stderr = io.StringIO()  # progress bars
    while (given := connection.recv()) is not None:
        question, seconds = given
        tuned = question.stage in _TUNED
        runtime.configure(threads=threads, deterministic=deterministic, tuned=tuned)
        try:
            for said in STAGES[question.stage](question.about, torch.device(device), seconds):
                connection.send((question, said))
        except Exception as error:  # whatever it is: others can be measured
            log.warning("calibration of %s: %s", question.key, error)
        connection.send((question, None))


STAGES: dict[str, Callable[[About, torch.device, float], Iterator[Answer]]] = {
    "start": start_up.start,
    "pretrain": measure.training_step,
    "probe": measure.head,
    "network": measure.network,
    "attack": tally.attack,
}
