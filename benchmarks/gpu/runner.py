"""Run parts one after the other in one process, each until its own deadline."""

from __future__ import annotations

import contextlib
import gc
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks.gpu.report import Report

AGAIN = 10.0  # seconds until a deadline that was swallowed rings once more
RESERVE = 15.0  # seconds of `--left` for imports before the parts and for files after them


@dataclass(frozen=True)
class Setting:
    """Where and on what the parts run.

    Attributes:
        device: device to check and to measure.
        small: whether this is a rehearsal at small sizes.
        study: study file of the trainings, probes and attacks.
        reference: folder of the published code, None for `benchmarks.published`.
        out: output folder.
        rest: folder of the pieces that are too much for the output folder.
        threads: CPU threads.
    """

    device: torch.device
    small: bool
    study: Path
    reference: Path | None
    out: Path
    rest: Path
    threads: int


@dataclass(frozen=True)
class Part:
    """One part of the script.

    Attributes:
        run: does the work; adds to the report what it finds, as soon as it is found.
        expected: seconds on an H100; the part is skipped if less than half of them are left.
        limit: seconds after which the part is cut.
    """

    run: Callable[[Setting, Report], None]
    expected: float
    limit: float


class DeadlinePassed(BaseException):  # no error: it must pass every `except Exception`
    """The time of a part is over."""


@contextlib.contextmanager
def deadline(seconds: float) -> Iterator[None]:
    """Raise DeadlinePassed inside a block after some seconds."""

    def ring(*_: object) -> None:
        raise DeadlinePassed

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds, AGAIN)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def run(parts: dict[str, Part], setting: Setting, *, left: float | None = None) -> list[Report]:
    """Run parts; print a line of JSON for each, after its files are in the output folder.

    Args:
        parts: parts by name, in order.
        setting: where they run.
        left: seconds until the process must end; None for no limit.

    Returns:
        A report for each part.
    """
    end = None if left is None else time.monotonic() + left - RESERVE
    reports = []
    for name, part in parts.items():
        seconds = part.limit if end is None else min(part.limit, end - time.monotonic())
        report = Report(name)
        if seconds < part.expected / 2:
            report.state = "skipped"
            report.reason = f"{seconds:.0f} s left, expected {part.expected:g} s"
        else:
            say(f"{name}: begins, at most {seconds:.0f} s")
            attempt(part, setting, report, seconds)
        report.write(setting.out, setting.rest)
        print(report.line(), flush=True)
        reports.append(report)
    return reports


def attempt(part: Part, setting: Setting, report: Report, seconds: float) -> None:
    """Run a part; put its duration and how it ended into its report."""
    start = time.monotonic()
    try:
        with deadline(seconds):
            part.run(setting, report)
    except DeadlinePassed:
        report.state = "cut"
    except Exception as error:  # any error: the next part may still give its result
        traceback.print_exc()
        report.state, report.reason = "failed", f"{type(error).__name__}: {error}"[:300]
    report.seconds = time.monotonic() - start
    gc.collect()
    if setting.device.type == "cuda":
        torch.cuda.empty_cache()


def say(text: str) -> None:
    """Write a line for people; stdout has only JSON."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()
