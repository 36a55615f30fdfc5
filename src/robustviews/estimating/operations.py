"""Counted, not measured: passes of views through a network, and their floating-point operations.

Each of three takes as many operations as a forward pass: the forward pass, the gradient of what
leads to its inputs, and the gradient of its weights (within 0.1 %; the first layer has no input
gradient in a training without an adversary).
"""

from __future__ import annotations

import functools
from collections import Counter
from dataclasses import asdict
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from robustviews.encoder import Encoder as ResidualEncoder
from robustviews.encoder import Feature, build_encoder
from robustviews.methods import Method
from robustviews.network import build_network
from robustviews.regimes import Regime
from robustviews.step import blank_batch
from robustviews.study.schema import Encoder
from robustviews.tasks.table import TASKS

_SIDE = 2  # pixels of a view that only counts


class Passes(NamedTuple):
    """Passes of single views through an encoder."""

    forwards: float = 0.0  # forward passes
    backwards: float = 0.0  # of these, passes whose gradient is computed
    weights: float = 0.0  # of these, passes whose gradient is also that of the weights

    def times(self, factor: float) -> Passes:
        """Return a multiple."""
        return Passes(*(factor * count for count in self))

    def flop(self, forward: float) -> float:
        """Return the operations, given those of a forward pass."""
        return forward * sum(self)


@functools.cache
def forward_flop(
    encoder: Encoder, *, size: int, classes: int | None = None, feature: Feature | None = None
) -> float:
    """Count the floating-point operations of a forward pass of one view.

    Args:
        encoder: options.
        size: side of the view in pixels.
        classes: of a supervised network.
        feature: that a probe reads; None for the outputs of a training.
    """
    with torch.device("meta"):  # has shapes and no numbers
        network = build_encoder(**asdict(encoder), classes=classes).eval()
        view = torch.empty(1, 3, size, size)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(view) if feature is None else network.represent(view, feature)
    return float(counter.get_total_flops())


class DenseHead(NamedTuple):
    """What a dense head makes of one view."""

    flop: float  # operations of its forward pass, without the encoder
    outputs: tuple[int, ...]  # their shape


@functools.cache
def dense_head(encoder: Encoder, *, task: str, size: int, classes: int) -> DenseHead:
    """Count the floating-point operations of a dense head.

    Args:
        encoder: options.
        task: of the head, a row in `tasks.table`.
        size: side of the view in pixels.
        classes: of the head.
    """
    with torch.device("meta"), torch.no_grad():
        network = build_encoder(**asdict(encoder)).eval()
        head = TASKS[task].head(network.backbone.channels, classes).eval()
        maps = network.maps(torch.empty(1, 3, size, size))
        with FlopCounterMode(display=False) as counter:
            outputs = head(maps)
    return DenseHead(float(counter.get_total_flops()), tuple(outputs.shape[1:]))


@functools.cache
def of_minibatch(method: Method, regime: Regime, *, views: int, batch_size: int) -> Passes:
    """Count the passes of a minibatch, by training a network that does nothing else."""
    counting = _Counting()
    net = build_network(cast("ResidualEncoder", counting), method)
    batch = blank_batch(batch_size, views=views, size=_SIDE, device=torch.device("cpu"))
    with torch.random.fork_rng(devices=[]):
        regime.train_batch(net, method, batch, None, lambda: None, None)
    return Passes(**{name: float(counting.counts[name]) for name in Passes._fields})


class _Counting(nn.Module):
    """An encoder whose outputs are its pixels; it counts passes of single views of the student."""

    precision, outputs, projects = "fp32", 3 * _SIDE**2, True

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3 * _SIDE**2))
        self.counts = Counter[str]()

    def forward(self, images: Tensor) -> Tensor:
        """Map images (N, 3, 2, 2) to outputs (N, 12)."""
        self.counts["forwards"] += len(images)
        outputs: Tensor = _Pass.apply(images.flatten(1), self.weight, self.counts)  # type: ignore[no-untyped-call]
        return outputs


class _Pass(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, pixels: Tensor, weight: Tensor, counts: Counter[str]) -> Tensor:  # noqa: ANN401
        ctx.counts = counts
        return pixels * weight

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        pixels, weight, _ = ctx.needs_input_grad
        ctx.counts["backwards"] += len(upstream)
        ctx.counts["weights"] += weight * len(upstream)
        return upstream if pixels else None, upstream.sum(dim=0) if weight else None, None
