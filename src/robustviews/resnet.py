"""Residual networks: those of He et al. 2016 as in torchvision, with other stems and widths."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

Layout = Literal["channels_last", "contiguous"]
Normalisation = tuple[Sequence[float], Sequence[float]]  # mean and std of R, G, B
LAYOUTS: dict[Layout, torch.memory_format] = {
    "channels_last": torch.channels_last,
    "contiguous": torch.contiguous_format,
}


class BasicBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut (ResNet-18 and 34)."""

    expansion = 1

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = _conv(inputs, width, 3, stride)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = _conv(width, width, 3, 1)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = _shortcut(inputs, width, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, inputs, h, w) to (N, width, h/stride, w/stride)."""
        y = functional.relu(self.bn1(self.conv1(x)), inplace=True)
        y = self.bn2(self.conv2(y))
        return functional.relu(y + self.downsample(x), inplace=True)


class Bottleneck(nn.Module):
    """A 3x3 convolution between two 1x1 convolutions, beside a shortcut (ResNet-50 and 101)."""

    expansion = 4

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        outputs = width * self.expansion
        self.conv1 = _conv(inputs, width, 1, 1)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = _conv(width, width, 3, stride)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = _conv(width, outputs, 1, 1)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.downsample = _shortcut(inputs, outputs, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, inputs, h, w) to (N, 4 width, h/stride, w/stride)."""
        y = functional.relu(self.bn1(self.conv1(x)), inplace=True)
        y = functional.relu(self.bn2(self.conv2(y)), inplace=True)
        y = self.bn3(self.conv3(y))
        return functional.relu(y + self.downsample(x), inplace=True)


class Shortcut(nn.Sequential):
    """The 1x1 convolution and batch norm beside a block that changes shape.

    The stride is applied by slicing the input, not in the convolution: in torch 2.11 the weight
    gradient of a strided 1x1 convolution with fewer than 16 input channels, in channels_last, on
    maps of 48 pixels and more, writes outside its memory on CPUs with AVX-512. Both ways give the
    same bits.
    """

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__(_conv(inputs, outputs, 1, 1), nn.BatchNorm2d(outputs))
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, inputs, h, w) to (N, outputs, h/stride, w/stride)."""
        kept = x[..., :: self.stride, :: self.stride]
        return super().forward(kept)  # type: ignore[no-any-return,no-untyped-call]


class Normalise(nn.Module):
    """(x - mean) / std for each channel.

    Mean and std are saved with the weights: whoever hashes the weights hashes them, too.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).reshape(3, 1, 1))
        self.register_buffer("std", torch.tensor(std).reshape(3, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        """Map images (N, 3, H, W) in [0, 1] to what the network was trained on."""
        return (images - self.mean) / self.std


class ResNet(nn.Module):
    """A residual network without its last layer; parameter names are torchvision's.

    Normalisation is part of the network, so that attacks see images in [0, 1].
    """

    def __init__(
        self,
        block: type[BasicBlock | Bottleneck],
        depths: tuple[int, ...],
        *,
        width: int = 64,
        stem: Literal["cifar", "imagenet"] = "cifar",
        padding: Literal[1, 2] = 1,
        normalise: Normalisation | None = None,
        layout: Layout = "channels_last",
    ) -> None:
        super().__init__()
        self.memory_format = LAYOUTS[layout]
        self.normalise = None if normalise is None else Normalise(*normalise)
        if stem == "cifar":
            self.conv1 = nn.Conv2d(3, width, 3, padding=padding, bias=False)
            self.maxpool: nn.Module = nn.Identity()
        else:
            self.conv1 = _conv(3, width, 7, 2)
            self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        self.bn1 = nn.BatchNorm2d(width)
        inputs = width
        for stage, depth in enumerate(depths):
            channels = width * 2**stage
            blocks = []
            for number in range(depth):
                stride = 2 if stage > 0 and number == 0 else 1
                blocks.append(block(inputs, channels, stride))
                inputs = channels * block.expansion
            self.add_module(f"layer{stage + 1}", nn.Sequential(*blocks))
        self.stages = len(depths)
        self.features = inputs

    def forward(self, images: Tensor) -> Tensor:
        """Map images (N, 3, H, W) to backbone features (N, 8 x width x expansion)."""
        x = self._stem(images)
        for stage in range(self.stages):
            x = self.get_submodule(f"layer{stage + 1}")(x)
        features: Tensor = x.mean(dim=(2, 3))
        return features

    def maps(self, images: Tensor) -> tuple[Tensor, ...]:
        """Map images (N, 3, H, W) to the output (N, C, h, w) of each stage, from fine to coarse."""
        x, found = self._stem(images), []
        for stage in range(self.stages):
            x = self.get_submodule(f"layer{stage + 1}")(x)
            found.append(x)
        return tuple(found)

    @property
    def channels(self) -> tuple[int, ...]:
        """Channels of each stage."""
        return tuple(self.features // 2**stage for stage in reversed(range(self.stages)))

    def _stem(self, images: Tensor) -> Tensor:
        x = images if self.normalise is None else self.normalise(images)
        x = x.contiguous(memory_format=self.memory_format)
        pooled: Tensor = self.maxpool(functional.relu(self.bn1(self.conv1(x)), inplace=True))
        return pooled


def _conv(inputs: int, outputs: int, kernel: int, stride: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False)


def _shortcut(inputs: int, outputs: int, stride: int) -> nn.Module:
    if stride == 1 and inputs == outputs:
        return nn.Identity()
    return Shortcut(inputs, outputs, stride)


BACKBONES: dict[str, tuple[type[BasicBlock | Bottleneck], tuple[int, ...]]] = {
    "resnet18": (BasicBlock, (2, 2, 2, 2)),
    "resnet34": (BasicBlock, (3, 4, 6, 3)),
    "resnet50": (Bottleneck, (3, 4, 6, 3)),
    "resnet101": (Bottleneck, (3, 4, 23, 3)),
}
