"""Where and how arithmetic runs: device, precision, determinism, reproducible random numbers.

Random numbers are hashes of counters, not states of a generator: a draw depends only on its purpose
(seed, name, epoch, image). It is the same on every device, in every batch order, and after an
interrupted training is resumed.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

_MIX_1 = 0xBF58476D1CE4E5B9 - (1 << 64)  # as signed 64-bit, since torch multiplies modulo 2^64
_MIX_2 = 0x94D049BB133111EB - (1 << 64)
_GOLDEN = 0x9E3779B97F4A7C15 - (1 << 64)

# Environment variables by which libraries choose other kernels or another precision.
_VARIABLES = (
    "ATEN_CPU_CAPABILITY",
    "CUBLAS_WORKSPACE_CONFIG",
    "MKL_CBWR",
    "MKL_ENABLE_INSTRUCTIONS",
    "NVIDIA_TF32_OVERRIDE",
    "ONEDNN_DEFAULT_FPMATH_MODE",
    "ONEDNN_MAX_CPU_ISA",
)
# Parts of an environment that decide the bytes of a result, beside packages and variables.
_DECISIVE = ["device", "cpu_capability", "cuda", "cudnn", "torch"]
_DECISIVE += ["threads", "ranks", "deterministic", "tuned"]


def counter_key(*parts: int | str) -> int:
    """Make the key of a stream of random numbers from its purpose.

    Args:
        parts: such as (seed, "views", epoch); other parts give an unrelated stream.

    Returns:
        A signed 64-bit integer.
    """
    text = "\x1f".join(f"{type(part).__name__}:{part}" for part in parts)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little", signed=True)


def counter_uniform(key: int, counters: Tensor, draws: int) -> Tensor:
    """Draw uniform numbers that depend only on a key and a counter.

    Args:
        key: key of the stream, from `counter_key`.
        counters: (N,) int64, for example image indices; any device.
        draws: numbers per counter.

    Returns:
        (N, draws) float32 in [0, 1), on the device of `counters`.

    Source: the finaliser of SplitMix64 (Steele, Lea, Flood 2014), applied twice.
    """
    steps = torch.arange(1, draws + 1, device=counters.device, dtype=torch.int64)
    state = _mix(counters * _GOLDEN + key).unsqueeze(1) + steps * _GOLDEN  # (N, draws)
    bits = _shift_right(_mix(state), 40)  # the 24 upper bits: exact in float32
    return bits.to(torch.float32) * 2.0**-24


def _mix(state: Tensor) -> Tensor:
    state = (state ^ _shift_right(state, 30)) * _MIX_1
    state = (state ^ _shift_right(state, 27)) * _MIX_2
    return state ^ _shift_right(state, 31)


def _shift_right(state: Tensor, bits: int) -> Tensor:
    """Shift as if unsigned: torch's own shift would copy the sign bit."""
    return (state >> bits) & ((1 << (64 - bits)) - 1)


def generator(device: torch.device | str, *parts: int | str) -> torch.Generator:
    """Make a generator whose state depends only on its purpose.

    Args:
        device: device of the generator.
        parts: as in `counter_key`.
    """
    return torch.Generator(device).manual_seed(_positive(counter_key(*parts)))


@contextlib.contextmanager
def seeded(*parts: int | str) -> Iterator[None]:
    """Seed torch's global CPU generator inside a block by a purpose; afterwards it is as before.

    Args:
        parts: as in `counter_key`.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_positive(counter_key(*parts)))
        yield


def _positive(key: int) -> int:
    """Return a key without its sign, as generators take it."""
    return key & (2**63 - 1)


def attack_seed(*parts: int | str) -> int:
    """Return a seed that depends only on its purpose, in the 31 bits that AutoAttack takes."""
    return counter_key(*parts) & 0x7FFFFFFF


def permutation(count: int, *parts: int | str) -> Tensor:
    """Return a random order of range(count) that depends only on `parts`: (count,) int64, CPU."""
    return torch.randperm(count, generator=generator("cpu", *parts))


def choose_device(name: str) -> torch.device:
    """Turn `auto`, `cpu`, `cuda` or `cuda:1` into a device.

    Raises:
        ValueError: the device does not exist, or is of another kind.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    kind, _, number = name.partition(":")
    if kind not in ("cpu", "cuda") or (":" in name and not number.isdecimal()):
        raise ValueError(f"--device {name}: expected auto, cpu, cuda, or cuda:1 for the second GPU")
    count = torch.cuda.device_count()
    if kind == "cuda" and int(number or 0) >= count:
        raise ValueError(f"--device {name}: torch sees {count} CUDA devices here; use --device cpu")
    return torch.device(name)


def configure(*, threads: int, deterministic: bool, tuned: bool = False) -> None:
    """Configure threads and determinism of this process.

    Args:
        threads: CPU threads.
        deterministic: whether only reproducible operations are allowed.
        tuned: whether cuDNN may benchmark algorithms for each shape; useful only if shapes repeat.
            A deterministic process never does it.
    """
    torch.set_num_threads(threads)
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    # Same as use_deterministic_algorithms, which first imports torch's compiler for seconds.
    torch.set_deterministic_debug_mode("error" if deterministic else "default")
    # No operation here reads uninitialised memory; filling it took 7 % of a step.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cudnn.benchmark = tuned and not deterministic
    # fp32 is fp32, also in convolutions. Not the newer `fp32_precision`: reading these two, as the
    # compiler does, would then raise.
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False


