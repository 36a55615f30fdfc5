"""One training step: its minibatch, how much memory it takes, and whether it compiles."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from robustviews import augment
from robustviews.augment import Views
from robustviews.encoder import Encoder, build_encoder
from robustviews.machine import compiler, distributed, humanize, memory, runtime
from robustviews.machine.batchnorm import exclude_from_graphs
from robustviews.methods import Batch, Method, divide
from robustviews.network import Network, build_network
from robustviews.regimes import Regime, attack_mode

SMALLER_STEP = (
    "lower batch_size or views.count, or use precision: bf16; micro-batches would not help: batch "
    "norm and the losses need the whole minibatch, so the result would be another method"
)
_WEIGHT_COPIES = 4  # weights, gradients, and two copies of the optimizer
_ADVERSARY_COPIES = 3  # of the target: perturbation, its gradient, their sum with the images


def blank_batch(count: int, *, views: int, size: int, device: torch.device) -> Batch:
    """Return a minibatch of black images with the right shapes, to try a step.

    Args:
        count: number of images.
        views: views per image.
        size: side of the views in pixels.
        device: device of the minibatch.
    """
    return Batch(
        images=torch.zeros(count, 3, size, size, device=device),
        views=torch.zeros(views, count, 3, size, size, device=device),
        labels=torch.zeros(count, dtype=torch.int64, device=device),
    )


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
    compiled: bool = False,
) -> Batch:
    """Make the views of a minibatch.

    Args:
        images: (B, 3, H, W) uint8.
        labels: (B,) int64.
        indices: (B,) int64, on the device of the images; their positions in the training set.
        views: how views are drawn.
        size: side of the views in pixels.
        seed: seed of the training.
        epoch: pass over the data; seed, epoch and index decide the views of an image.
        only: numbers of the views to make; None makes all.
        compiled: whether to compile the colour changes of large views.
    """
    made = augment.make_views(
        images,
        views,
        size=size,
        key=runtime.counter_key(seed, "views", epoch),
        counters=indices,
        only=slice(only.start, only.stop) if only else slice(None),
        compiled=compiled and size >= augment.LARGE,
    )
    return Batch(images=augment.to_float(images, size), views=made, labels=labels)


def step_bytes(
    encoder: Encoder,
    method: Method,
    regime: Regime,
    views: Views,
    *,
    size: int,
    batch_size: int,
    precision: str,
) -> int:
    """Return the memory that a training step takes at its peak, in bytes.

    Activations are measured, not modelled: the loss of two and of four images is computed, and the
    memory kept for the backward pass is extrapolated to the minibatch. This changes neither the
    network nor any random state. The workspace of convolutions is not included. In distributed
    training it is the memory of one rank.

    Args:
        encoder: network on its device.
        method: views and loss.
        regime: how a minibatch becomes updates.
        views: number of views per image.
        size: side of the views in pixels.
        batch_size: images in a minibatch.
        precision: precision of the encoder's arithmetic in training.
    """
    device, ranks = next(encoder.parameters()).device, distributed.ranks()
    share = divide(method, views=views.count, batch_size=batch_size, ranks=ranks)[0]
    net = build_network(encoder, method)
    kept = {}
    for count in (2, 4):
        batch = blank_batch(count, views=len(share.views), size=size, device=device)
        kept[count] = _loss_bytes(net, method, batch, precision=precision)
    images = len(share.images)
    activations = kept[2] + (kept[4] - kept[2]) / 2 * (images - 2)
    pixels = _bytes_of(batch.images, batch.views)
    if regime.adversarial:
        pixels += _ADVERSARY_COPIES * _bytes_of(method.target(batch))
    weights = _WEIGHT_COPIES * _bytes_of(*net.parameters())
    weights += _bytes_of(*net.teacher.parameters(), *net.state.values())
    return round(weights + activations + pixels / len(batch.images) * images)


def kept_bytes(work: Callable[[], object], *, excluding: Iterable[Tensor] = ()) -> int:
    """Return the bytes that are kept for the backward pass of a computation.

    Args:
        work: the computation; returns the start of its backward pass.
        excluding: tensors that do not count.
    """
    excluded = {_address(value) for value in excluding}
    kept: dict[int, int] = {}

    def keep(value: Tensor) -> Tensor:
        if _address(value) not in excluded:
            kept[_address(value)] = value.untyped_storage().nbytes()
        return value.detach()  # without the graph, which would keep itself alive

    with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(keep, lambda value: value):
        result = work()
        del result  # only now: kept tensors are distinguished by their addresses
    return sum(kept.values())


def check_step(needed: int, encoder: Encoder, *, title: str) -> None:
    """Refuse a training whose steps need more memory than is available.

    Args:
        needed: bytes, from `step_bytes`.
        encoder: network on its device; the memory of its weights counts as available.
        title: title of the training.

    Raises:
        ShortageError: less memory is available.
    """
    device = next(encoder.parameters()).device
    left = memory.available(device) + _bytes_of(*encoder.parameters())
    if needed > left:
        raise memory.ShortageError(
            f"{title}: a training step needs {humanize.size(needed)}, {device} has "
            f"{humanize.size(left)} available; {SMALLER_STEP}"
        )


def check_least(
    encoder: Mapping[str, Any],
    views: int,
    *,
    size: int,
    batch_size: int,
    classes: int | None,
    device: torch.device,
    title: str,
) -> None:
    """Refuse a training whose weights and pixels alone exceed the memory, before any is taken.

    Args:
        encoder: arguments of `build_encoder`.
        views: views per image.
        size: side of the views in pixels.
        batch_size: images in a minibatch of this rank.
        classes: of a supervised network; else None.
        device: device of the training.
        title: title of the training.

    Raises:
        ShortageError: less memory is available.
    """
    try:
        with torch.device("meta"):  # counts, and allocates nothing
            parameters = build_encoder(**encoder, classes=classes).parameters()
        weights = float(_WEIGHT_COPIES * _bytes_of(*parameters))
    except RuntimeError:  # more than torch can count
        weights = math.inf
    pixels = 3 * size**2 * batch_size * views * torch.float32.itemsize
    left = memory.available(device)
    if weights + pixels > left:
        fix = SMALLER_STEP if pixels > weights else "lower encoder.width, hidden or projection"
        parts = f"weights {_shown(weights)}, pixels {_shown(pixels)}"
        raise memory.ShortageError(
            f"{title}: a training step needs more than {device} has available, "
            f"{humanize.size(left)}: {parts}; {fix}"
        )


def _shown(count: float) -> str:
    return humanize.size(round(count)) if math.isfinite(count) else "beyond counting"


def _loss_bytes(net: Network, method: Method, batch: Batch, *, precision: str) -> int:
    """Return the bytes that the backward pass of a loss needs besides weights and inputs."""
    encoder = net.encoder
    target = method.target(batch).detach().requires_grad_()
    training, previous_precision = encoder.training, encoder.precision
    devices = [target.device] if target.is_cuda else []
    try:
        net.train()
        encoder.precision = precision
        with attack_mode(net, "frozen"), torch.random.fork_rng(devices), runtime.untuned():
            return kept_bytes(
                lambda: method.train_loss(net, batch, target),
                excluding=(*net.parameters(), *batch),
            )
    finally:
        encoder.train(training)
        encoder.precision = previous_precision


def _address(value: Tensor) -> int:
    return value.untyped_storage().data_ptr()


def _bytes_of(*tensors: Tensor) -> int:
    return sum(tensor.nbytes for tensor in tensors)


def compile_encoder(
    net: Network,
    *,
    method: Method,
    regime: Regime,
    views: Views,
    size: int,
    batch_size: int,
) -> compiler.Compilation:
    """Compile the forward pass of an encoder, in place, for a training with these shapes.

    Heads and teacher run as they are. The trial leaves their statistics as they were. The colour
    changes of large views are compiled, too, for `augment.make_views`.

    Args:
        net: network in train mode, on its device, with the precision of the training.
        method: views and loss.
        regime: how a minibatch becomes updates.
        views: number of views per image.
        size: side of the views in pixels.
        batch_size: images in a minibatch.
    """
    encoder, device = net.encoder, next(net.parameters()).device
    if device.type in compiler.EAGER_DEVICES:
        return compiler.report(compiler.Compilation(compiler.ON_CPU))
    exclude_from_graphs(encoder)
    batch = blank_batch(batch_size, views=views.count, size=size, device=device)
    counters = torch.arange(batch_size, device=device)

    def trial() -> None:
        if size >= augment.LARGE:
            for compiled in (False, True):  # first imports what the compiler cannot trace
                augment.make_views(
                    batch.images, views, size=size, key=0, counters=counters, compiled=compiled
                )
        starts = runtime.generator(device, "compile")
        exact = runtime.tf32(allowed=encoder.precision == "tf32")  # or the training would recompile
        with exact, attack_mode(net, "frozen"), attack_mode(net.teacher, "frozen"):
            losses, _ = regime.train_batch(net, method, batch, None, lambda: None, starts)
        net.zero_grad(set_to_none=True)
        torch.stack(losses).sum().item()  # waits for the device

    return compiler.report(compiler.try_compiled(encoder, trial))
