"""How fast a training was, counted in crop-passes, and how much of its device that used.

A crop-pass is one crop through the encoder, forward and backward.
"""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import rounds
from robustviews.encoder import build_encoder
from robustviews.machine import runtime
from robustviews.regimes import Free, Standard
from robustviews.study import plan

if TYPE_CHECKING:
    from robustviews.study.schema import Study

ROUNDS, WARM_UP = 15, 3  # of matrix products
SIDES = {"cuda": 8192, "cpu": 2048}  # of the matrices


def of_training(study: Study, run: str, record: dict[str, Any], device: str) -> dict[str, Any]:
    """Return how fast a training was, and how much of what its device can do that is.

    Crop-passes are None, and what follows from them, where a regime makes more than one a crop and
    update: a PGD adversary goes through the encoder, too.

    Args:
        study: the study.
        run: name of the training.
        record: of the training.
        device: name of the device on which the matrix rate is measured.
    """
    options, result = study.runs[plan.pretrainings(study)[run].entry], record["result"]
    passes, rate = None, None
    if isinstance(options.regime, Standard | Free):
        passes = result["updates"] * options.batch_size * options.views.count
        rate = passes / record["seconds"]
    classes = result["classes"] if options.method.supervised else None
    flop = crop_pass_flop(record["spec"]["run"]["encoder"], size=result["size"], classes=classes)
    runtime.configure(threads=study.runtime.threads, deterministic=False, tuned=True)
    where = runtime.choose_device(device)
    found = {
        "run": run,
        "device": record["environment"]["device"],
        "precision": options.precision,
        "compilation": result.get("compilation"),
        "seconds": record["seconds"],
        "compile_seconds": result.get("compile_seconds"),
        "resumed": record["resumed"],
        "crop_passes": passes,
        "crop_passes_per_second": rate,
        "gflop_per_crop_pass": flop / 1e9,
        "tflop_per_second": None if rate is None else rate * flop / 1e12,
    }
    here = runtime.environment(where)["device"]
    if rate is None or here != found["device"]:
        return found | {"matrix": None, "share": None}
    matrix = matrix_rate(where)
    share = rate * flop / 1e12 / matrix["tflop_per_second"]
    return found | {"matrix": matrix, "share": share}


def crop_pass_flop(encoder: dict[str, Any], *, size: int, classes: int | None = None) -> float:
    """Count the floating-point operations of one crop, forward and backward, input included.

    Args:
        encoder: options of `build_encoder`.
        size: side of a crop in pixels.
        classes: of a supervised network.
    """
    network = build_encoder(**encoder, classes=classes)
    crops = torch.rand(2, 3, size, size).requires_grad_()  # batch norm wants more than one
    with FlopCounterMode(display=False) as counter:
        network(crops).sum().backward()
    return float(counter.get_total_flops() / len(crops))


def matrix_rate(device: torch.device, precision: str | None = None) -> dict[str, Any]:
    """Measure large matrix products; the median of some.

    Args:
        device: that multiplies.
        precision: `bf16`, `tf32` or `fp32`; by default bf16 on a GPU, fp32 on a CPU.
    """
    side, cuda = SIDES[device.type], device.type == "cuda"
    precision = precision or ("bf16" if cuda else "fp32")
    kind = torch.bfloat16 if precision == "bf16" else torch.float32
    source = torch.Generator(device).manual_seed(0)
    a, b = (torch.randn(side, side, device=device, generator=source).to(kind) for _ in range(2))
    before = torch.backends.cuda.matmul.allow_tf32
    try:
        torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
        seconds = [rounds.once(lambda: a @ b, device) for _ in range(WARM_UP + ROUNDS)]
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before
    rate = 2 * side**3 / statistics.median(seconds[WARM_UP:]) / 1e12
    return {"precision": precision, "side": side, "rounds": ROUNDS, "tflop_per_second": rate}
