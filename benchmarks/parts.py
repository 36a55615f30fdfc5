"""How the time of one step splits into data, forward, loss, backward, optimizer, perturbation."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Protocol

import torch
from torch import Tensor, nn

from benchmarks.published import silent
from benchmarks.rounds import synchronize


class Step(Protocol):
    """A training step that tells when its parts end; calling it trains one turn."""

    net: nn.Module
    lap: Callable[[str], None]

    def __call__(self) -> None:
        """Train."""


class Stopwatch:
    """Seconds since the last lap, added up by the name of the part that the lap ends."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.seconds: dict[str, float] = {}
        self.restart()

    def restart(self) -> None:
        """Let the next part begin now."""
        synchronize(self.device)
        self._last = time.perf_counter()

    def lap(self, part: str) -> None:
        """End a part once the device has done it."""
        synchronize(self.device)
        now = time.perf_counter()
        self.seconds[part] = self.seconds.get(part, 0.0) + now - self._last
        self._last = now


def split(step: Step, device: torch.device) -> dict[str, float]:
    """Return the seconds of each part of one turn.

    The device is waited for at the end of each part, so that what a GPU would do at the same time
    happens in turn here: the parts add up to more than a turn that nobody watches.
    """
    watch = Stopwatch(device)
    with _watched(step, watch):
        watch.restart()
        step()
    return watch.seconds


@contextlib.contextmanager
def _watched(step: Step, watch: Stopwatch) -> Iterator[None]:
    """Tell a stopwatch of every part: of the network's by a wrapper, of the others by the step."""
    net = step.net
    step.net, step.lap = _Watched(net, watch), watch.lap
    try:
        yield
    finally:
        step.net, step.lap = net, silent


class _Watched(nn.Module):
    """A network around which a stopwatch laps; a hook of its own might be lost in compiled code."""

    def __init__(self, net: nn.Module, watch: Stopwatch) -> None:
        super().__init__()
        self.net, self.watch = net, watch

    def forward(self, images: Tensor) -> Tensor:
        self.watch.lap("perturbation")
        z: Tensor = self.net(images)
        self.watch.lap("forward")
        # Once z has its gradient, the loss has been computed and differentiated.
        z.register_hook(lambda _: self.watch.lap("loss"))
        return z
