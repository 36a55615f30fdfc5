"""Compilation: the encoder of a training through torch.compile, or the reason why not."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import nn

from robustviews import distributed, runtime
from robustviews.augment import Views
from robustviews.encoder import Encoder
from robustviews.methods import Method, blank_batch
from robustviews.regimes import Regime

log = logging.getLogger(__name__)

EAGER_DEVICES = ("cpu",)
REASON = 200  # characters of what a compiler says when it fails, of often thousands
ON_CPU = "eager: on a CPU compiling takes a minute and gains nothing"
# Seen with torch 2.11: behind such a sum the compiled backward pass gives zeros, without a word.
ON_SEVERAL = "eager: torch.compile drops gradients through a batch norm that sums over ranks"


class Compilation(NamedTuple):
    """What came of it.

    Attributes:
        outcome: `compiled`, or `eager:` and why.
        seconds: that it took, the first minibatch included.
    """

    outcome: str
    seconds: float = 0.0


def compile_encoder(
    encoder: Encoder,
    *,
    method: Method,
    regime: Regime,
    views: Views,
    size: int,
    batch_size: int,
) -> Compilation:
    """Compile the forward pass of an encoder, in place, for a training of these shapes.

    Args:
        encoder: in train mode, on its device, with the precision of the training.
        method: views and loss.
        regime: how a minibatch becomes updates.
        views: how many of each image.
        size: side of the views in pixels.
        batch_size: images in a minibatch.
    """
    device = next(encoder.parameters()).device
    if device.type in EAGER_DEVICES:
        return _said(Compilation(ON_CPU))
    if distributed.ranks() > 1:
        return _said(Compilation(ON_SEVERAL))
    batch = blank_batch(batch_size, views=views.count, size=size, device=device)

    def trial() -> None:
        starts = runtime.generator(device, "compile")
        with runtime.tf32(
            allowed=encoder.precision == "tf32"
        ):  # else it would be compiled once more
            losses, _ = regime.train_batch(encoder, method, batch, None, lambda: None, starts)
        torch.stack(losses).sum().item()  # waits for the device

    return _said(try_compiled(encoder, trial))


def try_compiled(
    encoder: nn.Module, trial: Callable[[], None], *, backend: str = "inductor"
) -> Compilation:
    """Compile an encoder in place; leave it as it was when a trial of it fails.

    Args:
        encoder: its buffers and gradients are put back after the trial.
        trial: uses the encoder as the training will; must not change its parameters.
        backend: of torch.compile.
    """
    start = time.monotonic()
    buffers = {name: value.clone() for name, value in encoder.named_buffers()}
    outcome = "compiled"
    try:
        encoder.compile(backend=backend)
        trial()
    except torch.OutOfMemoryError:  # without the compiler it would want more
        raise
    except Exception as error:  # whatever it is: without the compiler the training can go on
        encoder._compiled_call_impl = None
        torch.compiler.reset()
        reason = " ".join(str(error).split())[:REASON]
        outcome = f"eager: {type(error).__name__}: {reason}"
    with torch.no_grad():
        for name, value in encoder.named_buffers():
            value.copy_(buffers[name])
    encoder.zero_grad(set_to_none=True)
    return Compilation(outcome, time.monotonic() - start)


def _said(compilation: Compilation) -> Compilation:
    log.info("encoder=%s compile_seconds=%.1f", *compilation)
    return compilation
