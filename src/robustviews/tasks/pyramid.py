"""A small feature pyramid: dense logits from the stages of an encoder.

Source: Lin et al. 2017 (FPN): lateral 1x1 convolutions, summed from coarse to fine.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional

from robustviews.tasks.protocol import Maps

_LEVELS = 3  # coarsest stages: of a residual network, at 1/2, 1/4 and 1/8 of its stem


class Lateral(nn.Module):
    """Sums the coarsest levels of an encoder, from coarse to fine, with `width` channels."""

    def __init__(self, channels: Sequence[int], width: int, levels: int) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList(
            nn.Sequential(nn.BatchNorm2d(inputs), nn.Conv2d(inputs, width, 1))
            for inputs in channels[-levels:]
        )

    def forward(self, maps: Maps) -> Tensor:
        """Return (B, width, h, w), as large as the finest of these levels."""
        levels = maps.levels[-len(self.convolutions) :]
        summed: Tensor | None = None
        for convolve, level in zip(reversed(self.convolutions), reversed(levels), strict=True):
            fine = convolve(level)
            summed = fine if summed is None else fine + resized(summed, fine.shape[2:])
        assert summed is not None
        return summed


class Pyramid(nn.Module):
    """Logits for each pixel."""

    def __init__(self, channels: Sequence[int], classes: int, *, width: int = 32) -> None:
        """Make a head with new weights.

        Args:
            channels: of each level of the encoder, from fine to coarse.
            classes: number of classes.
            width: channels inside.
        """
        super().__init__()
        self.lateral = Lateral(channels, width, _LEVELS)
        self.norm = nn.BatchNorm2d(width)
        self.convolution = nn.Conv2d(width, width, 3, padding=1)
        self.classifier = nn.Conv2d(width, classes, 1)

    def forward(self, maps: Maps) -> Tensor:
        """Return logits (B, classes, H, W) of images of size H x W."""
        x = functional.relu(self.norm(self.lateral(maps)))
        x = functional.relu(self.convolution(x))
        return resized(self.classifier(x), maps.size)


def resized(x: Tensor, size: Sequence[int]) -> Tensor:
    """Return maps (B, C, h, w) at another size, bilinearly."""
    return functional.interpolate(x, size=tuple(size), mode="bilinear", align_corners=False)
