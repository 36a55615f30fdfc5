"""The training of a dense head, with or without its encoder, which resumes at every update."""

from __future__ import annotations

import contextlib
import logging
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from robustviews import augment, optim
from robustviews.machine import feed, runtime
from robustviews.probe import dense, fitting
from robustviews.probe.tuning import Position, Tuned
from robustviews.tasks.protocol import Maps

if TYPE_CHECKING:
    from robustviews.encoder import Encoder
    from robustviews.probe.dense import DenseProbe
    from robustviews.probe.protocol import History, Training

log = logging.getLogger(__name__)

_SHARE = 1 / 3  # of the head's learning rate, for a tuned encoder
_FLIP = 0.5  # probability


class DenseFit:
    """The training of one job."""

    def __init__(self, probe: DenseProbe, encoder: Encoder, training: Training) -> None:
        """Begin, or resume from the checkpoint.

        Args:
            probe: options.
            encoder: network with the pretrained weights; a tuned one is trained in place.
            training: training images, labels, seed, and the checkpoint.
        """
        self.probe, self.training, self.encoder = probe, training, encoder
        device, task = training.labels.device, probe.task
        with runtime.seeded(training.seed, "head"):
            self.head = task.head(encoder.backbone.channels, training.classes).to(device)
        self.network = Tuned(encoder, self.head)
        self.trained = self.network if probe.tuned else self.head
        self.images = feed.of(training.images, device)
        self.count = min(probe.images or len(self.images), len(self.images))
        self.size = min(probe.batch_size, self.count)  # of a minibatch
        self.weights = task.class_weights(training.labels[: self.count], training.classes)
        groups: list[dict[str, Any]] = [{"params": list(self.head.parameters()), "base": probe.lr}]
        if probe.tuned:
            rate = probe.lr * _SHARE if probe.encoder_lr is None else probe.encoder_lr
            groups.append({"params": list(encoder.backbone.parameters()), "base": rate})
        self.optimizer = optim.AdamW(groups, weight_decay=probe.weight_decay)
        self.position = Position()
        self.loss_sum = torch.zeros((), device=device)  # of the present pass
        self._resume()

    def run(self) -> tuple[nn.Module, History]:
        """Return the trained head, with a tuned encoder, and a line for each pass.

        Raises:
            NonFiniteError: the training diverges.
        """
        probe, training, position = self.probe, self.training, self.position
        self._set_modes()
        maps = self._kept()
        passes = self.count // self.size
        rows = torch.arange(self.count)
        bar = runtime.ProgressBar(probe.updates, "update", training.title)
        bar.begin_at(position.update)
        steps = fitting.orders(
            rows, self.size, probe.updates, seed=training.seed, first=position.update, what="dense"
        )
        # Kept maps take the place of the images.
        source = self.images if maps is None else feed.of(rows, self.loss_sum.device)
        with contextlib.closing(source.batches(steps)) as batches:
            for index, chosen in batches:
                self.loss_sum += self._update(index, chosen, maps, position.update // passes)
                position.update += 1
                if position.update % passes == 0 or position.update == probe.updates:
                    self._close_pass(passes)
                bar.show(position.update)
                fitting.save_if_due(
                    training.checkpoint, self.trained, self.optimizer, position, loss=self.loss_sum
                )
        self.network.requires_grad_(True).eval()
        self.network.zero_grad(set_to_none=True)
        return self.trained, position.history

    def _set_modes(self) -> None:
        self.network.train()
        if not self.probe.tuned or self.probe.batchnorm == "frozen":
            self.encoder.eval()

    def _kept(self) -> Maps | None:
        """Return the maps of all training images if they are computed once; else None."""
        if self.probe.tuned or self.probe.flip:
            return None
        found: list[Maps] = []
        parts = torch.arange(self.count).split(self.training.batch)
        with torch.no_grad(), contextlib.closing(self.images.batches(parts)) as batches:
            for _, chosen in batches:
                maps = self.encoder.maps(augment.to_float(chosen, self.training.size))
                found.append(maps)
                share = len(chosen) / self.count
                if sum(level.nbytes for level in maps.levels) > dense.KEPT * share:
                    return None
        levels = zip(*(maps.levels for maps in found), strict=True)
        return Maps(tuple(map(torch.cat, levels)), found[0].size)

    def _update(self, index: Tensor, images: Tensor, maps: Maps | None, epoch: int) -> Tensor:
        """Make one update, and return the mean loss of its images."""
        task, labels = self.probe.task, self.training.labels[index]
        if maps is not None:
            read = Maps(tuple(level[index] for level in maps.levels), maps.size)
        else:
            inputs = augment.to_float(images, self.training.size)
            if self.probe.flip:
                inputs, labels = self._mirrored(inputs, labels, index, epoch)
            with torch.set_grad_enabled(self.probe.tuned):
                read = self.encoder.maps(inputs)
        loss = task.loss(self.head(read), labels, self.weights, read.size).mean()
        for group in self.optimizer.param_groups:
            group["lr"] = group["base"] * self._share()
        self.optimizer.zero_grad()
        loss.backward()
        trained = [p for group in self.optimizer.param_groups for p in group["params"]]
        nn.utils.clip_grad_norm_(trained, self.probe.clip)
        self.optimizer.step()
        return loss.detach()

    def _mirrored(
        self, inputs: Tensor, labels: Tensor, index: Tensor, epoch: int
    ) -> tuple[Tensor, Tensor]:
        seed = self.training.seed
        draws = torch.rand(self.count, generator=runtime.generator("cpu", seed, "flip", epoch))
        chosen = draws.to(index.device)[index] < _FLIP
        turned = self.probe.task.flipped(labels, inputs.shape[-1])
        rows = chosen.view(-1, *[1] * (labels.dim() - 1))
        images = torch.where(chosen.view(-1, 1, 1, 1), inputs.flip(-1), inputs)
        return images, torch.where(rows, turned, labels)

    def _share(self) -> float:
        """Return the share of the largest learning rate at the present update."""
        update, warmup = self.position.update, self.probe.warmup
        if update < warmup:
            return (update + 1) / warmup
        left = max(1, self.probe.updates - warmup)
        return optim.cosine_lr(update - warmup, base=1.0, horizon=left)

    def _close_pass(self, passes: int) -> None:
        """Add a line of history; raise NonFiniteError if the loss is no longer finite."""
        position = self.position
        done = (position.update - 1) % passes + 1
        loss = self.loss_sum.item() / done
        fitting.check_loss(loss, self.training.title, f"update {position.update}")
        position.history.append({"updates": position.update, "loss": loss})
        log.info("probe=%s updates=%d loss=%.6g", self.training.title, position.update, loss)
        self.loss_sum.zero_()

    def _resume(self) -> None:
        saved = fitting.restore_(self.training.checkpoint, self.trained, loss=self.loss_sum)
        if saved is None:
            return
        position, slots = saved
        optim.set_slots_(self.optimizer, slots)
        self.position = Position(**position)
        log.info("probe=%s resumed after update %d", self.training.title, self.position.update)
