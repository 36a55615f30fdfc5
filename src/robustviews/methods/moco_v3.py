"""MoCo v3. Source: Chen, Xie, He 2021, algorithm 1, and its official code."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from robustviews.methods.protocol import Batch, Heads, ManyViews, Net, across, momentum
from robustviews.options import LazyModule, option

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from robustviews import losses, projectors
    from robustviews.encoder import Encoder
    from robustviews.machine import distributed, runtime
else:
    torch, losses = LazyModule("torch"), LazyModule("robustviews.losses")
    projectors = LazyModule("robustviews.projectors")
    distributed = LazyModule("robustviews.machine.distributed")
    runtime = LazyModule("robustviews.machine.runtime")


@dataclass(frozen=True)
class MocoV3(ManyViews):
    """MoCo v3: the prediction of a view identifies the teacher's projection of the other view.

    The teacher sees the first two views; further views go to the student only. The teacher moves
    after each update; before the next one, as in the official code, is the same.

    Attributes:
        temperature: softness of the contrast; the loss is multiplied by twice the temperature.
        tau: momentum of the teacher at the first update; it rises to 1 along a cosine. In free
            training, every replay is an update.
        projector: widths of the layers of the projector, if `encoder.hidden` is null.
        predictor: width of the hidden layer of the predictor.
    """

    temperature: float = option(0.2, gt=0)
    tau: float = option(0.99, ge=0, le=1)
    projector: tuple[int, ...] = option((4096, 256), ge=1)
    predictor: int = option(4096, ge=1)
    teacher: ClassVar[tuple[str, ...]] = ("encoder", "projector")

    def heads(self, encoder: Encoder) -> Heads:
        """Return a projector that ends in a batch norm, and a predictor; both without biases."""
        projector, width = None, encoder.outputs
        if not encoder.projects:
            projector = projectors.mlp(
                width, self.projector, bias=False, last_bias=False, last_norm=True
            )
            width = self.projector[-1]
        predictor = projectors.mlp(width, (self.predictor, width), bias=False, last_bias=False)
        return Heads(projector, predictor)

    def train_loss(self, net: Net, batch: Batch, adversarial: Tensor) -> Tensor:
        """Return the contrastive loss of different views, twice its mean."""
        keys = net.target(batch.views)
        queries = [net.predict(net(view)) for view in self.student_views(batch, adversarial)]
        return distributed.share(2 * across(keys, queries, self._contrast))

    def after_step(self, net: Net, batch: Batch, progress: float) -> None:
        """Move the teacher."""
        net.follow(momentum(self.tau, progress))

    def _contrast(self, k: Tensor, q: Tensor) -> Tensor:
        """Return the cross-entropy of each query's own key among the keys of all ranks."""
        q, keys = losses.unit(runtime.widen(q)), losses.unit(losses.whole(k))
        logits = q @ keys.T / self.temperature  # (B, N)
        own = torch.arange(len(q), device=q.device) + distributed.rank() * len(q)
        loss = torch.nn.functional.cross_entropy(logits, own)
        return 2 * self.temperature * loss
