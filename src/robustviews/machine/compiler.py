"""Compilation of the encoder with torch.compile, or the reason why it is not compiled."""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

log = logging.getLogger(__name__)

EAGER_DEVICES = ("cpu",)
BACKEND = "inductor"
REASON = 200  # characters kept of a compiler's error message, which often has thousands
ON_CPU = "eager: on a CPU compiling takes a minute and gains nothing"


@functools.cache
def compiled(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Return a function compiled as one graph, for each shape of its inputs."""
    return torch.compile(function, backend=BACKEND, fullgraph=True, dynamic=False)


class Compilation(NamedTuple):
    """The result of a compilation.

    Attributes:
        outcome: `compiled`, or `eager:` and the reason.
        seconds: duration, including the trial.
    """

    outcome: str
    seconds: float = 0.0


def try_compiled(
    encoder: nn.Module, trial: Callable[[], None], *, backend: str | None = None
) -> Compilation:
    """Compile an encoder in place; if the trial fails, leave the encoder uncompiled.

    Args:
        encoder: network; its buffers are restored and its gradients cleared after the trial.
        trial: uses the encoder as the training does; must not change its parameters.
        backend: backend of torch.compile; None for BACKEND.
    """
    start = time.monotonic()
    buffers = {name: value.clone() for name, value in encoder.named_buffers()}
    outcome = "compiled"
    try:
        encoder.compile(backend=backend or BACKEND)
        trial()
    except torch.OutOfMemoryError:  # without the compiler it would need more
        raise
    except Exception as error:  # any error: training can continue without the compiler
        encoder._compiled_call_impl = None
        torch.compiler.reset()
        reason = " ".join(str(error).split())[:REASON]
        outcome = f"eager: {type(error).__name__}: {reason}"
    with torch.no_grad():
        for name, value in encoder.named_buffers():
            value.copy_(buffers[name])
    encoder.zero_grad(set_to_none=True)
    return Compilation(outcome, time.monotonic() - start)


def report(compilation: Compilation) -> Compilation:
    """Log the result of a compilation, and return it."""
    log.info("encoder=%s compile_seconds=%.1f", *compilation)
    return compilation
