"""A head under examination: images (of a classifier, those it gets right), and attacks on them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from robustviews import attacks
from robustviews.evaluate import Classifier, check_ball
from robustviews.machine import runtime
from robustviews.sanity.options import Sanity

if TYPE_CHECKING:
    from robustviews.augment import Views
    from robustviews.machine.feed import Feed

_STEPS, _STEP_SIZE = 20, 2.55  # PGD-20 of arXiv 2501.03507; the step size in 1/255
_OVERSHOOT = 2.5  # how many times over the steps could cross the radius (Madry et al. 2018)

Perturb = Callable[[Tensor, Tensor, int], Tensor]  # inputs, labels, number of the batch


@dataclass(frozen=True)
class Subject:
    """A network, and images to attack: those that a classifier gets right.

    Attributes:
        classifier: encoder and head, in eval mode.
        inputs: (n, 3, H, W) or (n, views, 3, H, W) in [0, 1].
        labels: (n, ...) as the data set has them, (n,) int64 for classification.
        options: how much is spent.
        at_once: images in a batch.
        seed: seed of random starts and noise.
        rows: `index` and `labels` of the images, and what results store of the answers in the
            checks so far, (n, ...): (n,) uint8 for classification.
        peer: another classifier of the same encoder that reads the same inputs, if there is one.
    """

    classifier: Classifier
    inputs: Tensor
    labels: Tensor
    options: Sanity
    at_once: int
    seed: int
    rows: dict[str, Tensor]
    peer: Classifier | None = None

    def part(self, chosen: Tensor) -> Subject:
        """Return the classifier with some of the images; `chosen`: (n,) bool."""
        chosen = chosen.to(self.inputs.device)
        return replace(self, inputs=self.inputs[chosen], labels=self.labels[chosen], rows={})

    def logits(self, inputs: Tensor, through: Classifier | None = None) -> Tensor:
        """Return outputs (B, ...); without any path from the inputs, their gradient is zero."""
        return connected((through or self.classifier)(inputs), inputs)

    def losses(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """Return the loss (B,) that trains heads of the task, of classification cross-entropy."""
        height, width = self.inputs.shape[-2:]
        return self.classifier.probe.task.loss(outputs, labels, None, (height, width))

    def over_batches(self, function: Callable[[Tensor, Tensor, int], Tensor]) -> Tensor:
        """Return the results of a function of inputs, labels and batch number, joined."""
        batches = zip(self.inputs.split(self.at_once), self.labels.split(self.at_once), strict=True)
        return torch.cat([function(x, y, number) for number, (x, y) in enumerate(batches)])

    def attacked(self, perturb: Perturb, radius: float) -> Tensor:
        """Return the answers (n, ...) about images under an attack of a radius in 1/255.

        Of classification they are 1 where the classifier withstands it, otherwise 0.

        Raises:
            ValueError: the attack left its ball or [0, 1] (check AS2).
        """
        task = self.classifier.probe.task

        def answers(inputs: Tensor, labels: Tensor, number: int) -> Tensor:
            adversarial = perturb(inputs.clone(), labels, number)
            check_ball(adversarial, inputs, attacks.in_pixels(radius), radius)
            with torch.no_grad():
                outputs = self.logits(adversarial)
            height, width = inputs.shape[-2:]
            return task.answers(outputs, labels, (height, width))

        return self.over_batches(answers).cpu()

    def pgd(
        self,
        radius: float,
        *,
        steps: int = _STEPS,
        try_: int | None = None,
        loss: Callable[[Tensor, Tensor], Tensor] | None = None,
        through: Classifier | None = None,
    ) -> Tensor:
        """Return which images withstand PGD.

        Args:
            radius: in 1/255.
            steps: gradient steps.
            try_: number of the random start; None starts at the images.
            loss: of logits and labels, per image; None is that of the task.
            through: classifier whose gradients the attack follows; None is the one under attack.
        """
        step_size = _OVERSHOOT * radius / steps
        if radius >= 1 or not radius:  # at less, the paper's step leaps across the ball
            step_size = max(_STEP_SIZE, step_size)
        steps = steps if radius else 1  # a ball of one point

        def perturb(inputs: Tensor, labels: Tensor, number: int) -> Tensor:
            return attacks.pgd(
                lambda x: (loss or self.losses)(self.logits(x, through), labels),
                inputs,
                eps=attacks.in_pixels(radius),
                step_size=attacks.in_pixels(step_size),
                steps=steps,
                generator=self.generator("start", try_ or 0, number),
                random_start=try_ is not None,
            )

        return self.attacked(perturb, radius)

    def generator(self, *purpose: int | str) -> torch.Generator:
        """Return a generator whose numbers depend only on the seed and a purpose."""
        return runtime.generator(self.inputs.device, self.seed, "sanity", *purpose)


def connected(outputs: Tensor, inputs: Tensor) -> Tensor:
    """Return outputs (B, ...) that depend on inputs, though by a factor of zero."""
    zeros = 0 * inputs.flatten(1).sum(dim=1)
    return outputs + zeros.view(-1, *[1] * (outputs.dim() - 1))


def choose(
    classifier: Classifier,
    images: Feed,
    labels: Tensor,
    *,
    options: Sanity,
    views: Views,
    size: int,
    seed: int,
    batch: int,
    peer: Classifier | None = None,
) -> Subject:
    """Return a classifier with test images that it classifies right, a fixed choice.

    Args:
        classifier: encoder and head, in eval mode.
        images: (N, 3, H, W) uint8, the whole test set.
        labels: (N,) int64.
        options: how many images are wanted.
        views: views of the pretraining, for an n-crop probe.
        size: side of the images in pixels.
        seed: seed of n-crop views, and of the checks.
        batch: views in a batch: an n-crop probe takes batch / n images at a time.
        peer: another classifier of the same encoder that reads the same inputs.
    """
    wanted = options.images_of(classifier.probe.stack)
    at_once = max(1, min(wanted, batch // classifier.probe.stack))
    orders = runtime.permutation(len(images), "test images").split(at_once)
    key = runtime.counter_key(seed, "test")
    index, inputs, found = [], [], 0
    with torch.no_grad(), contextlib.closing(images.batches(orders)) as batches:
        for positions, chosen in batches:
            seen = classifier.probe.inputs(chosen, positions, views, size=size, seed=key)
            right = classifier(seen).argmax(dim=1) == labels.to(positions.device)[positions]
            index.append(positions[right])
            inputs.append(seen[right])
            found += len(index[-1])
            if found >= wanted:
                break
    kept, order = torch.cat(index)[:wanted].sort()
    target = labels.to(kept.device)[kept]
    return Subject(
        classifier,
        inputs=torch.cat(inputs)[order],
        labels=target,
        options=options,
        at_once=at_once,
        seed=seed,
        rows={"index": kept.cpu(), "labels": target.cpu()},
        peer=peer,
    )
