"""What other attacks take from the images that withstand PGD-20: information that fails no head.

Where the cross-entropy has converged, a margin loss may still fool more images; examples that were
made on another head of the encoder may, too. Nothing but measuring needs torch.

Source: Carlini et al. 2019, sections 5.3 and 5.6; margin loss of Carlini, Wagner 2017.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from robustviews.options import LazyModule

if TYPE_CHECKING:
    from torch import Tensor

    from robustviews.attacks import objectives
    from robustviews.evaluate import Classifier
    from robustviews.sanity.options import Sanity
    from robustviews.sanity.subject import Subject
else:
    objectives = LazyModule("robustviews.attacks.objectives")


def _margin(subject: Subject) -> dict[str, Tensor]:
    return {"margin": _left_of_survivors(subject, loss=objectives.margin)}


def _transfer(subject: Subject) -> dict[str, Tensor]:
    peer = subject.peer
    return {} if peer is None else {"transfer": _left_of_survivors(subject, through=peer)}


def _left_of_survivors(
    subject: Subject,
    *,
    loss: Callable[[Tensor, Tensor], Tensor] | None = None,
    through: Classifier | None = None,
) -> Tensor:
    """Return (n,) uint8, 1 where an image withstands PGD-20, and the same with other gradients."""
    eps = subject.options.eps
    flags = subject.rows[f"pgd_{eps:g}"].clone()
    left = flags.bool()
    if left.any():
        flags[left] = subject.part(left).pgd(eps, loss=loss, through=through)
    return flags


INFORMATION: dict[str, Callable[[Subject], Mapping[str, Tensor]]] = {
    "margin": _margin,
    "transfer": _transfer,
}


def described(measures: Mapping[str, float], options: Sanity) -> dict[str, str]:
    """Return how many images are left after each attack at the radius `eps`.

    Args:
        measures: of a head; without `transfer` if its encoder has no other head like it.
        options: with which they were measured.
    """
    names = {
        f"pgd_{options.eps:g}": "PGD-20",
        "restarts": f"PGD-{options.steps}, random starts: {options.restarts}",
        "margin": "PGD-20 and margin loss",
        "transfer": "PGD-20 and transfer",
        "square": f"PGD-20 and Square-{options.queries}",
    }
    return {
        text: f"{measures[name]:.0f} of {measures['n']:.0f}" if name in measures else "-"
        for name, text in names.items()
    }
