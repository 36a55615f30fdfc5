"""The network of the recorded training steps (`vectors/README.md`), and its recorded names."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

Arrays = Mapping[str, NDArray[np.float64]]


class TinyNetwork(nn.Module):
    """Images (N, 3, 8, 8) to unit-norm embeddings (N, 6) in float64, with three batch norms.

    Attributes:
        outputs, projects: as of an encoder; without `projects`, methods add a projector.
    """

    outputs, projects = 6, True

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1, bias=False)
        self.bn0 = nn.BatchNorm2d(4)
        self.fc1 = nn.Linear(4, 8)
        self.bn1 = nn.BatchNorm1d(8)
        self.fc2 = nn.Linear(8, 8)
        self.bn2 = nn.BatchNorm1d(8)
        self.fc3 = nn.Linear(8, 6)
        self.double()

    def forward(self, images: Tensor) -> Tensor:
        """Return the embeddings z of the images."""
        features = self.bn0(self.conv(images)).relu().mean(dim=(2, 3))  # (N, 4)
        features = self.bn1(self.fc1(features)).relu()  # (N, 8), the pre-feature
        z = self.fc3(self.bn2(self.fc2(features)).relu())  # (N, 6)
        unit: Tensor = z / torch.linalg.vector_norm(z, dim=1, keepdim=True)
        return unit


def recorded_name(name: str) -> str:
    """Return the name in the files of a parameter or buffer: conv.weight is conv_weight."""
    return name.replace(".", "_")


def network(arrays: Arrays) -> TinyNetwork:
    """Return the network in train mode with the starting state of a recorded file."""
    net = TinyNetwork()
    start = {name: torch.tensor(arrays[f"init_{recorded_name(name)}"]) for name in net.state_dict()}
    net.load_state_dict(start)
    return net.train()


def state(net: nn.Module) -> dict[str, NDArray[np.float64]]:
    """Return a copy of all parameters and buffers by recorded name."""
    return {recorded_name(name): value.numpy().copy() for name, value in net.state_dict().items()}


def gradients(net: nn.Module) -> dict[str, NDArray[np.float64]]:
    """Return a copy of all parameter gradients by recorded name, zeros where there is none."""
    return {
        recorded_name(name): (torch.zeros_like(p) if p.grad is None else p.grad).numpy().copy()
        for name, p in net.named_parameters()
    }
