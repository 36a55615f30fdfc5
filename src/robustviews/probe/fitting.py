"""What all fits share: orders of images, a state that resumes, a loss that must stay finite."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from robustviews import finite, optim
from robustviews.machine import runtime

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from robustviews.checkpoint import Checkpoint


def orders(
    rows: Tensor, size: int, updates: int, *, seed: int, first: int, what: str
) -> Iterator[Tensor]:
    """Yield the positions (size,) int64 of the images of each update from `first` on.

    Args:
        rows: (N,) positions to train on; each pass has another order, without the smaller last
            minibatch.
        size: images in a minibatch, at most N.
        updates: number of updates.
        seed: seed of the orders.
        first: updates that are done.
        what: purpose of the orders.
    """
    count = len(rows) // size
    for update in range(first, updates):
        epoch, position = divmod(update, count)
        if position == 0 or update == first:
            order = rows[runtime.permutation(len(rows), seed, what, epoch)]
        yield order[position * size :][:size]


def save_if_due(
    checkpoint: Checkpoint | None,
    module: nn.Module,
    optimizer: torch.optim.Optimizer,
    position: Any,  # noqa: ANN401  # a dataclass
    **sums: Tensor,
) -> None:
    """Save everything that the next update depends on, if it is time to.

    Args:
        checkpoint: keeps the state; None keeps none.
        module: what is trained.
        optimizer: of its parameters.
        position: dataclass that says how far the fit has come.
        sums: sums since the last line of history, by name.
    """
    if checkpoint is not None and checkpoint.due():
        tensors = {f"module.{name}": value for name, value in module.state_dict().items()}
        tensors |= {f"optimizer.{name}": value for name, value in optim.slots(optimizer).items()}
        checkpoint.save(tensors | sums, asdict(position))


def restore_(
    checkpoint: Checkpoint | None, module: nn.Module, **sums: Tensor
) -> tuple[dict[str, Any], dict[str, Tensor]] | None:
    """Restore a module and the sums; return position and slots of the optimizer, if saved."""
    saved = None if checkpoint is None else checkpoint.load()
    if saved is None:
        return None
    tensors, position = saved
    module.load_state_dict(optim.with_prefix("module.", tensors), strict=True)
    for name, value in sums.items():
        value.copy_(tensors[name])
    return position, optim.with_prefix("optimizer.", tensors)


def check_loss(loss: float, title: str, done: str) -> None:
    """Raise NonFiniteError if the mean loss of a part of a fit is not finite.

    Args:
        loss: mean loss.
        title: title of the job.
        done: how far the fit has come, such as `epoch 3`.
    """
    if not math.isfinite(loss):
        raise finite.NonFiniteError(
            f"{title}: the loss is {loss} after {done}; lower lr of the probe"
        )
