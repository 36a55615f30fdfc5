"""Evaluation: what a network answers about test images, clean and under an attack."""

from __future__ import annotations

import contextlib
import logging
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from robustviews import finite
from robustviews.attacks import Attack, Model, Norm, flag_name, fraction, length, to_pixels
from robustviews.augment import Views
from robustviews.encoder import Encoder
from robustviews.machine import feed, runtime
from robustviews.machine.feed import Feed
from robustviews.probe import Probe
from robustviews.tasks.classification import CLASSIFICATION

if TYPE_CHECKING:
    from robustviews.checkpoint import Checkpoint
    from robustviews.tasks.protocol import Maps, Task

log = logging.getLogger(__name__)

_LOWER = "train the encoder or the head again with a lower lr"

ROUNDING = 1e-6  # tolerance for float32 perturbations


class Classifier(nn.Module):
    """Encoder and head as one network, from the inputs of the probe to the outputs of its task."""

    def __init__(self, encoder: Encoder, head: nn.Module, probe: Probe) -> None:
        super().__init__()
        self.encoder, self.head, self.probe = encoder, head, probe

    def forward(self, inputs: Tensor) -> Tensor:
        """Map inputs (B, 3, H, W) or (B, n, 3, H, W) in [0, 1] to outputs: logits (B, K)."""
        h = self.features(inputs)
        # A craft_precision is the encoder's.
        with torch.autocast(inputs.device.type, enabled=False):
            return self.head(h)  # type: ignore[no-any-return]

    def features(self, inputs: Tensor) -> Tensor | Maps:
        """Map the same inputs to what the head reads: features (B, F), or maps of the encoder."""
        return self.probe.features(self.encoder, inputs)


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
        labels: of all images, as the task has them: (N,) int64 for classification.
        views: views of the pretraining, for an n-crop probe.
        size: side of the images in pixels.
        seed: seed of the choice of images, of n-crop views and of random starts.
        batch: views attacked together: an n-crop probe takes batch / n images at a time.
        checkpoint: saves the flags so far, from which an interrupted evaluation resumes.
        title: title of the progress bar and of log lines.

    Returns:
        `index` (n,) int64, positions of the attacked images in the test set; `labels` (n, ...),
        what the task stores of their labels; `clean` and one `eps_<radius>` per radius (n, ...),
        what it stores of answers: of classification (n,) uint8, 1 where the prediction is correct.

    Raises:
        NonFiniteError: a logit of a clean or attacked image is not finite.
        ValueError: an attack left its ball or [0, 1], or requests more images than there are; or a
            label is none of the classes.
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
            draws = runtime.attack_seed(seed, "attack", done)
            found = _flags(classifier, attack, inputs, target, draws, title)
            for name, flag in found.items():
                flags.setdefault(name, []).append(flag)
            done += 1
            if checkpoint is not None and checkpoint.due():
                checkpoint.save(_joined(flags), {"batches": done, "flags": list(flags)})
            bar.show(min(done * at_once, len(index)))
    answers = _joined(flags)
    truth = classifier.probe.task.truth(labels[index].numpy(), answers[flag_name(0.0)].numpy())
    return {"index": index, "labels": torch.from_numpy(truth), **answers}


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
    """Return the answers of all batches on the CPU."""
    return {name: torch.cat([part.cpu() for part in parts]) for name, parts in flags.items()}


def _flags(
    classifier: Classifier, attack: Attack, inputs: Tensor, labels: Tensor, seed: int, title: str
) -> dict[str, Tensor]:
    task = classifier.probe.task
    flags = {flag_name(0.0): answer(classifier, inputs, labels, task=task, title=title)}
    for radius in attack.eps:
        _, robust = attack_once(
            classifier, attack, inputs, labels, radius=radius, seed=seed, task=task, title=title
        )
        flags[flag_name(radius)] = robust
    return flags


