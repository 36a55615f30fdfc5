"""How long something takes, told from sizes that grow until they tell enough."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

ENOUGH = 1.0  # seconds of one call that tell its length well
SHORT = 0.05  # seconds of a call that is repeated
FEW = 2  # images to begin with: batch norm needs that many
GROWTH = 4  # of a size to the next; of less, noise would be taken for what an image costs
_GRACE = 25.0  # seconds over time for a second size, without which calls and images look alike

Points = list[tuple[float, float]]  # (size, seconds) of each call, sizes growing


def line(points: Points) -> tuple[float, float]:
    """Return seconds of a call and of each unit of its size, by the least and the largest size.

    Of two sizes next to each other the noise of the larger one would be the cost of a call.
    """
    (less, brief), (size, took) = points[0], points[-1]
    if size == less:
        return 0.0, took / size
    slope = max(0.0, (took - brief) / (size - less))
    return max(0.0, took - slope * size), slope


def is_enough(points: Points, end: float, *, calls: int, least: int = 2) -> bool:
    """Whether the next size, tried in some calls, would tell nothing new or take too long.

    Args:
        points: sizes so far.
        end: of the time that there is, on the clock `time.monotonic`.
        calls: that a size takes.
        least: sizes that are wanted, if there is time.
    """
    took = points[-1][1]
    told = took > ENOUGH and len(points) >= least
    limit = end if len(points) >= least else end + _GRACE
    return told or time.monotonic() + GROWTH * calls * took > limit


def grown(first: int, most: int) -> Iterator[int]:
    """Yield growing sizes from the first to the most."""
    size = min(first, most)
    while size < most:
        yield size
        size = min(GROWTH * size, most)
    yield size


def seconds_of(work: Callable[[], object], device: torch.device) -> float:
    """Return how long some work takes; the median of a few when it is short."""
    if device.type == "cuda" and torch.backends.cudnn.benchmark:
        work()  # tries algorithms, which a job does once for each shape

    def once() -> float:
        before = now(device)
        work()
        return now(device) - before

    took = once()
    return median([took, *(once() for _ in range(4))]) if took < SHORT else took


def median(values: list[float]) -> float:
    """Return the middle one of some values."""
    return sorted(values)[len(values) // 2]


def now(device: torch.device) -> float:
    """Return the time in seconds when a device has done all that it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.monotonic()


def noise(count: int, size: int) -> Tensor:
    """Return images (count, 3, size, size) uint8 that are the same every time."""
    generator = torch.Generator().manual_seed(count)
    return torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8, generator=generator)
