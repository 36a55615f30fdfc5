"""Measure answers to the questions of an estimate: run the real functions on noise in small sizes.

Sizes grow until one takes long enough for a precise time or equals that of the job. A straight line
then gives the cost per call and per image. Nothing here depends on what is measured, so that a new
method, regime, probe or attack needs no cost model.
"""

from __future__ import annotations

import functools
import itertools
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from statistics import median_high
from typing import Any

import torch
from torch import Tensor, nn

from robustviews import step
from robustviews.augment import Views
from robustviews.encoder import Encoder, build_encoder
from robustviews.estimating import timing
from robustviews.estimating.question import About, Answer
from robustviews.evaluate import Classifier
from robustviews.machine import runtime
from robustviews.pretrain import pretrain
from robustviews.probe import OWN_HEAD, LinearProbe, Probe
from robustviews.probe.dense import DenseProbe
from robustviews.probe.protocol import Training
from robustviews.tasks.classification import CLASSIFICATION
from robustviews.tasks.protocol import Task
from robustviews.tasks.table import TASKS

_CLASSES = 10  # where the number does not matter
_MORE, _MOST = 10, 3000  # growth of the number of epochs, and its limit
_QUICK = 4.0  # seconds that a measurement may take even without time left
_SCENES = 200  # of a data set, at most, that are composed
_RATE = 1e-6  # learning rate: small, so that training on noise does not diverge


def scenes(about: About, device: torch.device, seconds: float) -> Iterator[Answer]:
    """Answer `scenes`: seconds of composing a scene. Arguments as in `training_step`."""
    del device, seconds
    splits, _ = about["dataset"].scenes()
    begun = time.monotonic()
    count = sum(1 for _ in itertools.islice(splits["train"], _SCENES))
    yield {"image_seconds": (time.monotonic() - begun) / count}


def training_step(about: About, device: torch.device, seconds: float) -> Iterator[Answer]:
    """Answer `pretrain`: seconds and bytes of a full minibatch, and bytes of the encoder's file.

    Args:
        about: the question's options.
        device: device to measure.
        seconds: time limit, once there is an answer.

    Yields:
        Answers, each better than the one before.
    """
    step.check_least(
        asdict(about["encoder"]),
        about["views"].count,
        size=about["size"],
        batch_size=about["batch_size"],
        classes=about["classes"] or None,
        device=device,
        title="a minibatch",
    )
    encoder = build_encoder(**asdict(about["encoder"]), classes=about["classes"] or None).to(device)
    full: Views = about["views"]
    full_size = about["batch_size"] * full.count
    points: timing.Points = []
    needed = 0.0
    answer: Answer = {}
    end = time.monotonic() + seconds
    for images, count in _sizes(about):
        took = _minibatch_seconds(encoder, about, images, replace(full, count=count))
        points.append((images * count, took))
        needed = needed or _step_bytes(encoder, about)
        fixed, slope = timing.line(points)
        last = images * count == full_size
        if last or len(points) > 1:  # one size alone cannot separate an update from its crops
            answer = {
                "seconds": fixed + slope * full_size,
                "step_bytes": needed,
                "disk": sum(v.numel() * v.element_size() for v in encoder.state_dict().values()),
            }
            yield answer
        if timing.is_enough(points, end, calls=2):
            break
    if about.get("compile") and answer:
        yield answer | _compiled(encoder, about, images, replace(full, count=count), answer, took)


def _compiled(
    encoder: Encoder, about: About, images: int, views: Views, answer: Answer, eager: float
) -> Answer:
    """Return what compiling takes, and the seconds of a full minibatch that is compiled.

    One size is compiled, the largest that was measured without the compiler: its gain is that of
    the full minibatch.
    """
    compiling: list[float] = []
    took = _minibatch_seconds(encoder, about, images, views, compiling=compiling)
    return {"compiling": compiling[0], "seconds": answer["seconds"] * min(1.0, took / eager)}


def _sizes(about: About) -> Iterator[tuple[int, int]]:
    """Yield pairs (images, views per image) with growing numbers of crops."""
    count = about["views"].count
    try:
        about["method"].check_views(timing.FEW)
        views = min(timing.FEW, count)
    except ValueError:
        views = count
    yield from ((timing.FEW, some) for some in timing.grown(views, count) if some < count)
    yield from ((images, count) for images in timing.grown(timing.FEW, about["batch_size"]))


