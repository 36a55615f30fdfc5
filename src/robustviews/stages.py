"""The stages of a study as pure functions: arrays, weights and options in, results out.

No function here knows a path, a study file or the command line: the command line loads inputs,
calls a stage and saves results. Every number is decided by a stage and by what it calls, so the
digest of a job's code starts here.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from robustviews.options import LazyModule
from robustviews.sanity.stage import sanity

if TYPE_CHECKING:
    from pathlib import Path

    import torch
    from torch import Tensor

    from robustviews import augment, checkpoints, evaluate, step
    from robustviews import encoder as encoders
    from robustviews import monitor as monitoring
    from robustviews import pretrain as pretraining
    from robustviews.attacks import Attack
    from robustviews.augment import Views
    from robustviews.checkpoint import Checkpoint
    from robustviews.checkpoints import Imported
    from robustviews.datasets import Create, Dataset, Rows
    from robustviews.machine import distributed, feed, memory, runtime
    from robustviews.methods import Method
    from robustviews.pretrain import Progress
    from robustviews.probe import Probe
    from robustviews.probe.protocol import History
    from robustviews.regimes import Regime

    Images = Tensor | Rows
    Weights = Mapping[str, Tensor]
else:
    torch = LazyModule("torch")
    augment, checkpoints = LazyModule("robustviews.augment"), LazyModule("robustviews.checkpoints")
    encoders, evaluate = LazyModule("robustviews.encoder"), LazyModule("robustviews.evaluate")
    monitoring = LazyModule("robustviews.monitor")
    pretraining, step = LazyModule("robustviews.pretrain"), LazyModule("robustviews.step")
    distributed = LazyModule("robustviews.machine.distributed")
    feed, memory = LazyModule("robustviews.machine.feed"), LazyModule("robustviews.machine.memory")
    runtime = LazyModule("robustviews.machine.runtime")

__all__ = ["Pretrained", "attack", "bring", "prepare", "pretrain", "probe", "sanity"]

log = logging.getLogger(__name__)

CHECKED = 16  # training images for which a trained network must have finite outputs


class Pretrained(NamedTuple):
    """The results of a pretraining.

    Attributes:
        weights: of the encoder.
        progress: updates, seconds, and a line of history per pass.
        step_bytes: expected memory of a training step.
    """

    weights: dict[str, Tensor]
    progress: Progress
    step_bytes: int


def prepare(dataset: Dataset, create: Create) -> dict[str, Any]:
    """Verify and decode a data set.

    Args:
        dataset: options of the data set.
        create: creates the arrays to fill: {train,test}_images, (N, 3, S, S) uint8, and
            {train,test}_labels, (N,) int64.

    Returns:
        Numbers of `train` and `test` images, `classes`, `size`, and `source_hashes` by name.

    Raises:
        DataError: files are missing, damaged or not as requested.
    """
    return dataset.prepare(create)


def bring(path: Path, **options: Any) -> Imported:  # noqa: ANN401  # of checkpoints.bring
    """Import an encoder from a checkpoint of another program.

    Args:
        path: of the checkpoint.
        options: options of `checkpoints.bring`, among them the `sha256` of the file.

    Raises:
        CheckpointError: as `checkpoints.bring`.
    """
    return checkpoints.bring(path, **options)


def pretrain(
    images: Images,
    labels: Tensor,
    *,
    classes: int,
    size: int,
    encoder: Mapping[str, Any],
    method: Method,
    regime: Regime,
    views: Views,
    optimizer: Mapping[str, Any],
    epochs: int,
    epochs_meaning: Literal["passes", "replays", "views"] = "passes",
    batch_size: int = 100,
    precision: Literal["fp32", "tf32", "bf16"] = "fp32",
    compile: bool = False,  # noqa: A002  # its name in study files
    seed: int = 0,
    device: torch.device,
    checkpoint: Checkpoint | None = None,
    title: str = "pretrain",
) -> Pretrained:
    """Train an encoder. In distributed training every rank calls this function.

    Args:
        images: (N, 3, S, S) uint8, in memory or mapped from their file.
        labels: (N,) int64; only a supervised method uses them.
        classes: number of classes.
        size: side of the views in pixels.
        encoder: arguments of `encoder.build_encoder`.
        method: views and loss.
        regime: how a minibatch becomes updates.
        views: how views are drawn.
        optimizer: arguments of `optim.build_optimizer` and of `optim.learning_rate`.
        epochs: length, in the unit of `epochs_meaning`.
        epochs_meaning: see `regimes.passes_over_data`.
        batch_size: images in a minibatch.
        precision: precision of the encoder's arithmetic in training.
        compile: whether to compile the encoder on a GPU.
        seed: seed of the initial weights, of views and orders.
        device: device of the training.
        checkpoint: saves the state, from which an interrupted training resumes.
        title: title of the progress bar and of log lines.

    Raises:
        ShortageError: a training step needs more memory than the device has.
        TrainingError: the images do not fill a minibatch, or the loss, a weight or an output is not
            finite.
        DivisionError: minibatches cannot be divided among the ranks.
    """
    outputs = classes if method.supervised else None
    network = encoders.build_encoder(**encoder, classes=outputs, seed=seed).to(device)
    if precision == "bf16" and not runtime.native_bf16(device):
        log.info("%s has no bf16 in hardware: precision: fp32 would be faster", device)
    needed = step.step_bytes(
        network, method, regime, views, size=size, batch_size=batch_size, precision=precision
    )
    sharers = distributed.ranks() if device.type == "cpu" else 1  # ranks on this device
    step.check_step(needed * sharers, network, title=title)
    others = (sharers - 1) * images.nbytes  # of the other ranks, if they fit
    with memory.explained(title, step.SMALLER_STEP):
        rows = feed.choose(images, device, needed=needed * sharers + others)
        progress = pretraining.pretrain(
            network,
            rows,
            labels,
            method=method,
            regime=regime,
            views=views,
            size=size,
            epochs=epochs,
            epochs_meaning=epochs_meaning,
            batch_size=batch_size,
            optimizer=optimizer,
            precision=precision,
            compiled=compile,
            seed=seed,
            checkpoint=checkpoint,
            monitor=monitoring.Monitor(rows, labels, method, size=size),
            title=title,
        )
    part = encoders.first_nonfinite(network, augment.to_float(feed.first(rows, CHECKED), size))
    if part:
        raise pretraining.TrainingError(
            f"{title}: not finite after training: {part}; {pretraining.LOWER}"
        )
    return Pretrained(network.state_dict(), progress, needed)


def probe(
    weights: Weights,
    images: Images,
    labels: Tensor,
    *,
    classes: int,
    size: int,
    encoder: Mapping[str, Any],
    supervised: bool,
    probe: Probe,
    views: Views,
    seed: int = 0,
    batch: int = 500,
    fold: bool = False,
    start: Weights | None = None,
    device: torch.device,
    checkpoint: Checkpoint | None = None,
    title: str = "probe",
) -> tuple[dict[str, Tensor], History]:
    """Train a head on a frozen encoder.

    Args:
        weights: weights of the encoder.
        images: (N, 3, S, S) uint8, the training set, in memory or mapped from their file.
        labels: (N,) int64.
        classes: number of classes.
        size: side of images and views in pixels.
        encoder: arguments of `encoder.build_encoder`.
        supervised: whether the encoder has its own classifier.
        probe: options of the probe.
        views: views of the pretraining, from which an n-crop probe draws.
        seed: seed of the head, of orders and views.
        batch: views encoded or attacked at a time; only rounding depends on it.
        fold: whether batch norms are folded, see `encoder.restore_encoder`.
        start: weights of the head that training starts from; None for new weights.
        device: device of the training.
        checkpoint: saves the state, from which an interrupted fit resumes.
        title: title of the progress bar and of log lines.

    Returns:
        Weights of the head, and one line of history per epoch.

    Raises:
        ShortageError: the device has too little memory.
        WeightsError: weights do not fit the encoder or the head.
        NonFiniteError: a feature of the encoder, or a loss, weight or logit of the head is not
            finite.
    """
    from robustviews.probe import heads
    from robustviews.probe.protocol import Training

    network = encoders.restore_encoder(
        weights, encoder, classes=classes if supervised else None, device=device, fold=fold
    )
    if (start is None) != (probe.starts_from is None):
        found = "none" if start is None else "some"
        raise ValueError(f"{title}: starts from {probe.starts_from}, found {found} weights")
    head = None
    if start is not None:
        head = probe.restore(start, network, classes=classes)
    training = Training(
        images=feed.choose(images, device),
        labels=labels.to(device),
        classes=classes,
        views=views,
        size=size,
        seed=seed,
        batch=batch,
        title=title,
        checkpoint=checkpoint,
    )
    with memory.explained(title, memory.SMALLER_BATCH), runtime.tf32(allowed=False):
        heads.check_finite(probe, network, training)
        trained, history = probe.train(network, training, start=head)
        heads.check_finite(probe, network, training, head=trained)
    return trained.state_dict(), history


def attack(
    weights: Weights,
    head: Weights | None,
    images: Images,
    labels: Tensor,
    *,
    classes: int,
    size: int,
    encoder: Mapping[str, Any],
    supervised: bool,
    probe: Probe,
    attack: Attack,
    views: Views,
    seed: int = 0,
    batch: int = 500,
    fold: bool = False,
    device: torch.device,
    checkpoint: Checkpoint | None = None,
    title: str = "attack",
) -> dict[str, Tensor]:
    """Attack a classifier at every radius of an attack.

    Args:
        weights: weights of the encoder.
        head: weights of the head; None for a supervised encoder's own classifier.
        images: (N, 3, S, S) uint8, the whole test set, in memory or mapped from their file.
        labels: (N,) int64.
        classes: number of classes.
        size: side of the images in pixels.
        encoder: arguments of `encoder.build_encoder`.
        supervised: whether the encoder has its own classifier.
        probe: makes the inputs of the classifier from an image.
        attack: options of the attack.
        views: views of the pretraining, from which an n-crop probe draws.
        seed: seed of the choice of images, of views and of random starts.
        batch: views attacked at a time; random draws depend on it.
        fold: whether batch norms are folded, see `encoder.restore_encoder`.
        device: device of the attack.
        checkpoint: saves the flags so far, from which an interrupted attack resumes.
        title: title of the progress bar and of log lines.

    Returns:
        `index` (n,) int64, positions of the attacked images in the test set; `labels` (n,) int64;
        `clean` and one `eps_<radius>` per radius (n,) uint8, 1 where the prediction is correct.

    Raises:
        ShortageError: the device has too little memory.
        WeightsError: weights do not fit the encoder or the head.
        NonFiniteError: a logit of a clean or attacked image is not finite.
        ValueError: an attack left its ball or [0, 1], or requests more images than there are; or a
            label is none of the classes.
    """
    network = encoders.restore_encoder(
        weights, encoder, classes=classes if supervised else None, device=device, fold=fold
    )
    classifier = evaluate.Classifier(
        network, probe.restore(head or {}, network, classes=classes), probe
    )
    with memory.explained(title, memory.SMALLER_BATCH), runtime.tf32(allowed=False):
        return evaluate.evaluate(
            classifier,
            attack,
            feed.choose(images, device),
            labels,
            views=views,
            size=size,
            seed=seed,
            batch=batch,
            checkpoint=checkpoint,
            title=title,
        )
