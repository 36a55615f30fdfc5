"""The head of the k-NN probe: features of the training images, and logits that have a gradient."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

from robustviews.encoder import load_strictly

if TYPE_CHECKING:
    from robustviews.encoder import Encoder
    from robustviews.probe.knn import KnnProbe


class Neighbours(nn.Module):
    """Maps features to the logarithms of the votes of their nearest training images.

    The prediction is that of weighted k-NN. A class without a vote gets the vote that its nearest
    image would have. Such a vote is smaller than each of the k, so it changes no prediction, but
    every class has a gradient, and logits do not jump where an image becomes one of the k nearest.

    Attributes:
        bank: (N, F), features of unit norm, ordered by class.
        counts: (classes,) int64, training images of each class.
    """

    def __init__(self, bank: Tensor, counts: Tensor, *, k: int, temperature: float) -> None:
        super().__init__()
        self.bank: Tensor
        self.counts: Tensor
        self.register_buffer("bank", bank)
        self.register_buffer("counts", counts)
        self.k, self.temperature = k, temperature
        self._sizes: list[int] | None = None  # of `counts`, known without waiting for the device

    @classmethod
    def of(
        cls, h: Tensor, labels: Tensor, *, classes: int, k: int, temperature: float
    ) -> Neighbours:
        """Return the head of training images with features h (N, F) and labels (N,)."""
        order = labels.argsort(stable=True)
        bank = functional.normalize(h[order], dim=1)
        ordered = labels[order].unsqueeze(0)
        counts = (ordered == torch.arange(classes, device=labels.device).unsqueeze(1)).sum(dim=1)
        return cls(bank, counts, k=k, temperature=temperature)

    def forward(self, h: Tensor) -> Tensor:
        """Map features (B, F) to logits (B, classes)."""
        similar = functional.normalize(h, dim=1) @ self.bank.T / self.temperature  # (B, N)
        near, which = similar.topk(min(self.k, len(self.bank)), dim=1)
        top = near[:, :1].detach()  # keeps exp in range
        one_hot = functional.one_hot(self._classes()[which], len(self.counts))  # (B, k, classes)
        votes = ((near - top).exp().unsqueeze(-1) * one_hot).sum(dim=1)
        least = torch.finfo(votes.dtype).tiny
        return top + torch.where(
            one_hot.any(dim=1), votes.clamp(min=least).log(), self._nearest(similar) - top
        )

    def _classes(self) -> Tensor:
        """Return the class of each training image, (N,) int64."""
        numbers = torch.arange(len(self.counts), device=self.counts.device)
        return numbers.repeat_interleave(self.counts, output_size=len(self.bank))

    def _nearest(self, similar: Tensor) -> Tensor:
        """Return the similarity of the nearest image of each class, (B, classes)."""
        if self._sizes is None:
            self._sizes = self.counts.tolist()
        opposite = -1 / self.temperature  # of a class without images
        parts = similar.split(self._sizes, dim=1)
        nearest = [
            part.amax(dim=1) if part.shape[1] else part.new_full((len(part),), opposite)
            for part in parts
        ]
        return torch.stack(nearest, dim=1)


def restore(
    weights: Mapping[str, Tensor], encoder: Encoder, probe: KnnProbe, *, classes: int
) -> Neighbours:
    """Return a saved head on the device of the encoder whose features it reads.

    Raises:
        WeightsError: the weights are those of another head.
    """
    images = len(weights["bank"]) if "bank" in weights else 0
    bank = torch.zeros(images, encoder.width_of(probe.feature))
    counts = torch.zeros(classes, dtype=torch.int64)
    head = Neighbours(bank, counts, k=probe.k, temperature=probe.temperature)
    load_strictly(head, weights, "head")
    return head.to(next(encoder.parameters()).device)
