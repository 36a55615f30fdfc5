"""Pretraining: one loop for every method and regime."""

from __future__ import annotations

import contextlib
import functools
import logging
import math
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

import torch
from torch import Tensor

from robustviews.augment import Views
from robustviews.checkpoint import Checkpoint
from robustviews.encoder import Encoder
from robustviews.machine import distributed, feed, humanize, runtime
from robustviews.machine.compiler import Compilation
from robustviews.machine.feed import Feed
from robustviews.methods import Batch, Method, Share, divide
from robustviews.network import Network, build_network
from robustviews.optim import build_optimizer, learning_rate, set_slots_, slots, with_prefix
from robustviews.regimes import Regime, passes_over_data
from robustviews.step import compile_encoder, make_batch

log = logging.getLogger(__name__)


Measure = Callable[[Network], dict[str, float]]

LOWER = "lower optimizer.lr, or use precision: fp32"  # if a network diverges


class TrainingError(ValueError):
    """A training cannot continue; the message names the place and the fix."""


@dataclass(frozen=True)
class Length:
    """Length of a training; the last, smaller minibatch of a pass is dropped."""

    images: int  # in the training set
    batch_size: int
    passes: int

    @property
    def minibatches(self) -> int:
        """Minibatches of one pass."""
        return self.images // self.batch_size

    @property
    def steps(self) -> int:
        """Minibatches of the whole training."""
        return self.passes * self.minibatches

    def check(self, title: str) -> None:
        """Raise TrainingError if the images do not fill a minibatch."""
        if self.minibatches == 0:
            raise TrainingError(
                f"{title}: batch_size {self.batch_size} is more than the {self.images} training "
                "images; lower it"
            )


@dataclass
class Progress:
    """How far a training has come."""

    epoch: int = 0  # finished passes
    position: int = 0  # finished minibatches of the current pass
    update: int = 0
    seconds: float = 0.0
    resumed: int = 0
    compilation: str = "eager"  # or `compiled`, or `eager:` and the reason
    compile_seconds: float = 0.0  # not included in `seconds`
    history: list[dict[str, float]] = field(default_factory=list)  # one entry per pass


