"""Linear heads: made from a seed, and fitted by cross-entropy to features that a probe provides."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from robustviews import feed, runtime

if TYPE_CHECKING:
    from robustviews.encoder import Encoder, Feature
    from robustviews.feed import Feed
    from robustviews.probe import History, Task


def new_head(encoder: Encoder, feature: Feature, task: Task) -> nn.Linear:
    """Return a linear head whose initial weights depend only on the seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(runtime.counter_key(task.seed, "head") & (2**63 - 1))
        head = nn.Linear(encoder.width_of(feature), task.classes)
    return head.to(task.labels.device)


def fit(
    head: nn.Linear,
    optimizer: torch.optim.Optimizer,
    task: Task,
    rows: Tensor | Feed,
    features_of: Callable[[Tensor, Tensor], Tensor],
    *,
    batch_size: int,
    epochs: int,
    first: int = 0,
    lr_at: Callable[[int], float] | None = None,
) -> History:
    """Fit a head by cross-entropy, in place.

    Args:
        head: to be trained.
        optimizer: of its parameters.
        task: labels, seed and order.
        rows: (N, ...), such as features or images.
        features_of: maps rows (B, ...) and their labels (B,) to features (B, F).
        batch_size: images in a minibatch; the last one may be smaller.
        epochs: passes over the training set.
        first: epochs already done, so that orders and history go on.
        lr_at: learning rate of each update, counted from 0; the optimizer's own when None.

    Returns:
        Loss and training accuracy of each epoch.
    """
    history: History = []
    rows, count = feed.of(rows, task.labels.device), len(task.labels)
    update = 0
    bar = runtime.Progress(epochs, "epoch", task.title)
    for epoch in range(first, first + epochs):
        orders = runtime.permutation(count, task.seed, "probe", epoch).split(batch_size)
        loss_sum = torch.zeros((), device=task.labels.device)
        correct = torch.zeros((), dtype=torch.int64, device=task.labels.device)
        with contextlib.closing(rows.batches(orders)) as batches:
            for index, chosen in batches:
                labels = task.labels[index]
                logits = head(features_of(chosen, labels))
                loss = nn.functional.cross_entropy(logits, labels)
                optimizer.zero_grad()
                loss.backward()
                if lr_at is not None:
                    optimizer.param_groups[0]["lr"] = lr_at(update)
                optimizer.step()
                update += 1
                loss_sum += loss.detach() * len(index)
                correct += (logits.argmax(dim=1) == labels).sum()
        mean_loss = loss_sum.item() / count
        if not math.isfinite(mean_loss):
            raise ValueError(
                f"{task.title}: the loss is {mean_loss} after epoch {epoch + 1}; lower its lr"
            )
        history.append(
            {
                "epoch": epoch + 1,
                "loss": mean_loss,
                "accuracy": correct.item() / count,
                "lr": optimizer.param_groups[0]["lr"],
            }
        )
        bar.show(epoch + 1 - first)
    return history