def _minibatch_seconds(
    encoder: Encoder,
    about: About,
    images: int,
    views: Views,
    *,
    compiling: list[float] | None = None,
) -> float:
    """Train on noise and return the seconds of a minibatch, without the first one.

    If `compiling` is given, the encoder is compiled, and its seconds are appended.
    """

    def times(minibatches: int) -> list[float]:
        device = next(encoder.parameters()).device
        ends: list[float] = []
        count = images * minibatches
        done = pretrain(
            encoder,
            timing.noise(count, about["size"]),
            torch.arange(count) % (about["classes"] or _CLASSES),
            method=about["method"],
            regime=about["regime"],
            views=views,
            size=about["size"],
            epochs=1,
            batch_size=images,
            optimizer=asdict(about["optimizer"]) | {"lr": _RATE},
            precision=about["precision"],
            compiled=compiling is not None,
            watch=lambda _: ends.append(timing.now(device)),
            title="calibration",
        )
        if compiling is not None:
            compiling.append(done.compile_seconds)
        return [after - before for before, after in itertools.pairwise(ends)]

    (took,) = times(2)
    return median_high(times(6)) if took < timing.SHORT else took


def _step_bytes(encoder: Encoder, about: About) -> float:
    return step.step_bytes(
        encoder,
        about["method"],
        about["regime"],
        about["views"],
        size=about["size"],
        batch_size=about["batch_size"],
        precision=about["precision"],
    )


def head(about: About, device: torch.device, seconds: float) -> Iterator[Answer]:
    """Answer `probe`: one-time seconds per image, seconds per update, and bytes during work.

    Arguments as in `training_step`.
    """
    probe = about["probe"]
    encoder, task = _encoder(about).to(device).eval(), _task(about)
    largest: int = probe.batch_size or about["batch"]
    trains = "epochs" in vars(probe) or "updates" in vars(probe)
    views = about.get("views", Views())
    end = time.monotonic() + seconds

    trained: list[nn.Module] = []

    def fit(images: int, epochs: int) -> float:
        kinds = torch.arange(images, device=device) % about["classes"]
        training = Training(
            images=timing.noise(images, about["size"]).to(device),
            labels=timing.labels(task, kinds, about["size"]),
            classes=about["classes"],
            views=views,
            size=about["size"],
            seed=0,
            batch=about["batch"],
            title="calibration",
        )
        variant = _of_length(probe, epochs)
        return timing.seconds_of(
            lambda: trained.append(variant.train(encoder, training)[0]), device
        )

    fit(timing.FEW, 1)  # warms up
    work_bytes = _view_bytes(_classifier(about, device), about)
    work_bytes *= min(largest * probe.stack, about["batch"])
    one_epoch: timing.Points = []
    for images in timing.grown(timing.FEW, largest):
        one_epoch.append((images, fit(images, 1)))
        if timing.is_enough(one_epoch, end - seconds / 2, calls=2):
            break
    updates: timing.Points = []
    # If features take long, the time of updates would be lost in their noise.
    quick = [point for point in one_epoch if point[1] < _QUICK] or one_epoch[:1]
    for count, once in quick[-1:] if quick[-1][0] == largest else quick[-2:]:
        several = functools.partial(fit, int(count))
        updates.append((count, _epoch_seconds(several, once, end) if trains else 0.0))
        fixed, slope = timing.line(updates)
        size, one = one_epoch[-1]
        yield {
            "image_seconds": max(0.0, one - fixed - slope * size) / size,
            "update_seconds": fixed + slope * largest,
            "width": _kept_of_image(encoder, probe, about["size"]),
            "disk": sum(x.nbytes for x in trained[-1].state_dict().values()),
            "work_bytes": work_bytes,
        }


def _of_length(probe: Any, epochs: int) -> Any:  # noqa: ANN401  # of any table
    """Return a probe that trains for so many epochs; or updates, each of all its few images."""
    if "epochs" in vars(probe):
        return replace(probe, epochs=epochs)
    if isinstance(probe, DenseProbe):
        return replace(probe, updates=epochs, lr=_RATE, encoder_lr=_RATE)
    if "updates" in vars(probe):  # one training
        return replace(probe, updates=epochs, lr=(_RATE,), weight_decay=(0.0,))
    return probe


