"""Measure times with growing sizes until the times are precise."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from statistics import median_high

import torch
from torch import Tensor

from robustviews.tasks.classification import CLASSIFICATION
from robustviews.tasks.protocol import Task
from robustviews.tasks.segmentation import SEGMENTATION

ENOUGH = 1.0  # seconds of a call that can be measured precisely
SHORT = 0.05  # seconds below which a call is repeated
FEW = 2  # images at first: batch norm needs two
GROWTH = 4  # from one size to the next; with less, noise would dominate the cost per image
_GRACE = 25.0  # extra seconds for a second size, which separates the costs per call and per image

Points = list[tuple[float, float]]  # (size, seconds) of each call, sizes growing


def line(points: Points) -> tuple[float, float]:
    """Return the seconds per call and per unit of size, from the smallest and the largest size.

    With two adjacent sizes, noise in the larger one would become the cost of a call.
    """
    (less, brief), (size, took) = points[0], points[-1]
    if size == less:
        return 0.0, took / size
    slope = max(0.0, (took - brief) / (size - less))
    return max(0.0, took - slope * size), slope


def is_enough(points: Points, end: float, *, calls: int, least: int = 2) -> bool:
    """Return whether the next size would add nothing or take too long.

    Args:
        points: measurements so far.
        end: time limit, on the clock `time.monotonic`.
        calls: calls per size.
        least: minimum number of sizes, if there is time.
    """
    took = points[-1][1]
    precise = took > ENOUGH and len(points) >= least
    limit = end if len(points) >= least else end + _GRACE
    return precise or time.monotonic() + GROWTH * calls * took > limit


def grown(first: int, most: int) -> Iterator[int]:
    """Yield growing sizes from `first` to `most`."""
    size = min(first, most)
    while size < most:
        yield size
        size = min(GROWTH * size, most)
    yield size


def seconds_of(work: Callable[[], object], device: torch.device) -> float:
    """Return the seconds of some work; the median of several runs if it is short."""
    if device.type == "cuda" and torch.backends.cudnn.benchmark:
        work()  # searches for algorithms, as a job does once per shape

    def once() -> float:
        before = now(device)
        work()
        return now(device) - before

    took = once()
    return median_high([took, *(once() for _ in range(4))]) if took < SHORT else took


def now(device: torch.device) -> float:
    """Return the time in seconds once a device has finished all its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.monotonic()


def noise(count: int, size: int) -> Tensor:
    """Return reproducible random images (count, 3, size, size) uint8."""
    generator = torch.Generator().manual_seed(count)
    return torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8, generator=generator)


def labels(task: Task, kinds: Tensor, size: int) -> Tensor:
    """Return labels of images of one class each: the class of all pixels, or of one box.

    Args:
        task: decides their form.
        kinds: (N,) int64, classes.
        size: side of the images in pixels.
    """
    if task is CLASSIFICATION:
        return kinds
    if task is SEGMENTATION:
        return kinds.to(torch.uint8).view(-1, 1, 1).repeat(1, size, size)
    box = torch.tensor([0.25, 0.25, 0.75, 0.75], device=kinds.device) * size
    return torch.cat([box.expand(len(kinds), 4), kinds[:, None]], dim=1)[:, None]
