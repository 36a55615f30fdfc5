"""The k-NN probe: the nearest training images vote, and an attack can follow the gradient.

Source: Wu et al. 2018, section 3.4; DINO (Caron et al. 2021) with its k = 20, temperature 0.07.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from robustviews.options import LazyModule, option, plan_only
from robustviews.probe.protocol import Classifying

if TYPE_CHECKING:
    from torch import Tensor, nn

    from robustviews.encoder import Encoder
    from robustviews.probe import heads, neighbours
    from robustviews.probe.protocol import History, Training
else:
    heads = LazyModule("robustviews.probe.heads")
    neighbours = LazyModule("robustviews.probe.neighbours")


@dataclass(frozen=True)
class KnnProbe(Classifying):
    """Weighted k-nearest neighbours among the features of all training images.

    Attributes:
        k: neighbours that vote.
        temperature: a neighbour votes with exp(cosine similarity / temperature).
        feature: `backbone`, or the `prefeature` above it.
    """

    k: int = option(20, ge=1)
    temperature: float = option(0.07, gt=0)
    feature: Literal["prefeature", "backbone"] = "backbone"

    @plan_only
    def describe(self) -> str:
        """Return the number of neighbours."""
        return f"{self.k} nearest neighbours, temperature {self.temperature:g}"

    def train(
        self, encoder: Encoder, training: Training, *, start: nn.Module | None = None
    ) -> tuple[nn.Module, History]:
        """Keep the normalised features of all training images."""
        h = heads.frozen_features(self, encoder, training)
        return neighbours.Neighbours.of(
            h, training.labels, classes=training.classes, k=self.k, temperature=self.temperature
        ), []

    def restore(
        self, weights: Mapping[str, Tensor], encoder: Encoder, *, classes: int
    ) -> nn.Module:
        """Return the head with these training images."""
        return neighbours.restore(weights, encoder, self, classes=classes)