def _kept_of_image(encoder: Encoder, probe: Probe, size: int) -> int:
    """Return how many numbers a probe computes of a training image once, and keeps."""
    if not isinstance(probe, DenseProbe):
        return encoder.width_of(probe.feature)
    if probe.tuned or probe.flip:
        return 0
    with torch.no_grad():
        maps = encoder.maps(torch.zeros(1, 3, size, size, device=next(encoder.parameters()).device))
    return sum(level.numel() for level in maps.levels)


def _epoch_seconds(fit: Callable[[int], float], one: float, end: float) -> float:
    """Return the seconds of an epoch without one-time work, from enough epochs to be precise.

    Args:
        fit: maps a number of epochs to their seconds, including one-time work.
        one: seconds of one epoch, including one-time work.
        end: time limit, on the clock `time.monotonic`.
    """
    epochs, took = 3, fit(3)
    while took - one < max(one, timing.ENOUGH) and epochs < _MOST:
        if one + _MORE * max(0.0, took - one) > max(2 * _QUICK, end - time.monotonic()):
            break
        epochs *= _MORE
        took = fit(epochs)
    return (took - one) / (epochs - 1) if took > one else took / epochs  # noise: an upper bound


def network(about: About, device: torch.device, seconds: float) -> Iterator[Answer]:
    """Answer `network`: seconds of a classifier's passes per call and per view, bytes per view.

    Arguments as in `training_step`.
    """
    classifier = _classifier(about, device)
    forward: timing.Points = []
    both: timing.Points = []
    end = time.monotonic() + seconds

    def gradient(images: Tensor) -> None:
        inputs = images.requires_grad_()
        torch.autograd.grad(classifier(inputs).sum(), inputs)

    with runtime.frozen(classifier):
        view_bytes = _view_bytes(classifier, about)
        for count in timing.grown(timing.FEW, about["batch"]):
            images = torch.rand(count, 3, about["size"], about["size"], device=device)
            if not both:
                gradient(images)  # warms up
            with torch.no_grad():
                forward.append((count, timing.seconds_of(lambda x=images: classifier(x), device)))  # type: ignore[misc]
            both.append((count, timing.seconds_of(lambda x=images: gradient(x), device)))  # type: ignore[misc]
            (call, view), (call_both, view_both) = timing.line(forward), timing.line(both)
            yield {
                "forward_call_seconds": call,
                "forward_image_seconds": view,
                "backward_call_seconds": max(0.0, call_both - call),
                "backward_image_seconds": max(0.0, view_both - view),
                "view_bytes": view_bytes,
            }
            if timing.is_enough(both, end, calls=2):
                break


def _classifier(about: About, device: torch.device) -> Classifier:
    """Return an encoder with a head as it is attacked, in eval mode."""
    encoder, task = _encoder(about), _task(about)
    if task is not CLASSIFICATION:
        head = task.head(encoder.backbone.channels, about["classes"])
        return Classifier(encoder, head, DenseProbe()).to(device).eval()
    probe = OWN_HEAD if about["supervised"] else LinearProbe(feature=about["feature"])
    linear = nn.Linear(encoder.width_of(probe.feature), about["classes"])
    return Classifier(encoder, linear, probe).to(device).eval()


def _task(about: About) -> Task:
    return TASKS[about.get("task", CLASSIFICATION.name)]


def _view_bytes(classifier: Classifier, about: About) -> float:
    """Return the bytes of the gradient of a loss with respect to one view, without weights."""
    device, size, task = next(classifier.parameters()).device, about["size"], _task(about)

    def bytes_for(count: int) -> int:
        images = torch.zeros(count, 3, size, size, device=device, requires_grad=True)
        labels = timing.labels(task, torch.zeros(count, dtype=torch.int64, device=device), size)
        outputs = classifier(images).detach()
        with runtime.frozen(classifier):
            activations = step.kept_bytes(
                lambda: task.loss(classifier(images), labels, None, (size, size))
            )
        # Perturbation, gradient, and their sums; outputs and their gradient
        pixels, answers = int(images.nbytes), int(outputs.nbytes)
        return activations + 4 * pixels + 2 * answers

    return (bytes_for(2 * timing.FEW) - bytes_for(timing.FEW)) / timing.FEW


def _encoder(about: About) -> Encoder:
    classes = about["classes"] if about.get("supervised") else None
    return build_encoder(**asdict(about["encoder"]), classes=classes)
