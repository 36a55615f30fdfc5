"""Normalisations of published networks: mean and std of R, G, B for images in [0, 1]."""

from __future__ import annotations

import re

from robustviews.checkpoints.errors import CheckpointError

Normalisation = tuple[tuple[float, float, float], tuple[float, float, float]]

# `swav` has the std of SwAV and DeepCluster v2, .228 for .229; the means of CIFAR are solo-learn's.
NORMALISATIONS: dict[str, Normalisation | None] = {
    "none": None,
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "swav": ((0.485, 0.456, 0.406), (0.228, 0.224, 0.225)),
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    "cifar100": ((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
}


def parse(text: str) -> Normalisation | None:
    """Return a normalisation by its name, or from `mean,mean,mean/std,std,std`.

    Raises:
        CheckpointError: neither a known name nor six numbers, or a std that is not positive.
    """
    if text in NORMALISATIONS:
        return NORMALISATIONS[text]
    number = r"\s*(\d*\.?\d+)\s*"
    triple = ",".join([number] * 3)
    match = re.fullmatch(f"{triple}/{triple}", text)
    if match is None or not all(float(std) > 0 for std in match.groups()[3:]):
        raise CheckpointError(
            f"normalise: expected {', '.join(NORMALISATIONS)} or mean,mean,mean/std,std,std with "
            f"positive std, found {text!r}"
        )
    values = [float(value) for value in match.groups()]
    return (values[0], values[1], values[2]), (values[3], values[4], values[5])


def name_of(normalisation: Normalisation | None) -> str:
    """Return the name of a normalisation, or its six numbers."""
    for name, known in NORMALISATIONS.items():
        if known == normalisation:
            return name
    assert normalisation is not None
    return "/".join(",".join(f"{value:g}" for value in values) for values in normalisation)
