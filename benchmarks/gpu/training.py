"""Parts b1-b3: compiling, rounds against the published training, and a profile."""

from __future__ import annotations

import os
import re
import statistics
import time
from typing import Any

import torch

from benchmarks import profile_step, rounds, speed
from benchmarks.gpu.checks import configure
from benchmarks.gpu.reference import PublishedScript, start_up
from benchmarks.gpu.report import PIECE, Report
from benchmarks.gpu.runner import Setting, say
from benchmarks.ours import OurStep
from benchmarks.published import PublishedStep
from benchmarks.recipe import Recipe, random_images
from benchmarks.step import best_precision
from robustviews import artifacts, augment

CACHE = "compile-cache"  # file in the output folder; `--cache` loads it
COMPILE_BAR, RATIO_BAR, IDLE_BAR = 90.0, 8.0, 0.03
ROUNDS, MINIBATCHES, EAGER_MINIBATCHES = 3, 4, 2
RIVAL = "published"
SMALL = Recipe(batch=4, crops=3, size=8, hidden=32, projection=16)
# Kernels by a part of their name, in order; what fits none is `other`.
KERNELS = {
    "factorisation": r"potr|trsm|cholesky|getrf|syrk",
    "convolution": r"conv|wgrad|dgrad|fprop|xmma|nhwc|winograd",
    "matrix product": r"gemm|cutlass|nvjet|matmul|::mm",
    "fused by the compiler": r"triton",
    "optimizer": r"multi_tensor|foreach",
    "batch norm": r"batch_norm|bn_",
    "copy": r"memcpy|memset|copy",
    "elementwise": r"elementwise|reduce|vectorized|relu|aten::",
}


def compiling(setting: Setting, report: Report) -> None:
    """b1: seconds to compile the training step, first and with the cache; the cache itself."""
    configure(setting, deterministic=False)
    for start in ("first start", "second start"):
        torch.compiler.reset()
        step = ours(setting)
        seconds = rounds.once(step, setting.device)
        report.numbers[start] = {
            "outcome": step.compilation,
            "compile_seconds": step.compile_seconds,
            "first turn after it": seconds,
        }
    first = report.numbers["first start"]
    if setting.device.type == "cuda":  # a CPU stays eager
        report.at_most("compile_seconds", first["compile_seconds"], COMPILE_BAR)
        compiled = first["outcome"] == "compiled"
        report.hold("compiles", first["outcome"], "compiled", met=compiled)
    saved = torch.compiler.save_cache_artifacts()
    report.numbers["cache_bytes"] = len(saved[0]) if saved else 0
    if saved and len(saved[0]) <= PIECE:
        artifacts.write_bytes(setting.out / CACHE, saved[0])


def against_published(setting: Setting, report: Report) -> None:
    """b2: rounds in turns: the published training, and ours in each arithmetic."""
    configure(setting, deterministic=False)
    recipe, device, many = _recipe(setting), setting.device, 1 if setting.small else MINIBATCHES
    report.numbers["rival"] = "benchmarks/published.py, which stands in for the script"
    if setting.reference is not None:
        report.numbers["rival"] = "the published script itself"
    rival, best = _rival(setting, many), f"{best_precision(device)} compiled"
    sides: dict[str, rounds.Work] = {RIVAL: rival, best: ours(setting, minibatches=many)}
    updates = {RIVAL: many * recipe.replays, best: many * recipe.replays}
    for precision in ("bf16", "tf32", "fp32") if device.type == "cuda" else ("fp32",):
        name, few = f"{precision} eager", 1 if setting.small else EAGER_MINIBATCHES
        sides[name] = ours(setting, precision=precision, compiled=False, minibatches=few)
        updates[name] = few * recipe.replays
    encoder = {key: getattr(recipe, key) for key in ("width", "hidden", "projection")}
    flop = speed.crop_pass_flop(encoder, size=recipe.size) * recipe.batch * recipe.crops
    peak = speed.matrix_rate(device)["tflop_per_second"]
    sides = {name: _told(name, work) for name, work in sides.items()}
    for seconds in rounds.turns(sides, rounds=2 if setting.small else ROUNDS, device=device):
        if seconds[RIVAL]:
            report.numbers["sides"] = {
                name: row(values, updates[name], tflop=flop / 1e12, peak=peak)
                for name, values in seconds.items()
            }
            report.numbers["ratio"] = rounds.ratio(seconds[RIVAL], seconds[best])
    if isinstance(rival, PublishedScript):
        lost = start_up(rival, seconds[RIVAL], device)
        report.numbers["start-up of workers, s"] = lost
        trained = [value - lost for value in seconds[RIVAL]]
        report.numbers["ratio"] = rounds.ratio(trained, seconds[best])
    ratio = report.numbers["ratio"]["median"]
    if not setting.small:
        report.hold("ratio", ratio, f">= {RATIO_BAR:g}", met=ratio >= RATIO_BAR)


