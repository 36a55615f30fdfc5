"""The projected-gradient primitive: of attacks, of adversarial training and of robust probes."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from robustviews.options import LazyModule

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:
    torch = LazyModule("torch")

Loss = Callable[["Tensor"], "Tensor"]


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
    parameter_grads: bool = False,
) -> Tensor:
    """Increase a loss by projected sign-gradient ascent, and return the last iterate.

    Args:
        loss: maps perturbed images to a scalar, or to one value per image (B,).
        images: (B, ...) in [0, 1]; any floating dtype and device.
        eps: radius of the Linf ball in pixel units, 8/255.
        step_size: size of one step, in pixel units.
        steps: gradient steps; 0 returns the start.
        generator: source of random starts.
        random_start: start at a uniform point in the ball; otherwise at the images.
        restarts: number of tries. For each image the try with the largest loss is kept, so with
            several tries `loss` must return (B,) and `random_start` must be True.
        parameter_grads: whether the steps add to the parameters' `.grad`, as in the reference code
            of arXiv 2501.03507.

    Returns:
        Perturbed images of the same shape, in the ball and in [0, 1].

    Raises:
        ValueError: restarts without a random start.

    Source: Madry et al. 2018; zero start and last iterate as in arXiv 2501.03507.
    """
    if restarts > 1 and not random_start:
        raise ValueError(f"restarts={restarts} would repeat one attack; set random_start=True")
    best, best_loss = images, None
    for _ in range(restarts):
        delta = _start(images, eps, generator) if random_start else torch.zeros_like(images)
        for _ in range(steps):
            gradient = _input_gradient(loss, images, delta, accumulate=parameter_grads)
            delta = ascend(delta, images, gradient, eps=eps, step_size=step_size)
        adversarial = images + delta
        if restarts == 1:
            return adversarial
        with torch.no_grad():
            values = loss(adversarial)
        if best_loss is None:
            best, best_loss = adversarial, values
        else:
            better = values > best_loss
            best = torch.where(better.view(-1, *[1] * (images.dim() - 1)), adversarial, best)
            best_loss = torch.maximum(values, best_loss)
    return best


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


def _input_gradient(loss: Loss, images: Tensor, delta: Tensor, *, accumulate: bool) -> Tensor:
    delta = delta.detach().requires_grad_()
    with torch.enable_grad():
        value = loss(images + delta).sum()
        if not accumulate:
            return torch.autograd.grad(value, delta)[0]
        value.backward()
    assert delta.grad is not None
    return delta.grad
