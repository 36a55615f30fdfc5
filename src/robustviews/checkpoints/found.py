"""What the search for a network in a checkpoint works on, and what it finds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from robustviews.checkpoints.errors import CheckpointError
from robustviews.checkpoints.layouts import Layout
from robustviews.checkpoints.normalisations import Normalisation

Stem = Literal["cifar", "imagenet"]


class Table(NamedTuple):
    """A mapping of names to tensors, and the keys of the mappings around it."""

    keys: tuple[str, ...]
    tensors: dict[str, Tensor]


@dataclass(frozen=True)
class Found:
    """A network in a file.

    Attributes:
        backbone: name in `resnet.BACKBONES` or `vit.WIDTHS`.
        width: channels of the first stage, or of a token.
        stem: `cifar` or `imagenet`.
        place: where it was: `tables:prefix`.
        layout: program that wrote the file.
        weights: all weights of the backbone, by name, in float32.
        matched: how many of the weights came from the file; the others are counters, set to 0.
        head: weight and bias of a trained classifier, or None.
        inside: mean and std by which the network itself normalises, or None.
        dropped: what else the file holds, in groups.
        heads: attention heads of a transformer.
    """

    backbone: str
    width: int
    stem: Stem
    place: str
    layout: Layout
    weights: dict[str, Tensor]
    matched: int
    head: tuple[Tensor, Tensor] | None = None
    inside: Normalisation | None = None
    dropped: list[str] = field(default_factory=list)
    heads: int | None = None


def finite_float(tensor: Tensor, name: str) -> Tensor:
    """Return finite values in float32, or raise CheckpointError that names the tensor."""
    if not tensor.is_floating_point():
        raise CheckpointError(f"{name}: expected floating-point numbers, found {tensor.dtype}")
    values = tensor.detach().float().clone(memory_format=torch.contiguous_format)
    if not values.isfinite().all():
        raise CheckpointError(
            f"{name}: NaN or infinite weights: the training failed, or the file is damaged; import "
            "an earlier checkpoint, or download it again"
        )
    return values


def head_of(
    tensors: Mapping[str, Tensor], names: Sequence[str], width: int
) -> tuple[Tensor, Tensor] | None:
    """Return weight and bias of a classifier; None without one, and for a projector.

    Args:
        tensors: of a file.
        names: of weight and bias in it.
        width: features that a classifier reads.

    Raises:
        CheckpointError: they are not finite.
    """
    weight, bias = map(tensors.get, names)
    if weight is None or bias is None or weight.dim() != 2 or bias.shape != weight.shape[:1]:
        return None
    if weight.shape[1] != width:
        return None
    return finite_float(weight, names[0]), finite_float(bias, names[1])


def inside(tensor: Callable[[str], Tensor | None]) -> Normalisation | None:
    """Return mean and std that a network keeps, rounded to the digits that were typed.

    Args:
        tensor: returns the tensor of a name within the network, or None.

    Raises:
        CheckpointError: they are no mean and std.
    """
    for word in ("normalise", "normalize"):
        mean, std = tensor(f"{word}.mean"), tensor(f"{word}.std")
        if mean is not None and std is not None and mean.numel() == std.numel() == 3:
            values = [[round(v, 6) for v in t.flatten().tolist()] for t in (mean, std)]
            if not (mean.isfinite().all() and std.isfinite().all() and std.min() > 0):
                raise CheckpointError(f"{word}.std: no mean and std: {values}")
            (r, g, b), (dr, dg, db) = values
            return (r, g, b), (dr, dg, db)
    return None
