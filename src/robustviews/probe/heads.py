"""Linear heads: created from a seed, and fitted by cross-entropy to features of a probe."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from robustviews import finite, optim
from robustviews.encoder import load_strictly
from robustviews.machine import feed, humanize, runtime
from robustviews.probe import fitting
from robustviews.tasks.protocol import Maps

if TYPE_CHECKING:
    from robustviews.encoder import Encoder, Feature
    from robustviews.machine.feed import Feed
    from robustviews.probe.protocol import History, Probe, Training

log = logging.getLogger(__name__)

_CHECKED = 16  # training images that must have finite features and logits

FeaturesOf = Callable[[Tensor, Tensor], Tensor]


def new_head(encoder: Encoder, feature: Feature, training: Training) -> nn.Linear:
    """Return a linear head whose initial weights depend only on the seed."""
    with runtime.seeded(training.seed, "head"):
        head = nn.Linear(encoder.width_of(feature), training.classes)
    return head.to(training.labels.device)


def restore_head(
    weights: Mapping[str, Tensor], encoder: Encoder, feature: Feature, *, classes: int
) -> nn.Linear:
    """Return a trained linear head for a feature of an encoder, on the encoder's device.

    Raises:
        WeightsError: the weights are those of another head.
    """
    head = nn.Linear(encoder.width_of(feature), classes)
    load_strictly(head, weights, "head")
    return head.to(next(encoder.parameters()).device)


@dataclass
class Position:
    """How far a fit has come."""

    epoch: int = 0  # finished epochs
    position: int = 0  # finished minibatches of the current epoch
    history: History = field(default_factory=list)  # loss and training accuracy of each epoch


class Fit:
    """A head that is fitted by cross-entropy, in place, and resumes after an interruption."""

    def __init__(
        self,
        head: nn.Module,
        optimizer: torch.optim.Optimizer,
        training: Training,
        *,
        lr_at: Callable[[int], float] | None = None,
    ) -> None:
        """Begin, or resume from the training's checkpoint.

        Args:
            head: head to train.
            optimizer: optimizer of the head's parameters.
            training: labels, seed, and the checkpoint.
            lr_at: learning rate of each update, counted from 0; None keeps the optimizer's rate.
        """
        self.head, self.optimizer, self.training, self.lr_at = head, optimizer, training, lr_at
        self.progress = Position()
        self._clear()
        self._resume()

    def run(
        self,
        rows: Tensor | Feed,
        features_of: FeaturesOf = lambda rows, _: rows,
        *,
        batch_size: int,
        epochs: int,
    ) -> History:
        """Fit until `epochs` epochs are done, including those of earlier calls.

        Args:
            rows: (N, ...), such as features or images.
            features_of: maps rows (B, ...) and their labels (B,) to features (B, F); by default
                the rows are the features.
            batch_size: images in a minibatch; the last one may be smaller.
            epochs: passes over the training set.

        Returns:
            Loss and training accuracy of each epoch.
        """
        training, progress = self.training, self.progress
        rows, count = feed.of(rows, training.labels.device), len(training.labels)
        bar = runtime.ProgressBar(epochs, "epoch", training.title)
        bar.begin_at(progress.epoch)
        while progress.epoch < epochs:
            order = runtime.permutation(count, training.seed, "probe", progress.epoch)
            orders = order.split(batch_size)
            with contextlib.closing(rows.batches(orders[progress.position :])) as batches:
                for index, chosen in batches:
                    if self.lr_at is not None:
                        update = progress.epoch * len(orders) + progress.position
                        self.optimizer.param_groups[0]["lr"] = self.lr_at(update)
                    self._update(features_of, chosen, training.labels[index])
                    progress.position += 1
                    if progress.position == len(orders):
                        self._close_epoch()
                    fitting.save_if_due(
                        training.checkpoint, self.head, self.optimizer, progress, **self.sums
                    )
            bar.show(progress.epoch)
        return progress.history

    def _update(self, features_of: FeaturesOf, rows: Tensor, labels: Tensor) -> None:
        logits = self.head(features_of(rows, labels))
        loss = nn.functional.cross_entropy(logits, labels)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.sums["loss"] += loss.detach() * len(labels)
        self.sums["correct"] += (logits.argmax(dim=1) == labels).sum()

    def _close_epoch(self) -> None:
        """Add a line of history; raise NonFiniteError if the loss is no longer finite."""
        progress, count = self.progress, len(self.training.labels)
        progress.epoch, progress.position = progress.epoch + 1, 0
        loss = self.sums["loss"].item() / count
        fitting.check_loss(loss, self.training.title, f"epoch {progress.epoch}")
        progress.history.append(
            {
                "epoch": progress.epoch,
                "loss": loss,
                "accuracy": self.sums["correct"].item() / count,
                "lr": self.optimizer.param_groups[0]["lr"],
            }
        )
        log.info("probe=%s %s", self.training.title, humanize.pairs(progress.history[-1]))
        self._clear()

    def _clear(self) -> None:
        """Reset the sums of an epoch: losses, and correctly classified images."""
        device = self.training.labels.device
        self.sums = {
            "loss": torch.zeros((), device=device),
            "correct": torch.zeros((), dtype=torch.int64, device=device),
        }

    def _resume(self) -> None:
        saved = fitting.restore_(self.training.checkpoint, self.head, **self.sums)
        if saved is None:
            return
        position, slots = saved
        optim.set_slots_(self.optimizer, slots)
        self.progress = Position(**position)
        done = self.progress.epoch, self.progress.position
        log.info("probe=%s resumed after epoch %d, minibatch %d", self.training.title, *done)


def represent(encoder: Encoder, feature: Feature, inputs: Tensor) -> Tensor:
    """Return features (B, F) of images (B, 3, H, W), or their mean over stacks (B, n, 3, H, W)."""
    if inputs.dim() == 4:
        return encoder.represent(inputs, feature)
    batch, views = inputs.shape[:2]
    return encoder.represent(inputs.flatten(0, 1), feature).view(batch, views, -1).mean(dim=1)


def frozen_features(probe: Probe, encoder: Encoder, training: Training) -> Tensor:
    """Return the features (N, F) of all training images, without gradient.

    Args:
        probe: makes the inputs of the encoder from an image.
        encoder: network in eval mode.
        training: images and how they are encoded.
    """
    return torch.cat(list(_features(probe, encoder, training)))


def _features(
    probe: Probe, encoder: Encoder, training: Training, *, count: int | None = None
) -> Iterator[Any]:
    """Yield what the head reads of training images, or the first ones, batch by batch."""
    seed = runtime.counter_key(training.seed, "train")  # views differ from those of test images
    images = feed.of(training.images, training.labels.device)
    index = torch.arange(len(images))[:count]
    orders = index.split(max(1, training.batch // probe.stack))
    with torch.no_grad(), contextlib.closing(images.batches(orders)) as batches:
        for index, chosen in batches:
            inputs = probe.inputs(chosen, index, training.views, size=training.size, seed=seed)
            yield probe.features(encoder, inputs)


def check_finite(
    probe: Probe, encoder: Encoder, training: Training, *, head: nn.Module | None = None
) -> None:
    """Refuse an encoder or a trained head that has diverged; a few training images are tried.

    Args:
        probe: makes the inputs of the encoder from an image.
        encoder: network in eval mode.
        training: images and how they are encoded.
        head: trained head; None checks the encoder.

    Raises:
        NonFiniteError: a feature of the encoder, or a weight or a logit of the head is not finite.
    """
    found = list(_features(probe, encoder, training, count=_CHECKED))
    levels = [level for h in found for level in (h.levels if isinstance(h, Maps) else [h])]
    if finite.first_nonfinite({str(number): level for number, level in enumerate(levels)}):
        raise finite.NonFiniteError(
            f"{training.title}: the features of training images are not finite; train the encoder "
            "again with a lower optimizer.lr"
        )
    if head is None:
        return
    with torch.no_grad():
        outputs = torch.cat([head(h) for h in found])
    part = finite.first_nonfinite({**head.state_dict(), "logits": outputs})
    if part:
        raise finite.NonFiniteError(
            f"{training.title}: not finite after training: {part}; lower lr of the probe"
        )
