"""Batch norm over all ranks, equal to batch norm of the whole minibatch in one process.

On GPUs it is `torch.nn.SyncBatchNorm`, on CPUs, where torch has none, `SynchronisedBatchNorm`.
Source: Ioffe, Szegedy 2015.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from robustviews.machine import distributed
from robustviews.machine.runtime import widen


def synchronise(net: nn.Module) -> None:
    """Make every batch norm of a network use all ranks, in place; names and weights stay."""
    if distributed.ranks() == 1:
        return
    if any(parameter.is_cuda for parameter in net.parameters()):  # a teacher may have none
        nn.SyncBatchNorm.convert_sync_batchnorm(net)
        return
    for module in list(net.modules()):
        for name, child in module.named_children():
            if isinstance(child, _BatchNorm):
                setattr(module, name, SynchronisedBatchNorm(child))


def exclude_from_graphs(net: nn.Module) -> None:
    """Let torch.compile compile a network between its synchronised batch norms, not through them.

    In torch 2.11 the compiled backward pass through a sum over ranks gives zeros, without any
    error.
    """
    for module in net.modules():
        if isinstance(module, SynchronisedBatchNorm | nn.SyncBatchNorm):
            module.forward = torch.compiler.disable(module.forward)  # type: ignore[method-assign]


class SynchronisedBatchNorm(_BatchNorm):
    """Batch norm of inputs (N, C) or (N, C, h, w), with N samples on each rank."""

    def __init__(self, local: _BatchNorm) -> None:
        """Take weights, statistics and mode from a batch norm of one process."""
        super().__init__(local.num_features, local.eps, local.momentum, local.affine)
        self.weight, self.bias = local.weight, local.bias
        for name, buffer in local.named_buffers():
            setattr(self, name, buffer)
        self.train(local.training)

    def forward(self, x: Tensor) -> Tensor:
        """Normalise; in train mode also update the running statistics."""
        if not self.training:
            return super().forward(x)
        assert self.running_mean is not None
        ones, zeros = torch.ones_like(self.running_mean), torch.zeros_like(self.running_mean)
        weight, bias = (self.weight, self.bias) if self.affine else (ones, zeros)
        y, mean, variance = _Normalise.apply(  # type: ignore[no-untyped-call]
            x, weight, bias, self.eps
        )
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        assert self.momentum is not None
        count = x.numel() // x.shape[1] * distributed.ranks()
        with torch.no_grad():
            self.num_batches_tracked.add_(1)
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * (count / (count - 1)), self.momentum)
        normalised: Tensor = y
        return normalised

    def _check_input_dim(self, input: Tensor) -> None:  # noqa: A002  # torch's name
        """Accept the inputs of both BatchNorm1d and BatchNorm2d."""


class _Normalise(torch.autograd.Function):
    """y = weight (x - mean) / std + bias, with mean and variance (C,) over x of all ranks.

    Backward, of the upstream gradient g: weight / std (g - mean(g) - slope (x - mean)), with the
    slope of the line fitted to g over x. It is written out so that only x is kept for the backward
    pass, and the ranks communicate once per direction.
    """

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401  # torch's, untyped
        x: Tensor,
        weight: Tensor,
        bias: Tensor,
        eps: float,
    ) -> tuple[Tensor, Tensor, Tensor]:
        # Statistics of this rank, by the kernel of torch's batch norm: `var_mean` is slow on CPUs.
        mean, variance = torch.batch_norm_update_stats(widen(x), None, None, 0.0)
        # Ranks have equal shares: the mean of means, and mean variance plus variance of means.
        means, variances = distributed.gather(torch.stack((mean, variance)).unsqueeze(1), 1)
        mean = means.mean(dim=0)
        variance = (variances + (means - mean).square()).mean(dim=0)
        scale = weight * (variance + eps).rsqrt()
        y = torch.addcmul(_wide(bias - mean * scale, x), widen(x), _wide(scale, x)).to(x.dtype)
        ctx.save_for_backward(x, weight, mean, variance)
        ctx.eps = eps
        ctx.mark_non_differentiable(mean, variance)
        return y, mean, variance

    @staticmethod
    def backward(
        ctx: Any,  # noqa: ANN401
        upstream: Tensor,
        *_: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor, None]:
        x, weight, mean, variance = ctx.saved_tensors
        inverse_std = (variance + ctx.eps).rsqrt()
        # Used for its sums only. CUDA reads the second pair of statistics, a CPU the first.
        _, d_weight, d_bias = torch.ops.aten.native_batch_norm_backward(
            widen(upstream),
            widen(x),
            weight,
            mean,
            variance,
            mean,
            inverse_std,
            False,  # in eval mode
            ctx.eps,
            [False, True, True],
        )
        # Parameter gradients stay local to the rank: they are summed once, before the update.
        count = x.numel() // x.shape[1] * distributed.ranks()
        mean_upstream, mean_slope = distributed.total(torch.stack((d_bias, d_weight))) / count
        scale, slope = weight * inverse_std, mean_slope * inverse_std
        at_zero = _wide(scale * (slope * mean - mean_upstream), x)
        d_x = torch.addcmul(at_zero, widen(x), _wide(-scale * slope, x))
        d_x.addcmul_(widen(upstream), _wide(scale, x))
        return d_x.to(x.dtype), d_weight, d_bias, None


def _wide(channels: Tensor, x: Tensor) -> Tensor:
    """Reshape (C,) so that it broadcasts over the channels of x."""
    return channels.view(-1, *[1] * (x.dim() - 2))
