"""Time several ways of doing the same work in turns, so that a busy machine slows all of them."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Mapping

import torch

Work = Callable[[], object]
Clock = Callable[[], float]
Seconds = dict[str, list[float]]


def interleave(
    sides: Mapping[str, Work],
    *,
    rounds: int,
    device: torch.device,
    clock: Clock = time.perf_counter,
) -> Seconds:
    """Run every side once unmeasured, then all of them in turns; arguments as in `turns`.

    Returns:
        For each side the seconds of its turns, in the order of the rounds.
    """
    *_, seconds = turns(sides, rounds=rounds, device=device, clock=clock)
    return seconds


def turns(
    sides: Mapping[str, Work],
    *,
    rounds: int,
    device: torch.device,
    clock: Clock = time.perf_counter,
) -> Iterator[Seconds]:
    """Yield the seconds so far after a warm-up and after each round, so that a cut loses one round.

    Every second round goes backwards, so that no side always follows the same other one.

    Args:
        sides: what to time, by name.
        rounds: measured turns of each side.
        device: that the work runs on; its queue is empty before and after each measurement.
        clock: returns seconds.
    """
    seconds: Seconds = {name: [] for name in sides}
    for work in sides.values():
        once(work, device)
    yield seconds
    for turn in range(rounds):
        names = list(sides) if turn % 2 == 0 else list(sides)[::-1]
        for name in names:
            seconds[name].append(once(sides[name], device, clock))
        yield seconds


def once(work: Work, device: torch.device, clock: Clock = time.perf_counter) -> float:
    """Return the seconds that one call takes until the device has finished it."""
    synchronize(device)
    start = clock()
    work()
    synchronize(device)
    return clock() - start


def synchronize(device: torch.device) -> None:
    """Wait until a GPU has done what it was told; a CPU always has."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def ratio(slow: list[float], fast: list[float]) -> dict[str, float]:
    """Return how many times faster `fast` was: median, lowest and highest over the rounds.

    Args:
        slow: seconds of one side, a round each.
        fast: seconds of the other side in the same rounds.
    """
    ratios = [s / f for s, f in zip(slow, fast, strict=True)]
    return {"median": statistics.median(ratios), "low": min(ratios), "high": max(ratios)}
