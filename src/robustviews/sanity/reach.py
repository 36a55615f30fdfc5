"""Check AS1, of the study file alone: do the steps of an attack reach the surface of its ball?"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

_ROUNDING = 1e-9  # relative


@runtime_checkable
class Stepwise(Protocol):
    """Options of an attack, or of a probe that attacks, that makes steps of one size.

    Attributes:
        weak: why steps that cannot reach the surface of the ball are wanted; empty if they are not.
    """

    weak: str

    @property
    def eps(self) -> float | tuple[float, ...]:
        """Radius or radii, in 1/255."""

    @property
    def steps(self) -> int:
        """Number of steps."""

    @property
    def step_size(self) -> float:
        """Size of a step, in 1/255."""


def unreached(options: Stepwise) -> list[float]:
    """Return the radii, in 1/255, that the steps of an attack cannot reach."""
    radii = options.eps if isinstance(options.eps, tuple) else (options.eps,)
    reach = options.steps * options.step_size * (1 + _ROUNDING)
    return [radius for radius in radii if reach < radius]
