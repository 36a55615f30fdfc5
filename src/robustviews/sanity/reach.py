"""Check AS1, of the study file alone: do the steps of an attack suit the radii of its balls?"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

_ROUNDING = 1e-9  # relative
_LARGEST = 2  # radii: a larger step only ever reaches corners of the Linf ball


@runtime_checkable
class Stepwise(Protocol):
    """Options of an attack, or of a probe that attacks, that makes steps of one size.

    They may have a `relative_step`, a fraction of each radius that replaces `step_size`.

    Attributes:
        weak: why steps that cannot reach the surface of the ball, or that leap across it, are
            wanted; empty if they are not.
    """

    weak: str

    @property
    def eps(self) -> float | tuple[float, ...]:
        """Radius or radii, in 1/255."""

    @property
    def steps(self) -> int:
        """Number of steps."""

    @property
    def step_size(self) -> float | None:
        """Size of a step, in the unit of `eps`; None for a relative one."""


def unreached(options: Stepwise) -> list[float]:
    """Return the radii that the steps of an attack cannot reach."""
    reach = options.steps * (1 + _ROUNDING)
    return [radius for radius, size in _sizes(options).items() if reach * size < radius]


def leapt(options: Stepwise) -> list[float]:
    """Return the radii that are smaller than half of a step, as far as an attack has several."""
    largest = _LARGEST * (1 + _ROUNDING)
    sizes = _sizes(options).items() if options.steps > 1 else ()
    return [radius for radius, size in sizes if 0 < largest * radius < size]


def _sizes(options: Stepwise) -> dict[float, float]:
    """Return the size of a step at each radius."""
    radii = options.eps if isinstance(options.eps, tuple) else (options.eps,)
    relative = getattr(options, "relative_step", None) or 0.0
    return {radius: options.step_size or relative * radius for radius in radii}