class Training:
    """The state of a training: everything that must be saved to resume it."""

    def __init__(
        self,
        net: Network,
        opt: torch.optim.Optimizer,
        lr_at: Callable[[int], float],
        *,
        updates: int,
    ) -> None:
        """Begin a training of a network; `updates` is the number of all its updates."""
        self.net, self.opt, self.lr_at, self.updates = net, opt, lr_at, updates
        self.device = next(net.parameters()).device
        self.progress = Progress()
        self.delta: Tensor | None = None  # perturbation, carried from one minibatch to the next
        self.loss_sum = torch.zeros((), device=self.device)  # over minibatches of this pass
        self._clock = time.monotonic()

    def done(self, length: Length) -> int:
        """Return the number of finished minibatches in all passes."""
        return self.progress.epoch * length.minibatches + self.progress.position

    def train(
        self, batch: Batch, method: Method, regime: Regime, starts: torch.Generator | None
    ) -> None:
        """Train on one minibatch; `starts` is the generator of random starts."""
        net, progress = self.net, self.progress
        net.epoch, net.update = progress.epoch, progress.update
        update = functools.partial(self.update, method, batch)
        losses, self.delta = regime.train_batch(net, method, batch, self.delta, update, starts)
        self.loss_sum = self.loss_sum + torch.stack(losses).mean()
        self.progress.position += 1

    def update(self, method: Method, batch: Batch) -> None:
        """Update the parameters at the learning rate of this update, then the method's state."""
        progress = self.progress
        distributed.sum_gradients_(self.net.parameters())
        for part in method.frozen(progress.epoch):
            self.net.get_submodule(part).zero_grad(set_to_none=True)
        for group in self.opt.param_groups:
            if not group.get("static"):
                group["lr"] = self.lr_at(progress.update)
        self.opt.step()
        with torch.no_grad():
            method.after_step(self.net, batch, progress.update / self.updates)
        progress.update += 1
        self.net.update = progress.update

    def close_pass(self, length: Length, title: str, monitor: Measure | None = None) -> None:
        """Add a line of history, with what a monitor measures, and begin the next pass.

        Raises:
            TrainingError: the loss is no longer finite.
        """
        progress = self.progress
        previous = progress.history[-1]["seconds"] if progress.history else 0.0
        loss = distributed.total(self.loss_sum).item() / length.minibatches
        self._tick()
        progress.epoch, progress.position = progress.epoch + 1, 0
        trained = length.minibatches * length.batch_size
        row = {
            "epoch": progress.epoch,
            "loss": loss,
            "lr": self.lr_at(progress.update - 1),
            "seconds": round(progress.seconds, 3),
            "images_per_second": round(trained / max(progress.seconds - previous, 1e-9), 1),
        }
        if monitor is not None and math.isfinite(loss):
            row |= monitor(self.net)
        log.info("run=%s %s", title, humanize.pairs(row))
        if not math.isfinite(loss):
            raise TrainingError(f"{title}: the loss is {loss} after pass {progress.epoch}; {LOWER}")
        progress.history.append(row)
        self.loss_sum = torch.zeros((), device=self.device)

    def save(self, checkpoint: Checkpoint) -> None:
        """Save everything that the next minibatch depends on, for any number of ranks."""
        self._tick()
        tensors = self.net.tensors()
        tensors |= {f"optimizer.{key}": value for key, value in slots(self.opt).items()}
        tensors["loss_sum"] = distributed.total(self.loss_sum)
        if self.delta is not None:
            tensors["delta"] = distributed.gather(self.delta)
        if distributed.rank() == 0:
            checkpoint.save(tensors, asdict(self.progress))

    def resume(self, checkpoint: Checkpoint, compilation: str) -> None:
        """Resume from the state of a process that compiled the encoder as this one, if any."""
        saved = checkpoint.load()
        if saved is None:
            return
        tensors, position = saved
        if "compiled" in (was := position["compilation"], compilation) and was != compilation:
            log.warning("not resumed: the state was computed with %s, here is %s", was, compilation)
            return  # compiled code rounds otherwise
        self.net.restore_(tensors)
        set_slots_(self.opt, with_prefix("optimizer.", tensors))
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
    optimizer: Mapping[str, Any],
    precision: Literal["fp32", "tf32", "bf16"] = "fp32",
    compiled: bool = False,
    seed: int = 0,
    checkpoint: Checkpoint | None = None,
    watch: Callable[[int], None] | None = None,
    monitor: Measure | None = None,
    title: str = "pretrain",
) -> Progress:
    """Train an encoder in place. In distributed training every rank calls this function.

    Args:
        encoder: network on its device; in eval mode afterwards.
        images: (N, 3, H, W) uint8, or a feed of them.
        labels: (N,) int64; only the supervised method uses them.
        method: views and loss.
        regime: how a minibatch becomes updates.
        views: how views are drawn.
        size: side of the views in pixels.
        epochs: length, in the unit of `epochs_meaning`.
        epochs_meaning: see `regimes.passes_over_data`.
        batch_size: images in a minibatch; the last, smaller one of a pass is dropped.
        optimizer: arguments of `build_optimizer` and of `learning_rate`.
        precision: precision of the encoder's arithmetic in training.
        compiled: whether to compile the encoder, if that helps and works.
        seed: every random choice is a hash of the seed and the purpose of the choice.
        checkpoint: saves the state, from which an interrupted training resumes.
        watch: called after each minibatch with the number of finished minibatches.
        monitor: measures the network after each pass, for the line of history.
        title: title of the progress bar and of log lines.

    Returns:
        Number of updates, seconds, and one line of history per pass.

    Raises:
        TrainingError: the images do not fill a minibatch, or the loss is no longer finite.
        DivisionError: minibatches cannot be divided among the ranks.
    """
    passes = passes_over_data(epochs, epochs_meaning, regime.updates_per_batch, views.count)
    length = Length(len(images), batch_size, passes)
    length.check(title)
    shares = divide(method, views=views.count, batch_size=batch_size, ranks=distributed.ranks())
    share = shares[distributed.rank()]
    encoder.precision = precision
    net = build_network(encoder, method, seed=seed).train()
    net.synchronise()
    compilation = Compilation("eager")
    if compiled:
        shape = {"size": size, "batch_size": len(share.images)}
        own = replace(views, count=len(share.views))
        compilation = compile_encoder(net, method=method, regime=regime, views=own, **shape)
    training = _begin(net, optimizer, length, method, updates_per_batch=regime.updates_per_batch)
    if checkpoint is not None:
        training.resume(checkpoint, compilation.outcome)
    progress = training.progress
    progress.compilation = compilation.outcome
    progress.compile_seconds += compilation.seconds
    batches = _batches(
        images, labels, training, length, share=share, views=views, size=size, seed=seed
    )
    bar = runtime.ProgressBar(length.steps, "minibatch", title)
    bar.begin_at(training.done(length))
    with contextlib.closing(batches):
        for batch, starts in batches:
            with runtime.tf32(allowed=precision == "tf32"):  # views are made outside this block
                training.train(batch, method, regime, starts)
            if progress.position == length.minibatches:
                training.close_pass(length, title, monitor)
            if checkpoint is not None and distributed.broadcast_first(checkpoint.due()):
                training.save(checkpoint)
            done = training.done(length)
            if watch is not None:
                watch(done)
            if distributed.rank() == 0:
                bar.show(done)
    if method.evaluated == "teacher":
        encoder.load_state_dict(net.teacher["encoder"].state_dict())
    encoder.zero_grad(set_to_none=True)
    encoder.eval()
    return progress


