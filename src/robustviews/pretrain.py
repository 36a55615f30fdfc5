"""Pretraining: the one loop in which every method meets every regime."""

from __future__ import annotations

import contextlib
import logging
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

import torch
from torch import Tensor

from robustviews import augment
from robustviews.augment import Views
from robustviews.checkpoint import State
from robustviews.encoder import Encoder
from robustviews.machine import distributed, feed, runtime
from robustviews.machine.batchnorm import synchronise
from robustviews.machine.compiler import Compilation
from robustviews.machine.feed import Feed
from robustviews.methods import Batch, Method, divide
from robustviews.optim import Adam, Lars, Sgd, below, learning_rate, set_slots_, slots
from robustviews.regimes import Regime, passes_over_data
from robustviews.step import compile_encoder

log = logging.getLogger(__name__)


class TrainingError(ValueError):
    """A training cannot go on; the message says where and what may help."""


@dataclass
class Progress:
    """Where a training stands."""

    epoch: int = 0  # finished passes
    position: int = 0  # finished minibatches of the current pass
    update: int = 0
    seconds: float = 0.0
    resumed: int = 0
    compilation: str = "eager"  # or `compiled`, or `eager:` and why
    compile_seconds: float = 0.0  # not among `seconds`
    history: list[dict[str, float]] = field(default_factory=list)  # one entry a pass


class Training:
    """What a training changes as it goes on, and what it takes to go on after an interruption."""

    def __init__(
        self, encoder: Encoder, opt: torch.optim.Optimizer, lr_at: Callable[[int], float]
    ) -> None:
        self.encoder, self.opt, self.lr_at = encoder, opt, lr_at
        self.device = next(encoder.parameters()).device
        self.progress = Progress()
        self.delta: Tensor | None = None  # perturbation carried from minibatch to minibatch
        self.loss_sum = torch.zeros((), device=self.device)  # over minibatches of this pass
        self._clock = time.monotonic()

    def update(self) -> None:
        """Move the parameters by their gradients, at the learning rate of this update."""
        distributed.sum_gradients_(self.encoder.parameters())
        for group in self.opt.param_groups:
            group["lr"] = self.lr_at(self.progress.update)
        self.opt.step()
        self.progress.update += 1

    def close_minibatch(self, losses: list[Tensor], delta: Tensor | None) -> None:
        """Note what a minibatch left."""
        self.loss_sum = self.loss_sum + torch.stack(losses).mean()
        self.delta = delta
        self.progress.position += 1

    def close_pass(self, minibatches: int, images: int, title: str) -> None:
        """Write a line of history and begin the next pass.

        Raises:
            TrainingError: the loss is no longer finite.
        """
        progress = self.progress
        before = progress.history[-1]["seconds"] if progress.history else 0.0
        loss = distributed.total(self.loss_sum).item() / minibatches
        self._tick()
        progress.epoch, progress.position = progress.epoch + 1, 0
        row = {
            "epoch": progress.epoch,
            "loss": loss,
            "lr": self.lr_at(progress.update - 1),
            "seconds": round(progress.seconds, 3),
            "images_per_second": round(images / max(progress.seconds - before, 1e-9), 1),
        }
        log.info("run=%s %s", title, " ".join(f"{key}={row[key]:.6g}" for key in row))
        if not math.isfinite(loss):
            raise TrainingError(
                f"{title}: the loss is {loss} after pass {progress.epoch}; lower optimizer.lr, or "
                "use precision: fp32"
            )
        progress.history.append(row)
        self.loss_sum = torch.zeros((), device=self.device)

    def save(self, state: State) -> None:
        """Save everything that the next minibatch depends on, for any number of ranks."""
        self._tick()
        tensors = {f"encoder.{key}": value for key, value in self.encoder.state_dict().items()}
        tensors |= {f"optimizer.{key}": value for key, value in slots(self.opt).items()}
        tensors["loss_sum"] = distributed.total(self.loss_sum)
        if self.delta is not None:
            tensors["delta"] = distributed.gather(self.delta)
        if distributed.rank() == 0:
            state.save(tensors, asdict(self.progress))

    def take_up(self, state: State) -> None:
        """Go on where a saved training was interrupted; a first start stays a fresh one."""
        saved = state.load()
        if saved is None:
            return
        tensors, position = saved
        self.encoder.load_state_dict(below("encoder.", tensors), strict=True)
        set_slots_(self.opt, below("optimizer.", tensors))
        self.loss_sum = distributed.share(tensors["loss_sum"].to(self.device))
        if "delta" in tensors:
            self.delta = distributed.part(tensors["delta"].to(self.device))
        self.progress = Progress(**position)
        self.progress.resumed += 1
        log.info("resumed after pass %d, minibatch %d", self.progress.epoch, self.progress.position)

    def _tick(self) -> None:
        before, self._clock = self._clock, time.monotonic()
        self.progress.seconds += self._clock - before