def autocast(precision: str, device: torch.device) -> contextlib.AbstractContextManager[Any]:
    """Return the context an encoder runs in: bf16 matrix products for `bf16`, otherwise none."""
    if precision == "bf16":
        return torch.autocast(device.type, dtype=torch.bfloat16)
    return contextlib.nullcontext()


@contextlib.contextmanager
def tf32(allowed: bool) -> Iterator[None]:
    """Allow or forbid CUDA to round factors of float32 convolutions to TF32 inside a block.

    Matrix products, as in losses and views, are never rounded: these are torch's defaults, with
    which the reference code ran. The backward pass must be inside the block as well. On a CPU
    nothing changes.
    """
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32
    matmul.allow_tf32, cudnn.allow_tf32 = False, allowed
    try:
        yield
    finally:
        matmul.allow_tf32, cudnn.allow_tf32 = before


@contextlib.contextmanager
def untuned() -> Iterator[None]:
    """Let cuDNN benchmark no algorithms inside a block, for shapes that are computed once."""
    before, torch.backends.cudnn.benchmark = torch.backends.cudnn.benchmark, False
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before


def widen(x: Tensor) -> Tensor:
    """Return x in float32; float64 stays float64."""
    return x if x.dtype == torch.float64 else x.float()


def native_bf16(device: torch.device) -> bool:
    """Return whether a device multiplies bf16 in hardware; without it, fp32 is faster."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    cpu = torch.cpu
    return bool(cpu._is_avx512_bf16_supported() or cpu._is_amx_tile_supported())


def environment(device: torch.device) -> dict[str, Any]:
    """Describe the software and hardware of a computation, for its record."""
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "device": _device_name(device),
        "cuda": torch.version.cuda if device.type == "cuda" else None,
        "driver": _driver_version() if device.type == "cuda" else None,
        "cudnn": torch.backends.cudnn.version() if device.type == "cuda" else None,
        "tuned": torch.backends.cudnn.benchmark,
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "variables": {name: os.environ[name] for name in _VARIABLES if name in os.environ},
        "platform": platform.platform(),
    }


def decisive(environment: dict[str, Any]) -> dict[str, Any]:
    """Return what decides the bytes of a result, of a recorded environment: one value per name."""
    parts = {name: environment[name] for name in _DECISIVE if name in environment}
    return {**environment.get("packages", {}), **parts, **environment.get("variables", {})}


def peak_bytes(device: torch.device) -> int | None:
    """Return the most memory of a GPU that this process has held; None on a CPU."""
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return f"cuda: {torch.cuda.get_device_name(device)}"
    return f"cpu: {_cpu_name()}"


def _driver_version() -> str | None:
    with contextlib.suppress(OSError):
        text = Path("/proc/driver/nvidia/version").read_text(encoding="utf-8")
        match = re.search(r"Kernel Module.*?\s([0-9]+(?:\.[0-9]+)+)", text)
        return match[1] if match else None
    return None


def _cpu_name() -> str:
    with contextlib.suppress(OSError), Path("/proc/cpuinfo").open(encoding="utf-8") as lines:
        for line in lines:
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


class ProgressBar:
    """A progress bar with rate and time left; silent if stderr is not a terminal."""

    def __init__(self, total: int, unit: str, title: str) -> None:
        self.total, self.unit, self.title = total, unit, title
        self._start = self._shown = time.monotonic()
        self._first = 0
        self._live = sys.stderr.isatty()

    def begin_at(self, done: int) -> None:
        """Exclude work of an earlier process from the rate."""
        self._first = done

    def show(self, done: int) -> None:
        """Redraw at most ten times a second."""
        now = time.monotonic()
        if not self._live or (now - self._shown < 0.1 and done < self.total):
            return
        self._shown = now
        rate = (done - self._first) / max(now - self._start, 1e-9)
        left = (self.total - done) / rate if rate else float("inf")
        filled = int(24 * done / max(self.total, 1))
        bar = "#" * filled + "." * (24 - filled)
        speed = f"{rate:.0f} {self.unit}/s {_clock(left)} left"
        end = "\n" if done >= self.total else "  "
        sys.stderr.write(f"\r{self.title} [{bar}] {done}/{self.total} {speed}{end}")
        sys.stderr.flush()


def _clock(seconds: float) -> str:
    if seconds == float("inf"):
        return "?"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


@contextlib.contextmanager
def frozen(module: torch.nn.Module) -> Iterator[None]:
    """Compute no gradients of a module's parameters inside a block; existing ones stay."""
    flags = [parameter.requires_grad for parameter in module.parameters()]
    module.requires_grad_(False)
    try:
        yield
    finally:
        for parameter, flag in zip(module.parameters(), flags, strict=True):
            parameter.requires_grad_(flag)
