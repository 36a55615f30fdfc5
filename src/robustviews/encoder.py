"""Encoders: a residual backbone, the pre-feature for probes, and the projector for losses.

Source: arXiv 2501.03507 and its reference code: torchvision's ResNet with a CIFAR stem, a 4096-d
pre-feature and a two-layer projector, whose outputs a method may normalise. The residual network is
that of He et al. 2016 as in torchvision, with a variable width.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.utils import fusion

from robustviews import finite
from robustviews.machine import runtime
from robustviews.resnet import BACKBONES, Layout, Normalisation, ResNet
from robustviews.tasks.protocol import Maps
from robustviews.vit import WIDTHS, VisionTransformer

Feature = Literal["prefeature", "backbone"]


class Encoder(nn.Module):
    """Backbone, pre-feature and projector; backbone and classifier; or the backbone alone.

    A supervised network has a classifier. An imported network has a classifier if one came with its
    file, and otherwise nothing but the backbone.

    Attributes:
        precision: arithmetic of `forward`, and so of training.
    """

    def __init__(
        self,
        backbone: ResNet | VisionTransformer,
        *,
        hidden: int | None,
        projection: int,
        classes: int | None = None,
    ) -> None:
        super().__init__()
        self.precision = "fp32"
        self.hidden, self.projection = hidden, projection
        self.backbone = backbone
        self.classifier: nn.Linear | None = None
        self.prefeature: nn.Sequential | None = None
        if classes is not None:
            self.classifier = nn.Linear(backbone.features, classes)
            return
        if hidden is None:
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
            Projections z (N, projection), not normalised; logits (N, classes) of a network with a
            classifier; features (N, features) of a backbone alone. float32 or wider, at any
            precision inside.
        """
        with runtime.autocast(self.precision, images.device):
            h = self.backbone(images)
            if self.classifier is not None:
                h = self.classifier(h)
            elif self.prefeature is not None:
                h = self.projector(self.prefeature(h))
            return runtime.widen(h)

    @property
    def outputs(self) -> int:
        """Dimension of what `forward` returns."""
        if self.classifier is not None:
            return self.classifier.out_features
        return self.backbone.features if self.prefeature is None else self.projection

    @property
    def projects(self) -> bool:
        """Whether the encoder has a projector, so that `forward` returns projections."""
        return self.prefeature is not None

    def represent(
        self, images: Tensor, feature: Feature = "prefeature", *, precision: str = "fp32"
    ) -> Tensor:
        """Map images (N, 3, H, W) to the features h that a probe reads, without the projector.

        Args:
            images: in [0, 1].
            feature: `prefeature` (N, hidden), which the reference code probes, or `backbone`.
            precision: precision of the arithmetic; evaluations are always fp32.

        Raises:
            ValueError: the pre-feature is requested of a network without one, which is supervised
                or imported.
        """
        with runtime.autocast(precision, images.device):
            h = self.backbone(images)
            if feature == "prefeature":
                h = self._prefeature(h)
            return runtime.widen(h)

    def _prefeature(self, h: Tensor) -> Tensor:
        if self.prefeature is None:
            kind = "an imported backbone" if self.classifier is None else "a supervised network"
            raise ValueError(f"{kind} has no pre-feature; probe feature: backbone")
        return self.prefeature(h)  # type: ignore[no-any-return]  # as of any module

    def maps(self, images: Tensor) -> Maps:
        """Map images (N, 3, H, W) in [0, 1] to what dense heads read."""
        levels = map(runtime.widen, self.backbone.maps(images))
        height, width = images.shape[2:]
        return Maps(tuple(levels), (height, width))

    def width_of(self, feature: Feature) -> int:
        """Return the dimension of a feature."""
        if feature == "prefeature" and self.hidden is not None and self.prefeature is not None:
            return self.hidden
        return self.backbone.features


def build_encoder(
    backbone: Literal[
        "resnet18", "resnet34", "resnet50", "resnet101", "vit_small", "vit_base"
    ] = "resnet18",
    *,
    width: int = 64,
    stem: Literal["cifar", "imagenet"] = "cifar",
    padding: Literal[1, 2] = 1,
    normalise: Normalisation | None = None,
    hidden: int | None = 4096,
    projection: int = 1024,
    layout: Layout = "channels_last",
    heads: int | None = None,
    classes: int | None = None,
    seed: int = 0,
) -> Encoder:
    """Build an encoder with reproducible initial weights.

    Args:
        backbone: name in `resnet.BACKBONES` or `vit.WIDTHS`.
        width: channels of the first stage; 64 is the standard network.
        stem: `cifar` is a 3x3 stride-1 convolution without max-pooling, `imagenet` 7x7 stride 2
            with it.
        padding: zeros around the images in the convolution of a `cifar` stem. With 2, as in
            solo-learn, maps of 32x32 images are 34x34. The `imagenet` stem always has 3.
        normalise: mean and std of R, G, B, applied to images in [0, 1] first; None for none.
        hidden: width of the pre-feature and of the projector's hidden layer; None for a backbone
            alone.
        projection: dimension of the projections.
        layout: memory format of weights and activations; only rounding depends on it.
        heads: attention heads of a transformer; None for those of timm and DINO. A transformer
            ignores width, stem, padding and layout.
        classes: if given, build a supervised network (backbone and classifier) instead.
        seed: seed of the initial weights; the global generator is not changed.

    Returns:
        An encoder in train mode on the CPU.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network: ResNet | VisionTransformer
        if backbone in WIDTHS:
            network = VisionTransformer(backbone, heads=heads, normalise=normalise)
        else:
            network = ResNet(
                *BACKBONES[backbone],
                width=width,
                stem=stem,
                padding=padding,
                normalise=normalise,
                layout=layout,
            )
        encoder = Encoder(network, hidden=hidden, projection=projection, classes=classes)
        for module in encoder.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    for parameter in encoder.parameters():
        if parameter.dim() == 4:  # convolutions: faster with images of the same layout
            parameter.data = parameter.data.contiguous(memory_format=network.memory_format)
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
    fold: bool = False,
) -> Encoder:
    """Return a trained encoder, on its device and in eval mode.

    Args:
        weights: all weights, by name.
        options: arguments of `build_encoder`.
        classes: classes of a supervised network's own classifier; None without one.
        device: device of the encoder.
        fold: whether to fold batch norms into the layers before them; only rounding depends on it.

    Raises:
        WeightsError: the weights are those of another network.
    """
    encoder = build_encoder(**options, classes=classes)
    load_strictly(encoder, weights, "encoder")
    encoder.eval()
    if fold:
        fold_batchnorm_(encoder)
    return encoder.to(device)


def fold_batchnorm_(network: nn.Module) -> None:
    """Fold each batch norm of a network in eval mode into the layer before it.

    That is a convolution or a linear layer of the same module, as in `BasicBlock`.

    Source: Markus 2018, "Fusing batch normalization and convolution in runtime", as in torch.
    """
    for module in list(network.modules()):
        layer = ""
        for name, child in list(module.named_children()):
            if isinstance(child, nn.BatchNorm1d | nn.BatchNorm2d):
                before: Any = module.get_submodule(layer)
                linear = isinstance(before, nn.Linear)
                fuse: Any = fusion.fuse_linear_bn_eval if linear else fusion.fuse_conv_bn_eval
                setattr(module, layer, fuse(before, child))
                setattr(module, name, nn.Identity())
            elif isinstance(child, nn.Conv2d | nn.Linear):
                layer = name


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
