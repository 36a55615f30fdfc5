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

import torch
from torch import Tensor, nn

from robustviews import step
from robustviews.augment import Views
from robustviews.encoder import Encoder, build_encoder
from robustviews.estimating import timing
from robustviews.estimating.amounts import About, Answer
from robustviews.evaluate import Classifier
from robustviews.machine import runtime
from robustviews.pretrain import pretrain
from robustviews.probe import OWN_HEAD, LinearProbe
from robustviews.probe.protocol import Training

_CLASSES = 10  # where the number does not matter
_MORE, _MOST = 10, 3000  # growth of the number of epochs, and its limit
_QUICK = 4.0  # seconds that a measurement may take even without time left
_RATE = 1e-6  # learning rate: small, so that training on noise does not diverge


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
    encoder = _encoder(about, classes=about["classes"] or None).to(device)
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
    count, images = about["views"].count, timing.FEW
    try:
        about["method"].check_views(timing.FEW)
        views = min(timing.FEW, count)
    except ValueError:
        views = count
    while views < count:
        yield images, views
        views = min(timing.GROWTH * views, count)
    while images < about["batch_size"]:
        yield images, views
        images = min(timing.GROWTH * images, about["batch_size"])
    yield images, views


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
    return timing.median(times(6)) if took < timing.SHORT else took


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
    encoder = _encoder(about, classes=_classes(about)).to(device).eval()
    largest: int = probe.batch_size or about["batch"]
    tunes = probe.network_updates > 0
    by_epochs = probe.epochs is not None or tunes
    views = about.get("views", Views())
    end = time.monotonic() + seconds

    def fit(images: int, epochs: int) -> float:
        training = Training(
            images=timing.noise(images, about["size"]).to(device),
            labels=(torch.arange(images) % about["classes"]).to(device),
            classes=about["classes"],
            views=views,
            size=about["size"],
            seed=0,
            batch=about["batch"],
            title="calibration",
        )
        variant = probe
        if probe.epochs is not None:
            variant = replace(probe, epochs=epochs)
        if tunes:  # one training, of one update per epoch
            variant = replace(probe, updates=epochs, lr=(_RATE,), weight_decay=(0.0,))
        return timing.seconds_of(lambda: variant.train(encoder, training), device)

    fit(timing.FEW, 1)  # warms up
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
        updates.append((count, _epoch_seconds(several, once, end) if by_epochs else 0.0))
        fixed, slope = timing.line(updates)
        size, one = one_epoch[-1]
        yield {
            "image_seconds": max(0.0, one - fixed - slope * size) / size,
            "update_seconds": fixed + slope * largest,
            "width": encoder.width_of(probe.feature),
            "encoder_bytes": sum(x.nbytes for x in encoder.state_dict().values()) if tunes else 0,
            "work_bytes": _view_bytes(encoder, about) * min(largest * probe.stack, about["batch"]),
        }


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
    encoder = _encoder(about, classes=_classes(about)).to(device).eval()
    probe = OWN_HEAD if about["supervised"] else LinearProbe(feature=about["feature"])
    linear = nn.Linear(encoder.width_of(probe.feature), about["classes"]).to(device)
    classifier = Classifier(encoder, linear, probe).eval()
    forward: timing.Points = []
    both: timing.Points = []
    end = time.monotonic() + seconds

    def gradient(images: Tensor) -> None:
        inputs = images.requires_grad_()
        torch.autograd.grad(classifier(inputs).sum(), inputs)

    with runtime.frozen(classifier):
        view_bytes = _view_bytes(encoder, about)
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


def _view_bytes(encoder: Encoder, about: About) -> float:
    """Return the bytes of a gradient with respect to one view, without weights."""

    def bytes_for(count: int) -> int:
        shape = (count, 3, about["size"], about["size"])
        images = torch.zeros(shape, device=next(encoder.parameters()).device, requires_grad=True)
        with runtime.frozen(encoder):
            activations = step.kept_bytes(lambda: encoder.represent(images, about["feature"]))
        return activations + 4 * images.nbytes  # perturbation, gradient, and their sums

    return (bytes_for(2 * timing.FEW) - bytes_for(timing.FEW)) / timing.FEW


def _classes(about: About) -> int | None:
    return about["classes"] if about["supervised"] else None


def _encoder(about: About, *, classes: int | None) -> Encoder:
    return build_encoder(**asdict(about["encoder"]), classes=classes)
