"""Compilation: the encoder of a training through torch.compile, or the reason why not."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import nn

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


def report(compilation: Compilation) -> Compilation:
    """Log what came of a compilation, and return it."""
    log.info("encoder=%s compile_seconds=%.1f", *compilation)
    return compilation
