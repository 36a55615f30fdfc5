"""Encoders: a residual backbone, the pre-feature for probes, and the projector for losses.

Source: arXiv 2501.03507 and its reference code: torchvision's ResNet with a CIFAR stem, a 4096-d
pre-feature, a two-layer projector and unit-norm projections. The residual network is that of
He et al. 2016 as in torchvision, with a variable width.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from robustviews import finite
from robustviews.machine import runtime

Feature = Literal["prefeature", "backbone"]
Layout = Literal["channels_last", "contiguous"]
LAYOUTS: dict[Layout, torch.memory_format] = {
    "channels_last": torch.channels_last,
    "contiguous": torch.contiguous_format,
}


class BasicBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut (ResNet-18)."""

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
    """A 3x3 convolution between two 1x1 convolutions, beside a shortcut (ResNet-50)."""

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


class ResNet(nn.Module):
    """A residual network without its last layer; parameter names are torchvision's."""

    def __init__(
        self,
        block: type[BasicBlock | Bottleneck],
        depths: tuple[int, ...],
        *,
        width: int = 64,
        stem: Literal["cifar", "imagenet"] = "cifar",
        layout: Layout = "channels_last",
    ) -> None:
        super().__init__()
        self.memory_format = LAYOUTS[layout]
        if stem == "cifar":
            self.conv1 = _conv(3, width, 3, 1)
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
        x = images.contiguous(memory_format=self.memory_format)
        x = self.maxpool(functional.relu(self.bn1(self.conv1(x)), inplace=True))
        for stage in range(self.stages):
            x = self.get_submodule(f"layer{stage + 1}")(x)
        features: Tensor = x.mean(dim=(2, 3))
        return features


class Encoder(nn.Module):
    """Backbone, pre-feature and projector; or backbone and classifier for supervised training.

    Attributes:
        precision: arithmetic of `forward`, and so of training.
    """

    def __init__(
        self, backbone: ResNet, *, hidden: int, projection: int, classes: int | None = None
    ) -> None:
        super().__init__()
        self.precision = "fp32"
        self.hidden = hidden
        self.backbone = backbone
        self.classifier: nn.Linear | None = None
        self.prefeature: nn.Sequential | None = None
        if classes is not None:
            self.classifier = nn.Linear(backbone.features, classes)
            return
        self.prefeature = nn.Sequential(
            nn.Linear(backbone.features, hidden), nn.BatchNorm1d(hidden), nn.ReLU()
        )
        self.projector = nn.Sequential(
            nn.Linear(hidden, hidden),
            nn.BatchNorm1d(hidden),
            nn.ReLU(),
            nn.Linear(hidden, projection),
        )

    def forward(self, images: Tensor) -> Tensor:
        """Map images (N, 3, H, W) in [0, 1] to the inputs of the method's loss.

        Returns:
            Unit-norm projections z (N, projection), or logits (N, classes) of a supervised network;
            float32 or wider, at any precision inside.
        """
        with runtime.autocast(self.precision, images.device):
            h = self.backbone(images)
            if self.classifier is not None:
                return _widen(self.classifier(h))
            assert self.prefeature is not None
            z = self.projector(self.prefeature(h))
        return functional.normalize(_widen(z), dim=1)

    def represent(
        self, images: Tensor, feature: Feature = "prefeature", *, precision: str = "fp32"
    ) -> Tensor:
        """Map images (N, 3, H, W) to the features h that a probe reads, without the projector.

        Args:
            images: in [0, 1].
            feature: `prefeature` (N, hidden), which the reference code probes, or `backbone`.
            precision: precision of the arithmetic; evaluations are always fp32.

        Raises:
            ValueError: the pre-feature is requested of a supervised network, which has none.
        """
        with runtime.autocast(precision, images.device):
            h = self.backbone(images)
            if feature == "backbone":
                return _widen(h)
            if self.prefeature is None:
                raise ValueError("a supervised network has no pre-feature; probe feature: backbone")
            return _widen(self.prefeature(h))

    def width_of(self, feature: Feature) -> int:
        """Return the dimension of a feature."""
        if feature == "prefeature" and self.prefeature is not None:
            return self.hidden
        return self.backbone.features


