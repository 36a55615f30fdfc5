"""The probe that trains nothing: a supervised network's own classifier."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from robustviews.options import plan_only
from robustviews.probe.protocol import Classifying

if TYPE_CHECKING:
    from torch import Tensor, nn

    from robustviews.encoder import Encoder
    from robustviews.probe.protocol import History, Training


@dataclass(frozen=True)
class OwnHead(Classifying):
    """The classifier of a supervised network; nothing is trained.

    Attributes:
        feature: the classifier reads the backbone.
    """

    feature: ClassVar[Literal["backbone"]] = "backbone"
    trained: ClassVar[bool] = False

    @plan_only
    def describe(self) -> str:
        """Return the origin of the head."""
        return "the classifier that the network was trained with"

    def train(
        self, encoder: Encoder, training: Training, *, start: nn.Module | None = None
    ) -> tuple[nn.Module, History]:
        """Return the network's classifier."""
        return _own(encoder), []

    def restore(
        self, weights: Mapping[str, Tensor], encoder: Encoder, *, classes: int
    ) -> nn.Module:
        """Return the network's classifier; it has no weights of its own."""
        return _own(encoder)


def _own(encoder: Encoder) -> nn.Linear:
    if encoder.classifier is None:
        raise ValueError("probe `own` needs a supervised network, which has a classifier")
    return encoder.classifier


OWN_HEAD = OwnHead()