def attack_once(
    model: Model,
    attack: Attack,
    inputs: Tensor,
    labels: Tensor,
    *,
    radius: float,
    seed: int,
    task: Task = CLASSIFICATION,
    title: str,
) -> tuple[Tensor, Tensor]:
    """Attack inputs at one radius, without trust in the attack.

    Args:
        model: maps inputs (B, ...) in [0, 1] to outputs of the task, such as logits (B, classes).
        attack: options of the attack.
        inputs: clean inputs.
        labels: of the inputs, (B,) int64 for classification.
        radius: in the unit of the attack's norm.
        seed: seed of random starts.
        task: what is asked about the inputs.
        title: job, for messages.

    Returns:
        Perturbed inputs, and what the task stores of the answers: of classification (B,) uint8, 1
        where the prediction is correct.

    Raises:
        NonFiniteError: an output is not finite, also of inputs that the attack tried and discarded.
        ValueError: the attack left its ball or [0, 1], or as `answer`.
    """
    eps, watched = to_pixels(radius, attack.norm), _Watched(model, attack.craft_precision)
    with runtime.tf32(allowed=attack.craft_precision == "tf32"):
        # A copy: an attack that changes its inputs must not move the centre of the ball.
        adversarial = attack.perturb(watched, inputs.clone(), labels, eps=eps, seed=seed)
    if watched.broke_down():
        raise finite.NonFiniteError(
            f"{title}, {flag_name(radius)}: logits are not finite during the attack; {_LOWER}"
        )
    check_ball(adversarial, inputs, eps, radius, norm=attack.norm)
    return adversarial, answer(model, adversarial, labels, task=task, title=title, radius=radius)


class _Watched:
    """A model at a precision, and whether all its outputs so far are finite, without waiting."""

    def __init__(self, model: Model, precision: str) -> None:
        self._model, self._precision = model, precision
        self._finite: Tensor | None = None  # scalar on the device

        if hasattr(model, "features"):  # for attacks that see no logits
            self.features = lambda inputs: self._note(model.features, inputs)

    def __call__(self, inputs: Tensor) -> Tensor:
        return self._note(self._model, inputs)

    def _note(self, model: Model, inputs: Tensor) -> Tensor:
        with runtime.autocast(self._precision, inputs.device):
            outputs = runtime.widen(model(inputs))
        sound = outputs.detach().isfinite().all()
        self._finite = sound if self._finite is None else self._finite & sound
        return outputs

    def broke_down(self) -> bool:
        """Return whether a logit of any call was not finite."""
        return self._finite is not None and not self._finite.item()


def answer(
    model: Model,
    inputs: Tensor,
    labels: Tensor,
    *,
    task: Task = CLASSIFICATION,
    title: str,
    radius: float = 0.0,
) -> Tensor:
    """Return what a task stores of a network's answers about some inputs.

    Args:
        model: maps inputs (B, ...) to outputs of the task, such as logits (B, classes).
        inputs: clean or attacked.
        labels: of the inputs, (B,) int64 for classification.
        task: what is asked.
        title: job, for messages.
        radius: of the attack on the inputs, in 1/255; 0 for clean inputs.

    Returns:
        (B, ...): of classification (B,) uint8, 1 where the prediction is correct.

    Raises:
        NonFiniteError: an output is not finite: NaN would count as a prediction.
        ValueError: outputs of another form, or a label that is none of the classes.
    """
    with torch.no_grad():
        outputs = model(inputs)
    try:
        task.check(outputs, labels)
    except ValueError as error:
        raise ValueError(f"{title}, {flag_name(radius)}: {error}") from None
    broken = int((~outputs.isfinite()).flatten(1).any(dim=1).sum())
    if broken:
        raise finite.NonFiniteError(
            f"{title}, {flag_name(radius)}: the logits of {broken} of {len(outputs)} images are "
            f"not finite; {_LOWER}"
        )
    height, width = inputs.shape[-2:]
    return task.answers(outputs, labels, (height, width))


def check_ball(
    adversarial: Tensor, inputs: Tensor, eps: float, radius: float, *, norm: Norm = "linf"
) -> None:
    """Raise ValueError if an attack left its ball: attacks are not trusted."""
    if norm == "linf":
        distance = (adversarial - inputs).abs().max().item()
    else:  # a sum over all pixels, in which float32 would lose more than ROUNDING
        distance = length(adversarial.double() - inputs.double()).max().item()
    low, high = adversarial.min().item(), adversarial.max().item()
    # No comparison with NaN holds, so this form refuses NaN, too.
    if not (distance <= eps + ROUNDING and low >= -ROUNDING and high <= 1 + ROUNDING):
        raise ValueError(
            f"the attack at eps {fraction(radius, norm)} left its ball: moved by {distance:.6f}, "
            f"pixels in [{low:.4f}, {high:.4f}]; expected at most {eps:.6f} and [0, 1]"
        )
