"""Modules that methods add to an encoder: projectors, predictors and prototypes.

Source: for each method the public code of solo-learn (da Costa et al. 2022), whose hyper-parameters
for CIFAR are published.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

_DEVIATION = 0.02  # of DINO's initial weights


def mlp(
    inputs: int,
    widths: Sequence[int],
    *,
    norm: bool = True,
    last_norm: bool = False,
    bias: bool = True,
    last_bias: bool = True,
    activation: Literal["relu", "gelu"] = "relu",
) -> nn.Sequential:
    """Return a multi-layer perceptron.

    Args:
        inputs: dimension of the inputs.
        widths: outputs of each layer.
        norm: whether a batch norm follows each layer but the last.
        last_norm: whether a batch norm without weights follows the last layer.
        bias: whether layers but the last have a bias.
        last_bias: whether the last layer has a bias.
        activation: after each layer but the last.
    """
    layers: list[nn.Module] = []
    for width in widths[:-1]:
        layers.append(nn.Linear(inputs, width, bias=bias))
        layers += [nn.BatchNorm1d(width)] * norm
        layers.append(nn.ReLU() if activation == "relu" else nn.GELU())
        inputs = width
    layers.append(nn.Linear(inputs, widths[-1], bias=last_bias))
    layers += [nn.BatchNorm1d(widths[-1], affine=False)] * last_norm
    return nn.Sequential(*layers)


def truncated_normal_(module: nn.Module) -> nn.Module:
    """Draw the weights of linear layers from a truncated normal distribution; clear the biases."""
    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            nn.init.trunc_normal_(layer.weight, std=_DEVIATION)
            nn.init.zeros_(layer.bias)
    return module


class Prototypes(nn.Module):
    """Cosines of projections z (N, D) with K learned directions: scores (N, K).

    This is a linear layer with weight norm whose gains are fixed at 1. Scores are in float32 or
    wider under any autocast, since losses divide them by small temperatures.
    """

    def __init__(self, inputs: int, count: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(nn.Linear(inputs, count, bias=False).weight.detach())

    def forward(self, z: Tensor) -> Tensor:
        """Return the scores (N, K) of projections (N, D)."""
        with torch.autocast(z.device.type, enabled=False):
            z = z.to(self.weight.dtype)
            return functional.normalize(z, dim=1) @ functional.normalize(self.weight, dim=1).T
