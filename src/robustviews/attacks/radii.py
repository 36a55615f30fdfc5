"""Radii and step sizes: study files give them in 1/255, or for L2 in pixel units, as attacks do."""

from __future__ import annotations

_STEPS_OF_A_PIXEL = 255  # Linf radii and step sizes of study files are given in 1/255


def in_pixels(value: float) -> float:
    """Return a radius or step size of a study file, in 1/255, in pixel units."""
    return value / _STEPS_OF_A_PIXEL


def to_pixels(value: float, norm: str) -> float:
    """Return a radius or step size of a study file in pixel units.

    Args:
        value: for `linf` in 1/255; for `l2` the Euclidean length of a perturbation of one image.
        norm: `linf` or `l2`.
    """
    return in_pixels(value) if norm == "linf" else value


def fraction(eps: float, norm: str = "linf") -> str:
    """Return a radius of a study file as text: `8/255`, or `0.5 (L2)`."""
    return f"{eps:g}/{_STEPS_OF_A_PIXEL}" if norm == "linf" else f"{eps:g} ({norm.upper()})"


def flag_name(eps: float) -> str:
    """Return the name of the flags at a radius of a study file; radius 0 is `clean`."""
    return f"eps_{eps:g}" if eps else "clean"
