"""A network whose projections, predictions and targets are given, to test losses alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from robustviews.methods import Batch


class Given:
    """A `methods.Net` that looks projections up; an image holds the number of its projection.

    Attributes:
        z: (V, B, D) projections.
        p: (V, B, P) predictions, or a function of projections.
        t: (2, B, P) targets.
    """

    def __init__(
        self,
        z: Tensor,
        p: Tensor | Callable[[Tensor], Tensor] = lambda z: z,
        t: Tensor | None = None,
        **state: Tensor,
    ) -> None:
        self.z, self.p, self.t, self.state = z, p, t, state
        self.outputs: dict[str, Tensor] = {}
        self.epoch, self.update = 0, 10**6
        self._shown: list[tuple[Tensor, Tensor]] = []

    def __call__(self, images: Tensor) -> Tensor:
        """Return the projections of images."""
        numbers = images[:, 0, 0, 0].long()
        z = self.z.flatten(0, 1)[numbers]
        self._shown.append((z, numbers))
        return z

    def predict(self, z: Tensor) -> Tensor:
        """Return the predictions of projections, those of earlier images if they are given."""
        if callable(self.p):
            return self.p(z)
        numbers = next(numbers for shown, numbers in self._shown if shown is z)
        return self.p.flatten(0, 1)[numbers]

    def target(self, views: Tensor) -> Tensor:
        """Return the targets."""
        assert self.t is not None
        return self.t

    def follow(self, tau: float) -> None:
        """Do nothing."""

    def batch(self) -> Batch:
        """Return the minibatch whose images hold the numbers of their projections."""
        views, count = self.z.shape[:2]
        numbers = torch.arange(views * count).view(views, count, 1, 1, 1).expand(-1, -1, 3, 1, 1)
        images = numbers.double()
        return Batch(images[0], images, torch.arange(count))


def leaves(*arrays: Sequence[Tensor]) -> Tensor:
    """Return tensors as one leaf with a gradient."""
    return torch.stack([torch.as_tensor(array) for array in arrays]).requires_grad_()
