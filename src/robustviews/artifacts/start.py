"""When a job began."""

from __future__ import annotations

import time
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Start:
    """A moment of this process; the time since then is right even if somebody sets the clock."""

    clock: float = field(default_factory=time.time)  # seconds since the epoch
    ticks: float = field(default_factory=time.monotonic)  # time.monotonic() then

    def elapsed(self) -> float:
        """Return the seconds since then."""
        return time.monotonic() - self.ticks
