"""Radii and step sizes: study files give them in 1/255, attacks take them in pixel units."""

from __future__ import annotations

_STEPS_OF_A_PIXEL = 255  # radii and step sizes of study files are given in 1/255


def in_pixels(value: float) -> float:
    """Return a radius or step size of a study file, in 1/255, in pixel units."""
    return value / _STEPS_OF_A_PIXEL


def fraction(eps: float) -> str:
    """Return a radius of a study file as text: `8/255`."""
    return f"{eps:g}/{_STEPS_OF_A_PIXEL}"


def flag_name(eps: float) -> str:
    """Return the name of the flags at a radius of a study file; radius 0 is `clean`."""
    return f"eps_{eps:g}" if eps else "clean"
