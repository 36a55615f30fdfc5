"""Recipes of colour changes, by the name that a study file gives in `views.augmentation`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Colour:
    """A recipe of colour changes, in order of application; probability 0 disables a change.

    Attributes:
        jitter: probability that brightness, contrast, saturation and hue change, in random order.
        strength: factors of brightness, contrast and saturation are uniform in 1 -+ strength.
        saturation: the same for saturation alone; None takes `strength`.
        hue: the hue shift is uniform in -+ hue, in turns of the colour circle.
        grayscale: probability that colour is removed.
        blur: probability of a Gaussian blur.
        sigma: smallest and largest standard deviation of the blur, in pixels.
        solarize: probability that values from 1/2 on (PIL's 128 of 255) are inverted.
    """

    jitter: float = 0.0
    strength: float = 0.4
    saturation: float | None = None
    hue: float = 0.1
    grayscale: float = 0.0
    blur: float = 0.0
    sigma: tuple[float, float] = (0.1, 2.0)
    solarize: float = 0.0


AUGMENTATIONS: dict[str, Colour] = {
    "emp_ssl": Colour(jitter=0.8, hue=0.2, grayscale=0.2, blur=0.1, solarize=0.1),
    "simclr": Colour(jitter=0.8, hue=0.1, grayscale=0.2),
    "simclr_blur": Colour(jitter=0.8, hue=0.1, grayscale=0.2, blur=0.1),
    "geometry": Colour(),
    # solo-learn, scripts/pretrain/cifar/augmentations
    "symmetric": Colour(jitter=0.8, strength=0.8, hue=0.2, grayscale=0.2, blur=0.5),
    "symmetric_weak": Colour(jitter=0.8, hue=0.1, grayscale=0.2, blur=0.5),
    "asymmetric": Colour(jitter=0.8, saturation=0.2, hue=0.1, grayscale=0.2),
}
SECOND: dict[str, Colour] = {  # recipes of every second view, where they differ
    "asymmetric": Colour(jitter=0.8, saturation=0.2, hue=0.1, grayscale=0.2, solarize=0.2),
}
