"""When a job began."""

from __future__ import annotations

import time
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Start:
    """A moment of this process; the time since then is right even if somebody sets the clock.

    Attributes:
        clock: seconds since the epoch.
        ticks: time.monotonic() then.
    """

    clock: float = field(default_factory=time.time)
    ticks: float = field(default_factory=time.monotonic)

    def elapsed(self) -> float:
        """Return the seconds since then."""
        return time.monotonic() - self.ticks
