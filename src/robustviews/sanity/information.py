"""What other attacks take from the images that withstand PGD-20: information that fails no head.

Where the cross-entropy has converged, a margin loss may still fool more images; examples that were
made on another head of the encoder may, too. Nothing but measuring needs torch.

Source: Carlini et al. 2019, sections 5.3 and 5.6; margin loss of Carlini, Wagner 2017.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from robustviews.options import LazyModule

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from robustviews.attacks import objectives
    from robustviews.sanity.options import Sanity
    from robustviews.sanity.subject import Subject
else:
    torch, objectives = LazyModule("torch"), LazyModule("robustviews.attacks.objectives")


def _margin(subject: Subject) -> dict[str, Tensor]:
    return {"margin": _of_survivors(subject, loss=objectives.margin)}


def _transfer(subject: Subject) -> dict[str, Tensor]:
    peer = subject.peer
    return {} if peer is None else {"transfer": _of_survivors(subject, through=peer)}


def _of_survivors(subject: Subject, **changes: Any) -> Tensor:
    """Return (n,) uint8, 1 where an image withstands PGD-20, and PGD-20 with changes."""
    eps = subject.options.eps
    flags = subject.rows[f"pgd_{eps:g}"].clone()
    left = flags.bool()
    if left.any():
        flags[left] = subject.part(left).pgd(eps, **changes)
    return flags


INFORMATION: dict[str, Callable[[Subject], Mapping[str, Tensor]]] = {
    "margin": _margin,
    "transfer": _transfer,
}


def described(measures: Mapping[str, float], options: Sanity) -> Iterator[tuple[str, str]]:
    """Yield each attack at the radius `eps` with the images that are left after it.

    Args:
        measures: of a head; without `transfer`, if the encoder has no other head like it.
        options: with which they were measured.
    """
    names = {
        f"pgd_{options.eps:g}": "PGD-20",
        "restarts": f"PGD-{options.steps}, {options.restarts} random starts",
        "margin": "PGD-20, then the same on the margin loss",
        "transfer": "PGD-20, then examples of another head",
        "square": f"PGD-20, then Square, {options.queries} queries",
    }
    for name, text in names.items():
        if name in measures:
            yield text, f"{measures[name]:.0f} of {measures['n']:.0f}"
