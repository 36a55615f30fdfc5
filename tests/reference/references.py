"""Losses, optimiser, schedule and attack step in numpy float64, gradients derived by hand.

Written from the equations of arXiv 2501.03507 and the rules in `vectors/README.md`, never from the
product; no automatic differentiation, no torch. `test_references.py` compares them with the numbers
of the published code.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
ValueAndGradient = tuple[float, Array]


def invariance_cosine(z: Array) -> ValueAndGradient:
    """Return minus the mean cosine of z (V, B, D) with its mean over views, and the gradient."""
    views, images, _ = z.shape
    mean = z.mean(axis=0)  # (B, D), not normalised again
    z_norm = np.linalg.norm(z, axis=2, keepdims=True)  # (V, B, 1)
    mean_norm = np.linalg.norm(mean, axis=1, keepdims=True)  # (B, 1)
    cosine = (z * mean).sum(axis=2, keepdims=True) / (z_norm * mean_norm)  # (V, B, 1)
    to_z = mean / (z_norm * mean_norm) - cosine * z / z_norm**2
    to_mean = (z / (z_norm * mean_norm) - cosine * mean / mean_norm**2).sum(axis=0)  # (B, D)
    return -float(cosine.mean()), -(to_z + to_mean / views) / (views * images)


def invariance_trace(z: Array) -> ValueAndGradient:
    """Return minus the mean over views of trace(Z_v^T Zbar), and the gradient (V, B, D)."""
    views, images, _ = z.shape
    mean = z.mean(axis=0)
    value = 0.0
    for v in range(views):
        for b in range(images):
            value -= float(z[v, b] @ mean[b]) / views
    # The mean over views of <z_vb, zbar_b> is |zbar_b|^2.
    return value, np.broadcast_to(-2.0 * mean / views, z.shape).copy()


def total_coding_rate(z: Array, *, eps: float) -> ValueAndGradient:
    """Return minus the mean over views of 1/2 logdet(I + D/(B eps) Z^T Z), and the gradient."""
    views, images, features = z.shape
    scale = features / (images * eps)
    value, gradient = 0.0, np.empty_like(z)
    for v in range(views):
        inside = np.eye(features) + scale * z[v].T @ z[v]  # (D, D)
        value -= 0.5 * float(np.linalg.slogdet(inside)[1]) / views
        gradient[v] = -scale * np.linalg.solve(inside, z[v].T).T / views
    return value, gradient


def emp_ssl(
    z: Array, *, kind: str = "cosine", scale: str = "weighted_mean", tcr_eps: float = 0.2
) -> ValueAndGradient:
    """Return 200 x invariance + coding rate (or the plain sum over views), and the gradient."""
    invariance, to_invariance = {"cosine": invariance_cosine, "trace": invariance_trace}[kind](z)
    rate, to_rate = total_coding_rate(z, eps=tcr_eps)
    weight, factor = {"weighted_mean": (200.0, 1.0), "unit_sum": (1.0, float(len(z)))}[scale]
    return (
        factor * (weight * invariance + rate),
        factor * (weight * to_invariance + to_rate),
    )


def nt_xent(
    z: Array,
    *,
    temperature: float,
    base_temperature: float | None = None,
    with_self: bool = False,
) -> ValueAndGradient:
    """Return NT-Xent of the pairs z (2, B, D), anchor by anchor, and the gradient (2, B, D)."""
    _, images, features = z.shape
    points = z.reshape(2 * images, features)
    weights = np.zeros((2 * images, 2 * images))  # derivative of the summed loss by the logits
    value = 0.0
    for i in range(2 * images):
        partner = (i + images) % (2 * images)
        others = [j for j in range(2 * images) if with_self or j != i]
        logits = points[others] @ points[i] / temperature
        top = logits.max()
        log_sum = top + math.log(np.exp(logits - top).sum())
        value += log_sum - float(points[i] @ points[partner]) / temperature
        weights[i, others] = np.exp(logits - log_sum)
        weights[i, partner] -= 1.0
    factor = 1.0 if base_temperature is None else temperature / base_temperature
    factor /= 2 * images
    gradient = factor * (weights + weights.T) @ points / temperature
    return factor * value, gradient.reshape(z.shape)


def cosine_lr(step: int, *, base: float, horizon: int) -> float:
    """Return the rate after `step` scheduler steps: down to 0 at the horizon, then up again."""
    return base * (1.0 + math.cos(math.pi * step / horizon)) / 2.0


def lars_gradient(
    parameter: Array, gradient: Array, *, lr: float, weight_decay: float, eta: float, eps: float
) -> Array:
    """Return the gradient that LARS passes to the momentum step."""
    parameter_norm = float(np.sqrt((parameter**2).sum()))
    gradient_norm = float(np.sqrt((gradient**2).sum()))
    if parameter.ndim == 1 or parameter_norm == 0.0 or gradient_norm == 0.0:
        return gradient.copy()
    ratio = eta * parameter_norm / (gradient_norm + weight_decay * parameter_norm + eps)
    ratio = 1.0 if lr == 0.0 else min(ratio / lr, 1.0)
    return ratio * (gradient + weight_decay * parameter)


def lars_step(
    parameter: Array,
    gradient: Array,
    buffer: Array | None,
    *,
    lr: float,
    momentum: float = 0.9,
    weight_decay: float = 1e-4,
    eta: float = 0.005,
    eps: float = 1e-8,
) -> tuple[Array, Array]:
    """Return parameter and momentum buffer after a Nesterov step; at the first it is None."""
    scaled = lars_gradient(parameter, gradient, lr=lr, weight_decay=weight_decay, eta=eta, eps=eps)
    buffer = scaled if buffer is None else momentum * buffer + scaled
    return parameter - lr * (scaled + momentum * buffer), buffer


def ascend(delta: Array, images: Array, gradient: Array, *, eps: float, step_size: float) -> Array:
    """Return delta after one signed step up, into the ball of radius eps, then into [0, 1]."""
    delta = np.minimum(np.maximum(delta + step_size * np.sign(gradient), -eps), eps)
    return np.minimum(np.maximum(images + delta, 0.0), 1.0) - images


def pgd(
    gradient: Callable[[Array], Array],
    images: Array,
    *,
    eps: float,
    step_size: float,
    steps: int,
) -> Array:
    """Return delta after ascent from zero; `gradient` is that of the loss at given images."""
    delta = np.zeros_like(images)
    for _ in range(steps):
        delta = ascend(delta, images, gradient(images + delta), eps=eps, step_size=step_size)
    return delta
