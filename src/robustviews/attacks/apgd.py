"""APGD (Croce, Hein 2020) on the pixels of segmentation, as SEA has it (Croce et al. 2024).

APGD is sign ascent with momentum, which halves its step where the loss stops growing. SEA's keeps
the iterate with the most wrong pixels, not the one with the largest loss, and begins in a larger
ball.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, NamedTuple

from robustviews.attacks.pixel_losses import Name, image_loss, wrong_pixels
from robustviews.options import LazyModule

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from robustviews.attacks.protocol import Model
else:
    torch = LazyModule("torch")

_MOMENTUM, _FIRST_STEP, _RISES = 0.75, 2.0, 0.75  # alpha, radii, rho of Croce, Hein 2020
_FIRST, _LESS, _LEAST = 0.22, 0.03, 0.06  # steps between checkpoints, shares of all
_WIDER = 0.3  # share of the steps in each of both larger balls


class Point(NamedTuple):
    """Perturbed images, and what is known of them.

    Attributes:
        images: (B, 3, H, W).
        gradient: of the loss, of the same shape.
        tracked: (B,), the cross-entropy, by which sizes of steps are chosen.
        wrong: (B,) int64, number of misclassified pixels.
    """

    images: Tensor
    gradient: Tensor
    tracked: Tensor
    wrong: Tensor


Look = Callable[["Tensor", float], Point]


def look_with(model: Model, labels: Tensor, loss: Name) -> Look:
    """Return what finds the `Point` of images (B, 3, H, W) after a share of the steps.

    Args:
        model: maps images to logits (B, K, H, W).
        labels: (B, H, W), `VOID` for pixels that do not count.
        loss: that the attack increases.
    """

    def look(adversarial: Tensor, progress: float) -> Point:
        adversarial = adversarial.detach().requires_grad_()
        with torch.enable_grad():
            logits = model(adversarial)
            value = image_loss(loss, logits, labels, progress=progress).sum()
            (gradient,) = torch.autograd.grad(value, adversarial)
        logits = logits.detach()
        tracked = image_loss("cross_entropy", logits, labels)
        return Point(adversarial.detach(), gradient, tracked, wrong_pixels(logits, labels))

    return look


def shrinking(look: Look, images: Tensor, start: Tensor, *, eps: float, steps: int) -> Point:
    """Run APGD in balls of 2, 1.5 and 1 radii, each from the result of the last one.

    Args:
        look: finds the `Point` of images.
        images: (B, 3, H, W) in [0, 1].
        start: of the same shape.
        eps: radius of the Linf ball in pixel units.
        steps: in all three balls; 30 % in each of the larger ones.

    Returns:
        For each image, the point with the most wrong pixels in the smallest ball.

    Source: Croce et al. 2024; `apgd_largereps` of their code, nmndeep/robust-segmentation.
    """
    wider = int(_WIDER * steps)
    point = apgd(look, images, start, eps=2 * eps, steps=wider)
    point = apgd(look, images, point.images, eps=1.5 * eps, steps=wider)
    return apgd(look, images, point.images, eps=eps, steps=steps - 2 * wider)


def apgd(look: Look, images: Tensor, start: Tensor, *, eps: float, steps: int) -> Point:
    """Run APGD from a start, which is projected into the ball; arguments as in `shrinking`.

    Returns:
        For each image, the point with the most wrong pixels; the latest of equal ones. Their code
        counts void pixels as wrong at the start and as right afterwards, so that it may return the
        start; here they are never wrong.

    Source: Croce, Hein 2020, algorithm 1; `apgd_train` of nmndeep/robust-segmentation.
    """
    point = best = kept = look(_project(start, images, eps), 0.0)
    before = point.images
    size = torch.full_like(point.tracked, _FIRST_STEP * eps).view(-1, 1, 1, 1)
    history, checkpoints = [torch.zeros_like(point.tracked)], dict(_checkpoints(steps))
    last, halved = best.tracked, torch.ones_like(point.wrong, dtype=torch.bool)
    for step in range(1, steps + 1):
        share = 1.0 if step == 1 else _MOMENTUM
        x = point.images
        ascended = _project(x + size * point.gradient.sign(), images, eps)
        mixed = x + share * (ascended - x) + (1 - share) * (x - before)
        point, before = look(_project(mixed, images, eps), step / steps), x
        kept = choose(kept, point, point.wrong >= kept.wrong)
        best = choose(best, point, point.tracked > best.tracked)
        history.append(point.tracked)
        if step in checkpoints:
            count = checkpoints[step]
            pairs = zip(history[-count:], history[-count - 1 : -1], strict=True)
            rises = torch.stack([new > old for new, old in pairs]).sum(dim=0)
            halved = (rises <= _RISES * count) | (~halved & (last >= best.tracked))
            last = best.tracked
            size = torch.where(halved.view(-1, 1, 1, 1), size / 2, size)
            point = choose(point, best, halved)
    return kept


def choose(point: Point, other: Point, chosen: Tensor) -> Point:
    """Return the other point for the images (B,) that are chosen."""
    return Point(
        *(
            torch.where(chosen.view(-1, *[1] * (ours.dim() - 1)), theirs, ours)
            for ours, theirs in zip(point, other, strict=True)
        )
    )


def _project(adversarial: Tensor, images: Tensor, eps: float) -> Tensor:
    return adversarial.clamp(images - eps, images + eps).clamp(0, 1)


def _checkpoints(steps: int) -> Iterator[tuple[int, int]]:
    """Yield the steps after which the size is reconsidered, each with the steps since the last."""
    count, less, least = (max(int(share * steps), 1) for share in (_FIRST, _LESS, _LEAST))
    step = count
    while step <= steps:
        yield step, count
        count = max(count - less, least)
        step += count
