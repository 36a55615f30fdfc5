"""A small feature pyramid: dense logits from the stages of an encoder.

Source: Lin et al. 2017 (FPN): lateral 1x1 convolutions, summed from coarse to fine.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional

from robustviews.tasks.protocol import Maps

_WIDTH = 32  # channels inside
_LEVELS = 3  # coarsest stages: of a residual network, at 1/2, 1/4 and 1/8 of its stem


def laterals(channels: Sequence[int], width: int) -> nn.ModuleList:
    """Return a batch norm and 1x1 convolution to `width` channels for each level."""
    return nn.ModuleList(
        nn.Sequential(nn.BatchNorm2d(count), nn.Conv2d(count, width, 1)) for count in channels
    )


class Lateral(nn.Module):
    """Sums the coarsest levels of an encoder, from coarse to fine."""

    def __init__(self, channels: Sequence[int]) -> None:
        super().__init__()
        self.convolutions = laterals(channels[-_LEVELS:], _WIDTH)

    def forward(self, maps: Maps) -> Tensor:
        """Return (B, 32, h, w), as large as the finest of these levels."""
        levels = maps.levels[-len(self.convolutions) :]
        pairs = zip(reversed(self.convolutions), reversed(levels), strict=True)
        convolved = (convolve(level) for convolve, level in pairs)
        summed: Tensor = next(convolved)
        for fine in convolved:
            summed = fine + resized(summed, fine.shape[2:])
        return summed


class Pyramid(nn.Module):
    """Logits for each pixel."""

    def __init__(self, channels: Sequence[int], classes: int) -> None:
        """Make a head with new weights.

        Args:
            channels: of each level of the encoder, from fine to coarse.
            classes: number of classes.
        """
        super().__init__()
        self.lateral = Lateral(channels)
        self.norm = nn.BatchNorm2d(_WIDTH)
        self.convolution = nn.Conv2d(_WIDTH, _WIDTH, 3, padding=1)
        self.classifier = nn.Conv2d(_WIDTH, classes, 1)

    def forward(self, maps: Maps) -> Tensor:
        """Return logits (B, classes, H, W) of images of size H x W."""
        x = functional.relu(self.norm(self.lateral(maps)))
        x = functional.relu(self.convolution(x))
        return resized(self.classifier(x), maps.size)


def resized(x: Tensor, size: Sequence[int]) -> Tensor:
    """Return maps (B, C, h, w) at another size, bilinearly."""
    return functional.interpolate(x, size=tuple(size), mode="bilinear", align_corners=False)
