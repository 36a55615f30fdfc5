"""SwAV. Source: Caron et al. 2020, equations 1 to 5 and algorithm 1, and its official code."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from robustviews.methods.protocol import Batch, Heads, ManyViews, Net, across
from robustviews.options import LazyModule, option

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from robustviews import losses, projectors
    from robustviews.encoder import Encoder
    from robustviews.machine import distributed
else:
    torch, losses = LazyModule("torch"), LazyModule("robustviews.losses")
    projectors = LazyModule("robustviews.projectors")
    distributed = LazyModule("robustviews.machine.distributed")

_GLOBAL = 2  # views that get codes


@dataclass(frozen=True)
class SwAv(ManyViews):
    """SwAV: the scores of each view predict the prototypes to which another view is assigned.

    The first two views are assigned; further views only predict.

    Attributes:
        prototypes: number K of prototypes.
        temperature: temperature of the predictions.
        epsilon: softness of the assignments.
        iterations: iterations of Sinkhorn's algorithm.
        queue: earlier projections of each view that are assigned with a minibatch; 0 for none.
        queue_epochs: passes before the queue is used.
        frozen_epochs: passes in which prototypes are not updated.
        projector: widths of the layers of the projector, if `encoder.hidden` is null.
    """

    prototypes: int = option(3000, ge=2)
    temperature: float = option(0.1, gt=0)
    epsilon: float = option(0.05, gt=0)
    iterations: int = option(3, ge=1)
    queue: int = option(3840, ge=0)
    queue_epochs: int = option(50, ge=0)
    frozen_epochs: int = option(2, ge=0)
    projector: tuple[int, ...] = option((2048, 128), ge=1)

    def heads(self, encoder: Encoder) -> Heads:
        """Return a projector with batch norm, and prototypes."""
        projector = None
        if not encoder.projects:
            projector = projectors.mlp(encoder.outputs, self.projector)
        return Heads(projector, projectors.Prototypes(self._width(encoder), self.prototypes))

    def init_state(self, encoder: Encoder) -> dict[str, Tensor]:
        """Return an empty queue (2, Q, D)."""
        if not self.queue:
            return {}
        return {"queue": torch.zeros(_GLOBAL, self.queue, self._width(encoder))}

    def train_loss(self, net: Net, batch: Batch, adversarial: Tensor) -> Tensor:
        """Return the cross-entropy of assignments and predictions of other views, in the mean."""
        z = [net(view) for view in self.student_views(batch, adversarial)]
        scores = [net.predict(one) for one in z]  # (B, K) each
        if self.queue:
            net.outputs["z"] = losses.unit(torch.stack(z[:_GLOBAL]).detach())
        logs = [torch.log_softmax(one / self.temperature, dim=1) for one in scores]
        codes = [self._codes(net, scores[view].detach(), view) for view in range(_GLOBAL)]
        return distributed.share(-across(codes, logs, losses.agreement))

    def after_step(self, net: Net, batch: Batch, progress: float) -> None:
        """Put the projections of this minibatch into the queue, in place of the oldest."""
        if self.queue:
            new = distributed.gather(net.outputs["z"], dim=1)  # (2, N, D)
            queue = net.state["queue"]
            queue.copy_(torch.cat((new, queue), dim=1)[:, : self.queue])

    def frozen(self, epoch: int) -> tuple[str, ...]:
        """Return the prototypes for the first passes."""
        return ("predictor",) if epoch < self.frozen_epochs else ()

    def _width(self, encoder: Encoder) -> int:
        return encoder.outputs if encoder.projects else self.projector[-1]

    def _codes(self, net: Net, scores: Tensor, view: int) -> Tensor:
        """Return the assignments (B, K) of this rank's images, given their scores (B, K)."""
        count = len(scores)
        with torch.no_grad():
            scores = losses.whole(scores)  # (N, K)
            full = self.queue and net.update * len(scores) >= self.queue
            if full and net.epoch >= self.queue_epochs:
                scores = torch.cat((net.predict(net.state["queue"][view]), scores))
            codes = sinkhorn(scores, epsilon=self.epsilon, iterations=self.iterations)
            first = len(codes) - (distributed.ranks() - distributed.rank()) * count
            return codes[first : first + count]


def sinkhorn(scores: Tensor, *, epsilon: float, iterations: int) -> Tensor:
    """Assign images to prototypes such that all prototypes get equal shares.

    Args:
        scores: (N, K).
        epsilon: softness of the assignment.
        iterations: iterations of the algorithm; each ends with the images.

    Returns:
        (N, K); rows have sum 1, columns almost N / K.

    Source: Cuturi 2013; Caron et al. 2020, equation 3.
    """
    count, prototypes = scores.shape
    shares = (scores / epsilon).exp_()
    shares /= shares.sum()
    for _ in range(iterations):  # in place, since a new matrix takes longer than the division
        shares.div_(shares.sum(dim=0, keepdim=True)).div_(prototypes)
        shares.div_(shares.sum(dim=1, keepdim=True)).div_(count)
    return shares.mul_(count)
