"""The CF-AMC-SSL step of this package, from bytes to updated parameters, as `pretrain` takes it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from benchmarks.published import silent
from benchmarks.recipe import Recipe
from robustviews import augment
from robustviews.encoder import build_encoder
from robustviews.machine import runtime
from robustviews.machine.compiler import Compilation
from robustviews.methods import Batch, EmpSsl
from robustviews.network import build_network
from robustviews.optim import Lars
from robustviews.regimes import Free
from robustviews.step import compile_encoder


class OurStep:
    """Free adversarial training of EMP-SSL on views made on the device; a call trains one turn.

    Attributes:
        net: encoder and projector, in train mode.
        lap: told the name of each part of a step that has just ended.
        compilation: `compiled`, or `eager` and why.
        compile_seconds: duration of the compilation.
    """

    def __init__(
        self,
        images: Tensor,
        recipe: Recipe,
        *,
        device: torch.device,
        precision: str,
        compiled: bool = False,
        minibatches: int | None = None,
    ) -> None:
        """Take (N, 3, H, W) uint8 images; a turn has so many minibatches, or all that there are."""
        self.recipe, self.device, self.precision = recipe, device, precision
        self.images = images.to(device)
        self.used = recipe.batch * (minibatches or len(images) // recipe.batch)  # images of a turn
        self.net: Any = build_encoder(  # without heads, an encoder is its own network
            width=recipe.width, hidden=recipe.hidden, projection=recipe.projection
        )
        self.net.to(device).train()
        self.net.precision = precision
        self.optimizer = Lars(
            self.net.parameters(),
            recipe.lr,
            momentum=recipe.momentum,
            weight_decay=recipe.weight_decay,
            eta=recipe.eta,
        )
        self.method = EmpSsl(tcr_eps=recipe.tcr_eps)
        self.regime = Free(
            replays=recipe.replays, eps=recipe.eps * 255, step_size=recipe.step_size * 255
        )
        self.views = augment.Views(count=recipe.crops, augmentation="emp_ssl")
        self.compilation, self.compile_seconds = self._compile() if compiled else ("eager", 0.0)
        self.delta: Tensor | None = None
        self.turn = 0
        self.lap = silent

    def __call__(self) -> None:
        """Train on the minibatches of a turn, in random order."""
        order = runtime.permutation(len(self.images), 0, "order", self.turn)
        order = order[: self.used].to(self.device)
        key = runtime.counter_key(0, "views", self.turn)
        self.turn += 1
        for chosen in order.split(self.recipe.batch):
            views = augment.make_views(
                self.images[chosen], self.views, size=self.recipe.size, key=key, counters=chosen
            )
            self.lap("data")
            self.train(views)

    def train(self, views: Tensor) -> list[Tensor]:
        """Replay a minibatch of views (V, B, 3, H, W); return the loss of each replay."""
        batch = Batch(images=views[0], views=views, labels=torch.zeros(0))
        with runtime.tf32(allowed=self.precision == "tf32"):
            losses, self.delta = self.regime.train_batch(
                self.net, self.method, batch, self.delta, self._update, None
            )
        self.lap("perturbation")
        return losses

    def _compile(self) -> Compilation:
        recipe = self.recipe
        return compile_encoder(
            build_network(self.net, self.method),
            method=self.method,
            regime=self.regime,
            views=self.views,
            size=recipe.size,
            batch_size=recipe.batch,
        )

    def _update(self) -> None:
        self.lap("backward")
        self.optimizer.step()
        self.lap("optimizer")
