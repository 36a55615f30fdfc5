"""Fine-tuning: encoder and head are trained for each rate and decay, then once more to the end."""

from __future__ import annotations

import contextlib
import logging
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from robustviews import augment, finite, optim
from robustviews.machine import feed, humanize, runtime
from robustviews.probe import fitting, heads, holdout

if TYPE_CHECKING:
    from robustviews.encoder import Encoder
    from robustviews.probe.finetune import FinetuneProbe
    from robustviews.probe.protocol import History, Training

log = logging.getLogger(__name__)

_MOMENTUM = 0.9


class Tuned(nn.Module):
    """A head, with the encoder that was trained for it; only what the head reads passes through."""

    def __init__(self, encoder: Encoder, head: nn.Module) -> None:
        super().__init__()
        self.encoder, self.head = encoder, head

    def forward(self, h: Any) -> Tensor:  # noqa: ANN401  # of the probe
        """Map features (B, F) or maps of the encoder to logits, or other outputs."""
        outputs: Tensor = self.head(h)
        return outputs


@dataclass
class Position:
    """How far the job has come."""

    update: int = 0  # of the present training
    history: History = field(default_factory=list)  # a line per finished training


class Tuning:
    """The trainings of one job, which resume after an interruption."""

    def __init__(self, probe: FinetuneProbe, encoder: Encoder, training: Training) -> None:
        """Begin, or resume from the training's checkpoint.

        Args:
            probe: options.
            encoder: network with the pretrained weights; it is trained in place.
            training: training images, seed, and the checkpoint.
        """
        self.probe, self.training = probe, training
        self.network = Tuned(encoder, heads.new_head(encoder, probe.feature, training))
        self.images = feed.of(training.images, training.labels.device)
        self.pretrained = {name: x.clone() for name, x in self.network.state_dict().items()}
        self.slots: dict[str, Tensor] = {}  # of the optimizer, restored
        self.loss_sum = torch.zeros((), device=training.labels.device)  # of the present training
        self.position = Position()
        self._resume()

    def run(self) -> tuple[nn.Module, History]:
        """Return the trained head with its encoder, and a line for each training.

        Raises:
            NonFiniteError: every rate, or the last training, diverges.
        """
        pairs, history = self.probe.pairs, self.position.history
        chosen = 0
        if len(pairs) > 1:
            kept, held = holdout.hold_out(self.training.labels)
            while len(history) < len(pairs):
                row = self._train(kept, *pairs[len(history)])
                if "loss" in row:
                    row["held_out"] = self._score(held)
                history = self._close(row)
            if not any("loss" in row for row in history):
                self._diverged("every training")
            chosen = holdout.best([row.get("held_out", -1.0) for row in history])
        last = self._train(torch.arange(len(self.images)), *pairs[chosen])
        if "loss" not in last:
            self._diverged("the training on all images")
        self.network.requires_grad_(True).eval()
        self.network.zero_grad(set_to_none=True)
        return self.network, [*history, last]

    def _train(self, rows: Tensor, lr: float, decay: float) -> dict[str, float]:
        """Train on the images at `rows` to the last update, and return the line of history.

        It has no loss if the training diverged.
        """
        probe, position = self.probe, self.position
        sgd = optim.Sgd(
            self.network.parameters(), lr, momentum=_MOMENTUM, weight_decay=decay, nesterov=True
        )
        optim.set_slots_(sgd, self.slots)
        self.network.train()
        bar = runtime.ProgressBar(probe.updates, "update", self.training.title)
        bar.begin_at(position.update)
        size = min(probe.batch_size, len(rows))  # of a minibatch
        passes = len(rows) // size  # updates of a pass
        steps = fitting.orders(
            rows,
            size,
            probe.updates,
            seed=self.training.seed,
            first=position.update,
            what="finetune",
        )
        precise = runtime.tf32(allowed=probe.precision == "tf32")
        with precise, contextlib.closing(self.images.batches(steps)) as batches:
            for index, chosen in batches:
                rate = optim.cosine_lr(position.update, base=lr, horizon=probe.updates)
                sgd.param_groups[0]["lr"] = rate
                self.loss_sum += self._update(sgd, chosen, index, position.update // passes)
                position.update += 1
                bar.show(position.update)
                fitting.save_if_due(
                    self.training.checkpoint, self.network, sgd, position, loss=self.loss_sum
                )
        row = {"lr": lr, "weight_decay": decay, "updates": probe.updates}
        loss = self.loss_sum.item() / probe.updates
        return {**row, "loss": loss} if math.isfinite(loss) else row

    def _update(
        self, sgd: torch.optim.Optimizer, images: Tensor, index: Tensor, epoch: int
    ) -> Tensor:
        training, probe = self.training, self.probe
        key = runtime.counter_key(training.seed, "finetune views", epoch)
        with runtime.tf32(allowed=False):
            (views,) = augment.make_views(
                images, probe.views, size=training.size, key=key, counters=index
            )
        h = self.network.encoder.represent(views, probe.feature, precision=probe.precision)
        loss = nn.functional.cross_entropy(self.network(h), training.labels[index])
        sgd.zero_grad()
        loss.backward()
        sgd.step()
        return loss.detach()

    def _score(self, rows: Tensor) -> float:
        """Return the accuracy on whole images at `rows`."""
        self.network.eval()
        correct = 0
        orders = rows.split(self.training.batch)
        with torch.no_grad(), contextlib.closing(self.images.batches(orders)) as batches:
            for index, chosen in batches:
                inputs = augment.to_float(chosen, self.training.size)
                logits = self.network(self.network.encoder.represent(inputs, self.probe.feature))
                correct += int((logits.argmax(dim=1) == self.training.labels[index]).sum())
        return correct / len(rows)

    def _close(self, row: dict[str, float]) -> History:
        """Return the history with one more line, and go back to the pretrained weights."""
        log.info("probe=%s %s", self.training.title, humanize.pairs(row))
        self.position = Position(history=[*self.position.history, row])
        self.network.load_state_dict(self.pretrained)
        self.slots = {}
        self.loss_sum.zero_()
        return self.position.history

    def _resume(self) -> None:
        saved = fitting.restore_(self.training.checkpoint, self.network, loss=self.loss_sum)
        if saved is None:
            return
        position, self.slots = saved
        self.position = Position(**position)
        done = len(self.position.history), self.position.update
        log.info("probe=%s resumed after training %d, update %d", self.training.title, *done)

    def _diverged(self, what: str) -> None:
        raise finite.NonFiniteError(
            f"{self.training.title}: the loss of {what} is not finite; lower lr of the probe"
        )
