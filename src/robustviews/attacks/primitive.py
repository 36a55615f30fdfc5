"""The projected-gradient primitive: of attacks, of adversarial training and of robust probes."""

from __future__ import annotations

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
) -> Tensor:
    """Increase a loss by projected sign-gradient ascent.

    Args:
        loss: maps perturbed images to a scalar or to one value per image (B,). To choose among
            several tries or iterates, it must return `Judged`.
        images: (B, ...) in [0, 1]; any floating dtype and device.
        eps: radius of the Linf ball in pixel units, 8/255.
        step_size: size of one step, in pixel units.
        steps: gradient steps; 0 returns the start.
        generator: source of random starts.
        random_start: start at a uniform point in the ball; otherwise at the images.
        restarts: number of tries. For each image, a try that fools the classifier is preferred;
            among tries that all fool it, or all do not, the one with the largest loss. Several
            tries need `random_start`.
        keep: result of a try: its last iterate, or the worst of all iterates for the classifier,
            by the same preference, including the start.
        parameter_grads: whether the steps add to the parameters' `.grad`, as in the reference code
            of arXiv 2501.03507.

    Returns:
        Perturbed images of the same shape, in the ball and in [0, 1].

    Raises:
        ValueError: restarts without a random start.
        TypeError: a choice is necessary, and the loss does not report which images are fooled.

    Source: Madry et al. 2018; zero start and last iterate as in arXiv 2501.03507.
    """
    if restarts > 1 and not random_start:
        raise ValueError(f"restarts={restarts} would repeat one attack; set random_start=True")
    chooses = restarts > 1 or keep == "worst"
    best: _Candidate | None = None
    for _ in range(restarts):
        delta = _start(images, eps, generator) if random_start else torch.zeros_like(images)
        for _ in range(steps):
            gradient, judged = _input_gradient(loss, images, delta, accumulate=parameter_grads)
            if keep == "worst":
                best = _worse(best, images + delta, judged)
            delta = ascend(delta, images, gradient, eps=eps, step_size=step_size)
        if chooses:
            with torch.no_grad():
                best = _worse(best, images + delta, loss(images + delta))
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


def _start(images: Tensor, eps: float, generator: torch.Generator | None) -> Tensor:
    noise = torch.empty_like(images).uniform_(-eps, eps, generator=generator)
    return (images + noise).clamp(0, 1) - images


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
