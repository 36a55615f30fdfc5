"""Evaluation: which test images a classifier predicts correctly, clean and under an attack."""

from __future__ import annotations

import contextlib
import logging
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from robustviews.attacks import Attack, flag_name, fraction, in_pixels
from robustviews.augment import Views
from robustviews.encoder import Encoder
from robustviews.machine import feed, runtime
from robustviews.machine.feed import Feed
from robustviews.probe import Probe
from robustviews.probe.heads import represent

if TYPE_CHECKING:
    from robustviews.checkpoint import Checkpoint

log = logging.getLogger(__name__)

ROUNDING = 1e-6  # tolerance for float32 perturbations


class Classifier(nn.Module):
    """Encoder and head as one network, from the inputs of the probe to logits."""

    def __init__(self, encoder: Encoder, head: nn.Module, probe: Probe) -> None:
        super().__init__()
        self.encoder, self.head, self.probe = encoder, head, probe

    def forward(self, inputs: Tensor) -> Tensor:
        """Map inputs (B, 3, H, W) or (B, n, 3, H, W) in [0, 1] to logits (B, classes)."""
        return self.head(represent(self.encoder, self.probe.feature, inputs))  # type: ignore[no-any-return]


def evaluate(
    classifier: Classifier,
    attack: Attack,
    images: Tensor | Feed,
    labels: Tensor,
    *,
    views: Views,
    size: int,
    seed: int,
    batch: int = 500,
    checkpoint: Checkpoint | None = None,
    title: str = "attack",
) -> dict[str, Tensor]:
    """Attack a classifier at every radius of an attack.

    Args:
        classifier: network, set to eval mode; parameters and their gradients are not changed.
        attack: options of the attack.
        images: (N, 3, H, W) uint8, the whole test set, or a feed of it.
        labels: (N,) int64.
        views: views of the pretraining, for an n-crop probe.
        size: side of the images in pixels.
        seed: seed of the choice of images, of n-crop views and of random starts.
        batch: views attacked together: an n-crop probe takes batch / n images at a time.
        checkpoint: saves the flags so far, from which an interrupted evaluation resumes.
        title: title of the progress bar and of log lines.

    Returns:
        `index` (n,) int64, positions of the attacked images in the test set; `labels` (n,) int64;
        `clean` and one `eps_<radius>` per radius (n,) uint8, 1 where the prediction is correct.

    Raises:
        ValueError: an attack left its ball or [0, 1], or requests more images than there are.
    """
    classifier.eval()
    images = feed.of(images, next(classifier.parameters()).device)
    index = choose_images(len(images), attack.images)
    view_seed = runtime.counter_key(seed, "test")
    at_once = max(1, batch // classifier.probe.stack)
    orders = index.split(at_once)
    done, flags = _resume(checkpoint, title)
    bar = runtime.ProgressBar(len(index), "image", title)
    bar.begin_at(min(done * at_once, len(index)))
    stream = contextlib.closing(images.batches(orders[done:]))
    with runtime.frozen(classifier), stream as batches:
        for order, (positions, chosen) in zip(orders[done:], batches, strict=True):
            inputs = classifier.probe.inputs(chosen, positions, views, size=size, seed=view_seed)
            target = labels[order].to(positions.device)
            draws = runtime.counter_key(seed, "attack", done) & 0x7FFFFFFF
            for name, correct in _flags(classifier, attack, inputs, target, draws).items():
                flags.setdefault(name, []).append(correct)
            done += 1
            if checkpoint is not None and checkpoint.due():
                checkpoint.save(_joined(flags), {"batches": done, "flags": list(flags)})
            bar.show(min(done * at_once, len(index)))
    return {"index": index, "labels": labels[index], **_joined(flags)}


def choose_images(count: int, requested: int | None) -> Tensor:
    """Return the positions of the attacked test images: all, or a choice that never changes.

    Args:
        count: number of test images.
        requested: number of images to attack; None for all.

    Raises:
        ValueError: more images are requested than there are.
    """
    if requested is None:
        return torch.arange(count)
    if requested > count:
        raise ValueError(f"images: {requested} is more than the {count} test images; lower it")
    return runtime.permutation(count, "test images")[:requested].sort().values


def _resume(checkpoint: Checkpoint | None, title: str) -> tuple[int, dict[str, list[Tensor]]]:
    """Return how many batches are done and their flags; none at a first start."""
    saved = checkpoint.load() if checkpoint is not None else None
    if saved is None:
        return 0, {}
    flags, position = saved
    log.info("attack=%s resumed after batch %d", title, position["batches"])
    return position["batches"], {name: [flags[name]] for name in position["flags"]}


def _joined(flags: dict[str, list[Tensor]]) -> dict[str, Tensor]:
    """Return flags of all batches as (n,) uint8 on the CPU."""
    return {
        name: torch.cat([part.to("cpu", torch.uint8) for part in parts])
        for name, parts in flags.items()
    }


def _flags(
    classifier: Classifier, attack: Attack, inputs: Tensor, labels: Tensor, seed: int
) -> dict[str, Tensor]:
    with torch.no_grad():
        flags = {flag_name(0.0): classifier(inputs).argmax(dim=1) == labels}
    for radius in attack.eps:
        eps = in_pixels(radius)
        # A copy: an attack that changes its inputs must not move the centre of the ball.
        adversarial = attack.perturb(classifier, inputs.clone(), labels, eps=eps, seed=seed)
        check_ball(adversarial, inputs, eps, radius)
        with torch.no_grad():
            flags[flag_name(radius)] = classifier(adversarial).argmax(dim=1) == labels
    return flags


def check_ball(adversarial: Tensor, inputs: Tensor, eps: float, radius: float) -> None:
    """Raise ValueError if an attack left its ball: attacks are not trusted."""
    distance = (adversarial - inputs).abs().max().item()
    low, high = adversarial.min().item(), adversarial.max().item()
    # No comparison with NaN holds, so this form refuses NaN, too.
    if not (distance <= eps + ROUNDING and low >= -ROUNDING and high <= 1 + ROUNDING):
        raise ValueError(
            f"the attack at eps {fraction(radius)} left its ball: moved by {distance:.6f}, pixels "
            f"in [{low:.4f}, {high:.4f}]; expected at most {eps:.6f} and [0, 1]"
        )