def _begin(
    net: Network,
    optimizer: Mapping[str, Any],
    length: Length,
    method: Method,
    *,
    updates_per_batch: int,
) -> Training:
    """Return a new training, with the optimizer and schedule of the study."""
    options = dict(optimizer)
    lr_at = learning_rate(
        options["lr"],
        schedule=options.pop("schedule"),
        horizon=options.pop("schedule_horizon"),
        minibatches=length.steps,
        updates_per_batch=updates_per_batch,
        warmup=options.pop("warmup_epochs", 0) * length.minibatches,
        warmup_lr=options.pop("warmup_lr", 0.0),
    )
    opt = build_optimizer(net, **options, static=method.static_lr)
    return Training(net, opt, lr_at, updates=length.steps * updates_per_batch)


def _batches(
    images: Tensor | Feed,
    labels: Tensor,
    training: Training,
    length: Length,
    *,
    share: Share,
    views: Views,
    size: int,
    seed: int,
) -> Generator[tuple[Batch, torch.Generator], None, None]:
    """Yield this rank's share of each remaining minibatch, and the generator of random starts."""
    device, first = training.device, training.done(length)
    distributed.check_same(first, "minibatches done")
    images, labels = feed.of(images, device), labels.to(device)
    steps = range(first, length.steps)
    orders = _orders(steps, length, seed=seed, mine=share.images)
    with contextlib.closing(images.batches(orders)) as minibatches:
        for step, (index, chosen) in zip(steps, minibatches, strict=True):
            epoch, position = divmod(step, length.minibatches)
            batch = make_batch(
                chosen,
                labels[index],
                index,
                views=views,
                size=size,
                seed=seed,
                epoch=epoch,
                only=share.views,
                compiled=training.progress.compilation == "compiled",
            )
            yield batch, runtime.generator(device, seed, "delta", epoch, position)


def _orders(steps: range, length: Length, *, seed: int, mine: range) -> Iterator[Tensor]:
    """Yield the indices (B,) int64 of this rank's images for each step."""
    for step in steps:
        epoch, position = divmod(step, length.minibatches)
        if position == 0 or step == steps.start:
            order = runtime.permutation(length.images, seed, "order", epoch)
        yield order[position * length.batch_size :][mine.start : mine.stop]
