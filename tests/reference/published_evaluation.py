"""Probes and attacks in numpy float64, gradients derived by hand.

Written from the recipe of arXiv 2501.03507 (frozen encoder in eval mode, linear head, Adam at 3e-4
without decay, PGD with steps of 0.01 from a zero start, the last iterate), never from the product;
no automatic differentiation, no torch.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from . import references
from .references import Array

Labels = NDArray[np.int64]

BATCHNORM_EPS = 1e-5
STEP_SIZE = 0.01


@dataclass
class Network:
    """An encoder of one layer in eval mode: h = relu(gamma (A x + b - mean) / std + beta)."""

    a: Array  # (F, P)
    b: Array
    mean: Array
    variance: Array
    gamma: Array
    beta: Array

    def features(self, images: Array) -> Array:
        """Return the features (N, F) of images (N, 3, S, S)."""
        return np.maximum(self._before_relu(images), 0.0)

    def gradient(self, images: Array, to_features: Array) -> Array:
        """Return the gradient (N, 3, S, S) for a gradient (N, F) with respect to the features."""
        to_layer = to_features * (self._before_relu(images) > 0) * self._scale()
        return (to_layer @ self.a).reshape(images.shape)

    def _before_relu(self, images: Array) -> Array:
        layer = images.reshape(len(images), -1) @ self.a.T + self.b
        return self._scale() * (layer - self.mean) + self.beta

    def _scale(self) -> Array:
        return self.gamma / np.sqrt(self.variance + BATCHNORM_EPS)


@dataclass
class Head:
    """A linear head with weight (C, F) and bias (C,)."""

    weight: Array
    bias: Array

    def logits(self, features: Array) -> Array:
        """Return the logits (N, C)."""
        logits: Array = features @ self.weight.T + self.bias
        return logits


def to_logits(logits: Array, labels: Labels) -> Array:
    """Return the gradient (N, C) of the cross-entropy of each image: softmax minus one-hot."""
    odds = np.exp(logits - logits.max(axis=1, keepdims=True))
    gradient: Array = odds / odds.sum(axis=1, keepdims=True)
    gradient[np.arange(len(labels)), labels] -= 1.0
    return gradient


def ncrop_features(net: Network, stacks: Array) -> Array:
    """Return the mean features (N, F) of stacks of n views (N, n, 3, S, S)."""
    images, views = stacks.shape[:2]
    features = net.features(stacks.reshape(-1, *stacks.shape[2:]))
    mean: Array = features.reshape(images, views, -1).mean(1)
    return mean


def ncrop_attack(
    net: Network, head: Head, stacks: Array, labels: Labels, *, eps: float, steps: int
) -> Array:
    """Return stacks whose n views are attacked jointly, through the mean of their features."""
    images, views = stacks.shape[:2]
    flat = (images * views, *stacks.shape[2:])

    def gradient(attacked: Array) -> Array:
        to_mean = to_logits(head.logits(ncrop_features(net, attacked)), labels) @ head.weight
        to_each = np.repeat(to_mean / views, views, axis=0)  # (N n, F)
        return net.gradient(attacked.reshape(flat), to_each).reshape(stacks.shape)

    delta = references.pgd(gradient, stacks, eps=eps, step_size=STEP_SIZE, steps=steps)
    return stacks + delta


def attack(
    net: Network, head: Head, images: Array, labels: Labels, *, eps: float, steps: int
) -> Array:
    """Return images (N, 3, S, S) attacked end to end, through encoder and head."""
    stacks = ncrop_attack(net, head, images[:, None], labels, eps=eps, steps=steps)
    return stacks[:, 0]


class Adam:
    """Adam at 3e-4 without decay (Kingma, Ba 2015, Algorithm 1)."""

    def __init__(self, lr: float = 3e-4) -> None:
        self.lr, self.updates = lr, 0
        self.first: dict[str, Array] = {}
        self.second: dict[str, Array] = {}

    def step(self, head: Head, gradients: dict[str, Array]) -> None:
        """Update a head in place."""
        self.updates += 1
        for name, gradient in gradients.items():
            first = 0.9 * self.first.get(name, 0.0) + 0.1 * gradient
            second = 0.999 * self.second.get(name, 0.0) + 0.001 * gradient**2
            self.first[name], self.second[name] = first, second
            m = first / (1 - 0.9**self.updates)
            v = second / (1 - 0.999**self.updates)
            setattr(head, name, getattr(head, name) - self.lr * m / (np.sqrt(v) + 1e-8))


def robust_linear_evaluation(
    net: Network,
    head: Head,
    minibatches: Iterable[tuple[Array, Labels]],
    *,
    eps: float = 8 / 255,
    steps: int = 5,
) -> Head:
    """Return the head after training on PGD-5 examples against encoder and head of that moment."""
    head, adam = Head(head.weight.copy(), head.bias.copy()), Adam()
    for images, labels in minibatches:
        h = net.features(attack(net, head, images, labels, eps=eps, steps=steps))
        gradient = to_logits(head.logits(h), labels) / len(labels)  # of the mean loss
        adam.step(head, {"weight": gradient.T @ h, "bias": gradient.sum(axis=0)})
    return head
