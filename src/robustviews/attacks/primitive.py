"""The projected-gradient primitive: of attacks, of adversarial training and of robust probes."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal, NamedTuple

from robustviews.options import LazyModule

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:
    torch = LazyModule("torch")


class Judged(NamedTuple):
    """How far an attack has come on each image of a batch.

    Attributes:
        loss: (B,), which the attack increases.
        fooled: (B,) bool, whether the image is misclassified.
    """

    loss: Tensor
    fooled: Tensor


Loss = Callable[["Tensor"], "Tensor | Judged"]
Norm = Literal["linf", "l2"]


def pgd(
    loss: Loss,
    images: Tensor,
    *,
    eps: float,
    step_size: float,
    steps: int,
    generator: torch.Generator | None = None,
    random_start: bool = False,
    restarts: int = 1,
    keep: Literal["last", "worst"] = "last",
    parameter_grads: bool = False,
    norm: Norm = "linf",
) -> Tensor:
    """Increase a loss by projected ascent along the sign (Linf) or direction (L2) of the gradient.

    Args:
        loss: maps perturbed images to a scalar or to one value per image (B,). To choose among
            several tries or iterates, it must return `Judged`. A try calls it once per step, in
            order, and a choice once more at the end of the try.
        images: (B, ...) in [0, 1]; any floating dtype and device. For L2 (B, C, H, W), or
            (B, n, C, H, W) whose views each have a ball of their own.
        eps: radius of the ball in pixel units: 8/255 for Linf, 0.5 for L2.
        step_size: size of one step, in pixel units.
        steps: gradient steps; 0 returns the start.
        generator: source of random starts.
        random_start: start at a uniform point in the ball; otherwise at the images.
        restarts: number of tries, at most: no further one begins once all images of the batch are
            fooled. For each image, a try that fools the classifier is preferred; among tries that
            all fool it, or all do not, the one with the largest loss. Several tries need
            `random_start`.
        keep: result of a try: its last iterate, or the worst of all iterates for the classifier,
            by the same preference, including the start.
        parameter_grads: whether the steps add to the parameters' `.grad`, as in the reference code
            of arXiv 2501.03507.
        norm: norm of the ball.

    Returns:
        Perturbed images of the same shape, in the ball and in [0, 1].

    Raises:
        ValueError: restarts without a random start.
        TypeError: a choice is necessary, and the loss does not report which images are fooled.

    Source: Madry et al. 2018, both norms; zero start and last iterate as in arXiv 2501.03507.
    """
    if restarts > 1 and not random_start:
        raise ValueError(f"restarts={restarts} would repeat one attack; set random_start=True")
    chooses = restarts > 1 or keep == "worst"
    best: _Candidate | None = None
    start, step = _GEOMETRY[norm]
    for _ in range(restarts):
        delta = start(images, eps, generator) if random_start else torch.zeros_like(images)
        for _ in range(steps):
            gradient, judged = _input_gradient(loss, images, delta, accumulate=parameter_grads)
            if keep == "worst":
                best = _worse(best, images + delta, judged)
            delta = step(delta, images, gradient, eps=eps, step_size=step_size)
        if chooses:
            with torch.no_grad():
                best = _worse(best, images + delta, loss(images + delta))
            if restarts > 1 and best.judged.fooled.all():
                break
    return images + delta if best is None else best.images


def ascend(
    delta: Tensor, images: Tensor, gradient: Tensor, *, eps: float, step_size: float
) -> Tensor:
    """Make one step of sign ascent; project into the ball, then into [0, 1].

    Args:
        delta: perturbation so far, of the shape of `images`.
        images: (B, ...) in [0, 1].
        gradient: gradient of the loss with respect to delta.
        eps: radius of the Linf ball in pixel units.
        step_size: in pixel units.

    Returns:
        The next perturbation.
    """
    delta = (delta + step_size * gradient.sign()).clamp(-eps, eps)
    return (images + delta).clamp(0, 1) - images


def _ascend_l2(
    delta: Tensor, images: Tensor, gradient: Tensor, *, eps: float, step_size: float
) -> Tensor:
    """Make one step along the gradient; project into the L2 ball, then into [0, 1], which shortens.

    A gradient of zero makes no step. Arguments and result as in `ascend`.
    """
    least = torch.finfo(gradient.dtype).tiny
    gradient = gradient / gradient.abs().amax(dim=_IMAGE, keepdim=True).clamp_min(least)
    delta = delta + step_size * gradient / length(gradient).clamp_min(least)
    delta = delta * (eps / length(delta).clamp_min(least)).clamp_max(1)
    return (images + delta).clamp(0, 1) - images


def length(perturbation: Tensor) -> Tensor:
    """Return the Euclidean length of each image of (..., C, H, W), as (..., 1, 1, 1)."""
    found: Tensor = torch.linalg.vector_norm(perturbation, dim=_IMAGE, keepdim=True)
    return found


def _start(images: Tensor, eps: float, generator: torch.Generator | None) -> Tensor:
    noise = torch.empty_like(images).uniform_(-eps, eps, generator=generator)
    return (images + noise).clamp(0, 1) - images


def _start_l2(images: Tensor, eps: float, generator: torch.Generator | None) -> Tensor:
    """Return a uniform point of the L2 ball, cut to [0, 1]: any direction, length eps u^(1/D)."""
    noise = torch.empty_like(images).normal_(generator=generator)
    lengths = length(noise)
    shares = torch.empty_like(lengths).uniform_(generator=generator)  # u
    shares = shares ** (1 / math.prod(images.shape[-3:]))
    return (images + eps * shares * noise / lengths).clamp(0, 1) - images


class _Geometry(NamedTuple):
    """Random start and step of a norm."""

    start: Callable[[Tensor, float, torch.Generator | None], Tensor]
    step: Callable[..., Tensor]


_IMAGE = (-3, -2, -1)  # the dimensions of one image: channels, height, width
_GEOMETRY: dict[Norm, _Geometry] = {
    "linf": _Geometry(_start, ascend),
    "l2": _Geometry(_start_l2, _ascend_l2),
}


def _input_gradient(
    loss: Loss, images: Tensor, delta: Tensor, *, accumulate: bool
) -> tuple[Tensor, Tensor | Judged]:
    """Return the gradient of the summed loss with respect to delta, and what the loss returned."""
    delta = delta.detach().requires_grad_()
    with torch.enable_grad():
        judged = loss(images + delta)
        value = (judged.loss if isinstance(judged, Judged) else judged).sum()
        if not accumulate:
            return torch.autograd.grad(value, delta)[0], judged
        value.backward()
    assert delta.grad is not None
    return delta.grad, judged


class _Candidate(NamedTuple):
    """The worst images so far, and how the loss judged each of them."""

    images: Tensor
    judged: Judged


def _worse(best: _Candidate | None, images: Tensor, judged: Tensor | Judged) -> _Candidate:
    """Return for each image the candidate that is worse for the classifier: fooled, then loss."""
    if not isinstance(judged, Judged):
        raise TypeError("to choose among tries or iterates, the loss must return Judged")
    new = _Candidate(images, Judged(judged.loss.detach(), judged.fooled))
    if best is None:
        return new
    larger = new.judged.loss > best.judged.loss
    worse = torch.where(new.judged.fooled == best.judged.fooled, larger, new.judged.fooled)  # (B,)
    chosen = torch.where(worse.view(-1, *[1] * (images.dim() - 1)), images, best.images)
    pairs = zip(new.judged, best.judged, strict=True)
    return _Candidate(chosen, Judged(*(torch.where(worse, ours, theirs) for ours, theirs in pairs)))
