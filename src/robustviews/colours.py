"""Colour changes of flat images (N, 3, P), P pixels in [0, 1]: what views are changed by.

Each equals torchvision's function on float images.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

_CONTRAST, SATURATION, HUE = 1, 2, 3  # torchvision's numbers; brightness is 0


def gray(x: Tensor) -> Tensor:
    """Return the luma (N, 1, P) of images (N, 3, P), with torchvision's weights (ITU-R BT.601)."""
    luma = (x[:, 0] * 0.2989).add_(x[:, 1], alpha=0.587).add_(x[:, 2], alpha=0.114)
    return luma.unsqueeze(1)


def jitter(x: Tensor, order: Tensor, factors: Tensor) -> Tensor:
    """Apply the four changes of a jitter to images (N, 3, P), in the order of each image (N, 4).

    The hue is expensive. It is shifted once for all images: after the changes that precede it in an
    image's order, and before the others.
    """
    hue_step = (order == HUE).int().argmax(-1)  # (N,)
    for step in (0, 1, 2):
        x = _blend(x, order, factors, step, step < hue_step)
    x = _turn_hue(x, factors[:, HUE])
    for step in (1, 2, 3):
        x = _blend(x, order, factors, step, step > hue_step)
    return x


def _blend(x: Tensor, order: Tensor, factors: Tensor, step: int, active: Tensor) -> Tensor:
    """Scale the distance of `active` (N,) images (N, 3, P) from black, mean gray or pixel gray."""
    kind = order[:, step : step + 1]  # (N, 1)
    factor = factors.gather(-1, kind).where(active.unsqueeze(-1), 1.0).unsqueeze(-1)
    luma = gray(x)
    pivot = luma * (kind == SATURATION).unsqueeze(-1)
    pivot += luma.mean(-1, keepdim=True) * (kind == _CONTRAST).unsqueeze(-1)
    return torch.lerp(pivot, x, factor).clamp_(0.0, 1.0)


def _turn_hue(x: Tensor, turn: Tensor) -> Tensor:
    """Shift the HSV hue of images (N, 3, P) by (N,) turns.

    A channel is the largest minus the spread times a trapezoid of hue: HSV to RGB in closed form.
    """
    red, green, blue = x.unbind(1)  # (N, P)
    largest = torch.maximum(torch.maximum(red, green), blue)
    spread = largest - torch.minimum(torch.minimum(red, green), blue)
    sixth = (6.0 * spread).clamp_(min=1e-12).reciprocal_()  # gray has no hue: any value works
    hue = ((red - green) * sixth).add_(2 / 3)
    # lerp by 0 or 1 selects exactly; on a CPU it is several times faster than where.
    hue = hue.lerp_(((blue - red) * sixth).add_(1 / 3), (largest == green).to(x.dtype))
    hue = hue.lerp_((green - blue) * sixth, (largest == red).to(x.dtype)).add_(turn.unsqueeze(-1))
    offset = 0.5 - torch.arange(3, device=x.device).view(3, 1) / 3  # red, green, blue
    phase = hue.unsqueeze(1) + offset  # (N, 3, P)
    trapezoid = phase.sub_(phase.round()).abs_().mul_(-6.0).add_(2.0).clamp_(0.0, 1.0)
    return torch.addcmul(largest.unsqueeze(1), spread.unsqueeze(1), trapezoid, value=-1.0)


def blur_matrix(sigma: Tensor, *, size: int, sigma_max: float) -> Tensor:
    """Return matrices (N, size, size) that blur an axis: Gaussians of sigma (N,), reflected.

    A Gaussian has 2 ceil(3 sigma_max) + 1 taps, 13 for 2 pixels, or as many as the image allows;
    sigma 0 is the identity.
    """
    radius = min(math.ceil(3 * sigma_max), size - 1)
    shift = torch.arange(-radius, radius + 1, device=sigma.device)
    pixel = torch.arange(size, device=sigma.device)
    taps = torch.exp(-0.5 * (shift / sigma.clamp(min=0.01).unsqueeze(-1)) ** 2)
    taps = taps / taps.sum(-1, keepdim=True)  # (N, taps)
    source = size - 1 - (size - 1 - (shift.unsqueeze(-1) + pixel).abs()).abs()  # (taps, size)
    hits = (source.unsqueeze(-1) == pixel).to(taps.dtype)  # (taps, size, size)
    return (taps @ hits.flatten(1)).view(-1, size, size)