def pretrain(
    encoder: Encoder,
    images: Tensor | Feed,
    labels: Tensor,
    *,
    method: Method,
    regime: Regime,
    views: Views,
    size: int,
    epochs: int,
    epochs_meaning: Literal["passes", "replays", "views"] = "passes",
    batch_size: int = 100,
    optimizer: dict[str, Any],
    precision: Literal["fp32", "tf32", "bf16"] = "fp32",
    compiled: bool = False,
    seed: int = 0,
    state: State | None = None,
    title: str = "pretrain",
) -> Progress:
    """Train an encoder in place; where several ranks train together, each calls this alike.

    Args:
        encoder: network on its device; left in eval mode.
        images: (N, 3, H, W) uint8, or a feed of them.
        labels: (N,) int64, used by the supervised method alone.
        method: views and loss.
        regime: how a minibatch becomes updates.
        views: how views are made.
        size: side of the views in pixels.
        epochs: length, in the unit of `epochs_meaning`.
        epochs_meaning: see `regimes.passes_over_data`.
        batch_size: images in a minibatch; the last, smaller one of a pass is dropped.
        optimizer: arguments of `build_optimizer` and of `learning_rate`.
        precision: of the encoder's arithmetic in training.
        compiled: whether to compile the encoder, where that helps and works.
        seed: every random choice is a hash of it and of what it is for.
        state: where to save state, and to take up an interrupted training from.
        title: of the progress bar and of log lines.

    Returns:
        Updates made, seconds, and one line of history a pass.

    Raises:
        TrainingError: fewer images than a minibatch holds, or a loss that is no longer finite.
        DivisionError: minibatches cannot be divided among the ranks.
    """
    minibatches = len(images) // batch_size
    if minibatches == 0:
        raise TrainingError(
            f"{title}: batch_size {batch_size} is more than the {len(images)} training images; "
            "lower it"
        )
    passes = passes_over_data(epochs, epochs_meaning, regime.updates_per_batch, views.count)
    shares = divide(method, views=views.count, batch_size=batch_size, ranks=distributed.ranks())
    share = shares[distributed.rank()]
    options = dict(optimizer)
    lr_at = learning_rate(
        options["lr"],
        schedule=options.pop("schedule"),
        horizon=options.pop("schedule_horizon"),
        minibatches=minibatches * passes,
        updates_per_batch=regime.updates_per_batch,
    )
    encoder.precision = precision
    encoder.train()
    synchronise(encoder)
    compilation = Compilation("eager")
    if compiled:
        compilation = compile_encoder(
            encoder,
            method=method,
            regime=regime,
            views=replace(views, count=len(share.views)),
            size=size,
            batch_size=len(share.images),
        )
    training = Training(encoder, build_optimizer(encoder, **options), lr_at)
    if state is not None:
        training.take_up(state)
    progress, device = training.progress, training.device
    progress.compilation = compilation.outcome
    progress.compile_seconds += compilation.seconds
    images, labels = feed.of(images, device), labels.to(device)
    bar = runtime.Progress(passes * minibatches, "minibatch", title)
    done = progress.epoch * minibatches + progress.position
    distributed.check_same(done, "minibatches done")
    bar.begin_at(done)
    steps = range(done, passes * minibatches)
    orders = _orders(len(images), steps, seed=seed, batch_size=batch_size, mine=share.images)
    with contextlib.closing(images.batches(orders)) as batches:
        for step, (index, chosen) in zip(steps, batches, strict=True):
            epoch, position = divmod(step, minibatches)
            batch = make_batch(
                chosen,
                labels[index],
                index,
                views=views,
                size=size,
                seed=seed,
                epoch=epoch,
                only=share.views,
            )
            starts = runtime.generator(device, seed, "delta", epoch, position)
            with runtime.tf32(allowed=precision == "tf32"):
                trained = regime.train_batch(
                    encoder, method, batch, training.delta, training.update, starts
                )
            training.close_minibatch(*trained)
            if position == minibatches - 1:
                training.close_pass(minibatches, minibatches * batch_size, title)
            if state is not None and distributed.said_by_first(state.due()):
                training.save(state)
            if distributed.rank() == 0:
                bar.show(step + 1)
    encoder.zero_grad(set_to_none=True)
    encoder.eval()
    return progress


def _orders(
    count: int, steps: range, *, seed: int, batch_size: int, mine: range
) -> Iterator[Tensor]:
    """Yield which of `count` images this rank has of each minibatch of some steps, (B,) int64."""
    minibatches = count // batch_size
    for epoch, position in (divmod(step, minibatches) for step in steps):
        if position == 0 or (epoch, position) == divmod(steps.start, minibatches):
            order = runtime.permutation(count, seed, "order", epoch)
        yield order[position * batch_size :][mine.start : mine.stop]


def make_batch(
    images: Tensor,
    labels: Tensor,
    indices: Tensor,
    *,
    views: Views,
    size: int,
    seed: int,
    epoch: int,
    only: range | None = None,
) -> Batch:
    """Make the views of a minibatch.

    Args:
        images: (B, 3, H, W) uint8.
        labels: (B,) int64.
        indices: (B,) int64, on the device of the images; their positions in the training set.
        views: how views are made.
        size: side of the views.
        seed: of the training.
        epoch: pass over the data; together with seed and index it decides the views of an image.
        only: which of the views to make; all when None.
    """
    made = slice(only.start, only.stop) if only else slice(None)
    key = runtime.counter_key(seed, "views", epoch)
    return Batch(
        images=augment.to_float(images, size),
        views=augment.make_views(images, views, size=size, key=key, counters=indices, only=made),
        labels=labels,
    )


def build_optimizer(
    encoder: Encoder,
    *,
    name: Literal["lars", "sgd", "adam"],
    lr: float,
    momentum: float,
    weight_decay: float,
    eta: float,
) -> torch.optim.Optimizer:
    """Make the optimizer of a training; see `robustviews.study.Optimizer` for the options."""
    params = [parameter for parameter in encoder.parameters() if parameter.requires_grad]
    if name == "lars":
        return Lars(params, lr, momentum=momentum, weight_decay=weight_decay, eta=eta)
    if name == "sgd":
        return Sgd(params, lr, momentum=momentum, weight_decay=weight_decay, nesterov=momentum > 0)
    return Adam(params, lr, weight_decay=weight_decay)