def _told(name: str, work: rounds.Work) -> rounds.Work:
    """Return work that says how long it took, so that a cut part tells which side was slow."""

    def told() -> None:
        start = time.monotonic()
        work()
        say(f"b2: {name}: {time.monotonic() - start:.1f} s")

    return told


def _rival(setting: Setting, minibatches: int) -> PublishedScript | PublishedStep:
    """Return the published script if its folder is given, else what stands in for it."""
    recipe, workers = _recipe(setting), 0 if setting.small else (os.cpu_count() or 1)
    images = random_images(recipe.batch * minibatches, recipe.size)
    if setting.reference is None:
        return PublishedStep(images, recipe, device=setting.device, workers=workers)
    return PublishedScript(
        setting.reference, images, recipe, device=setting.device, workers=workers
    )


def row(seconds: list[float], updates: int, *, tflop: float, peak: float) -> dict[str, Any]:
    """Return what the median of some turns is in milliseconds an update and in TFLOP/s.

    Args:
        seconds: of each turn.
        updates: of a turn.
        tflop: of an update.
        peak: rate of large matrix products, in TFLOP/s.
    """
    update = statistics.median(seconds) / updates
    return {
        "seconds": list(seconds),
        "ms_per_update": 1e3 * update,
        "tflop_per_second": tflop / update,
        "share_of_matrix_rate": tflop / update / peak,
    }


def profiled(setting: Setting, report: Report) -> None:
    """b3: device time of one minibatch by kind of kernel, idle share, and waits of the host."""
    configure(setting, deterministic=False)
    step = ours(setting)
    for _ in range(2):
        rounds.once(step, setting.device)
    profiler = profile_step.profiled(step, setting.device)
    own, averages = profile_step.own_time(setting.device), profiler.key_averages()
    kinds: dict[str, float] = {}
    for row in profile_step.own_rows(averages, setting.device):
        kinds[kind_of(row.key)] = kinds.get(kind_of(row.key), 0.0) + getattr(row, own) * 1e-3
    report.numbers["ms by kind"] = {
        kind: kinds[kind] for kind in sorted(kinds, key=kinds.__getitem__)[::-1]
    }
    report.numbers["ms of the views"] = 1e3 * views_seconds(setting)
    waits = sum(row.count for row in averages if row.key == "cudaStreamSynchronize")
    if setting.device.type == "cuda":
        kernels = profile_step.own_rows(profiler.events(), setting.device)
        spans = [(kernel.time_range.start, kernel.time_range.end) for kernel in kernels]
        report.at_most("idle share", idle(spans), IDLE_BAR)
        report.hold("waits for the stream", waits, "0", met=waits == 0)


def kind_of(name: str) -> str:
    """Return the kind of a kernel, or of an operator on a CPU."""
    return next((kind for kind, text in KERNELS.items() if re.search(text, name, re.I)), "other")


def idle(spans: list[tuple[float, float]]) -> float:
    """Return which share of the time from the first kernel to the last no kernel ran."""
    spans = sorted(spans)
    begin, end, busy = spans[0][0], spans[0][0], 0.0
    for start, stop in spans:
        busy += max(0.0, stop - max(start, end))
        end = max(end, stop)
    return 1 - busy / max(end - begin, 1e-9)


def views_seconds(setting: Setting) -> float:
    """Return the seconds that the views of a minibatch take, alone."""
    recipe = _recipe(setting)
    images = random_images(recipe.batch, recipe.size).to(setting.device)
    counters = torch.arange(recipe.batch, device=setting.device)
    views = augment.Views(count=recipe.crops, augmentation="emp_ssl")

    def make() -> None:
        augment.make_views(images, views, size=recipe.size, key=0, counters=counters)

    return statistics.median(rounds.once(make, setting.device) for _ in range(5))


def ours(
    setting: Setting,
    *,
    precision: str | None = None,
    compiled: bool = True,
    minibatches: int = 1,
) -> OurStep:
    """Return our training step, by default compiled and in the best arithmetic of the device."""
    recipe = _recipe(setting)
    return OurStep(
        random_images(recipe.batch * minibatches, recipe.size),
        recipe,
        device=setting.device,
        precision=precision or best_precision(setting.device),
        compiled=compiled,
    )


def _recipe(setting: Setting) -> Recipe:
    return SMALL if setting.small else Recipe()