def build_encoder(
    backbone: Literal["resnet18", "resnet50"] = "resnet18",
    *,
    width: int = 64,
    stem: Literal["cifar", "imagenet"] = "cifar",
    hidden: int = 4096,
    projection: int = 1024,
    layout: Layout = "channels_last",
    classes: int | None = None,
    seed: int = 0,
) -> Encoder:
    """Build an encoder with reproducible initial weights.

    Args:
        backbone: name in `BACKBONES`.
        width: channels of the first stage; 64 is the standard network.
        stem: `cifar` is a 3x3 stride-1 convolution without max-pooling, `imagenet` 7x7 stride 2
            with it.
        hidden: width of the pre-feature and of the projector's hidden layer.
        projection: dimension of the projections.
        layout: memory format of weights and activations; only rounding depends on it.
        classes: if given, build a supervised network (backbone and classifier) instead.
        seed: seed of the initial weights; the global generator is not changed.

    Returns:
        An encoder in train mode on the CPU.
    """
    block, depths = BACKBONES[backbone]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        resnet = ResNet(block, depths, width=width, stem=stem, layout=layout)
        encoder = Encoder(resnet, hidden=hidden, projection=projection, classes=classes)
        for module in encoder.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    for parameter in encoder.parameters():
        if parameter.dim() == 4:  # convolutions: faster with images of the same layout
            parameter.data = parameter.data.contiguous(memory_format=resnet.memory_format)
    return encoder


class WeightsError(ValueError):
    """Weights do not fit a network.

    Attributes:
        part: `encoder` or `head`.
    """

    def __init__(self, part: str, reason: str) -> None:
        super().__init__(f"the weights of the {part} do not fit: {reason}")
        self.part = part


def restore_encoder(
    weights: Mapping[str, Tensor],
    options: Mapping[str, Any],
    *,
    classes: int | None,
    device: torch.device,
) -> Encoder:
    """Return a trained encoder, on its device and in eval mode.

    Args:
        weights: all weights, by name.
        options: arguments of `build_encoder`.
        classes: classes of a supervised network's own classifier; None without one.
        device: device of the encoder.

    Raises:
        WeightsError: the weights are those of another network.
    """
    encoder = build_encoder(**options, classes=classes)
    load_strictly(encoder, weights, "encoder")
    return encoder.to(device).eval()


def load_strictly(module: nn.Module, weights: Mapping[str, Tensor], part: str) -> None:
    """Load all weights of a module, the `encoder` or `head`, or raise WeightsError."""
    try:
        module.load_state_dict(weights, strict=True)
    except RuntimeError as error:
        raise WeightsError(part, str(error)) from None


def first_nonfinite(encoder: Encoder, images: Tensor) -> str:
    """Return the first weight of an encoder, or `outputs`, that is not finite; empty if none is.

    Args:
        encoder: network in eval mode.
        images: (N, 3, H, W) in [0, 1], for which the outputs are checked.
    """
    with torch.no_grad():
        outputs = encoder.forward(images)  # not the call, which may be compiled for train mode
    return finite.first_nonfinite({**encoder.state_dict(), "outputs": outputs})


def _conv(inputs: int, outputs: int, kernel: int, stride: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False)


def _shortcut(inputs: int, outputs: int, stride: int) -> nn.Module:
    if stride == 1 and inputs == outputs:
        return nn.Identity()
    return Shortcut(inputs, outputs, stride)


def _widen(x: Tensor) -> Tensor:
    return x if x.dtype in (torch.float32, torch.float64) else x.float()


BACKBONES: dict[str, tuple[type[BasicBlock | Bottleneck], tuple[int, ...]]] = {
    "resnet18": (BasicBlock, (2, 2, 2, 2)),
    "resnet50": (Bottleneck, (3, 4, 6, 3)),
}
