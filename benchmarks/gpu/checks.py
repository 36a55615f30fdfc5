"""Parts a0-a3: the machine; whether the GPU computes what the CPU does; bit-exact resumption."""

from __future__ import annotations

import contextlib
import dataclasses
import statistics
import tempfile
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks import rounds, speed
from benchmarks.gpu import studies
from benchmarks.gpu.report import Report
from benchmarks.gpu.runner import Setting
from benchmarks.recipe import random_images
from robustviews import augment, losses, pretrain, stages, step
from robustviews.attacks import AutoAttack, PgdAttack
from robustviews.augment import Views
from robustviews.datasets import Digits
from robustviews.encoder import build_encoder
from robustviews.machine import runtime
from robustviews.methods import METHODS, Batch, EmpSsl, Method
from robustviews.network import build_network
from robustviews.optim import build_optimizer
from robustviews.probe import OWN_HEAD, LinearProbe, NcropProbe
from robustviews.regimes import REGIMES, Free, Regime
from robustviews.study.schema import Optimizer

CPU = torch.device("cpu")
OPTIMIZER = dataclasses.asdict(Optimizer(schedule_horizon="updates"))
CLASSES = 10
# What float32 and float64 may differ by between devices that add in another order.
VIEWS_BAR, EXACT_BAR, STEP_BAR = 3e-6, 1e-9, 1e-4
COPIED = {"cuda": 2**30, "cpu": 2**26}  # bytes
COPIES = 20
MINIBATCHES, CUT = 10, 5  # of two updates each


def machine(setting: Setting, report: Report) -> None:
    """a0: versions, copy rate, and rates of large matrix products."""
    configure(setting, deterministic=False)
    report.numbers["environment"] = runtime.environment(setting.device)
    report.numbers["copy_tb_per_second"] = copy_rate(setting.device)
    for precision in ("bf16", "tf32", "fp32") if setting.device.type == "cuda" else ("fp32",):
        rate = speed.matrix_rate(setting.device, precision)["tflop_per_second"]
        report.numbers[f"{precision}_tflop_per_second"] = rate


def copy_rate(device: torch.device) -> float:
    """Return the rate of a copy within a device in TB/s, bytes read plus bytes written."""
    source = torch.zeros(COPIED[device.type], dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    seconds = [rounds.once(lambda: target.copy_(source), device) for _ in range(COPIES)]
    return 2 * source.numel() / statistics.median(seconds) / 1e12


def agreement(setting: Setting, report: Report) -> None:
    """a1: the device computes what the CPU computes; every rule of a small study works on it."""
    configure(setting, deterministic=True)
    cases: dict[str, tuple[Callable[[torch.device], list[Tensor]], float]] = {
        "views": (random_views, VIEWS_BAR),
        "losses, gradients in fp64": (losses_of, EXACT_BAR),
    }
    for kind, method in METHODS.items():
        for name, regime in REGIMES.items():
            width = 4 if setting.small else 16
            exact = one_minibatch(method(), regime(), width=width, dtype=torch.float64)
            cases[f"{kind}, {name}, fp64"] = exact, EXACT_BAR
            if name == "standard":  # an attack takes signs, which rounding to float32 decides
                work = one_minibatch(method(), regime(), width=width, dtype=torch.float32)
                cases[f"{kind}, {name}"] = work, STEP_BAR
    with report.trying("PGD-20"):
        compare_flags(setting, report)
    with (
        report.trying("small study"),
        tempfile.TemporaryDirectory() as folder,
        contextlib.chdir(folder),
    ):
        done = [studies.do(job, studies.SMALL, setting) for job in studies.jobs(studies.SMALL)]
        report.numbers["jobs of the small study"] = len(done)
    with runtime.tf32(allowed=False):
        for name, (work, bar) in cases.items():
            with report.trying(name):
                report.at_most(name, apart(work, setting.device), bar)


def apart(work: Callable[[torch.device], list[Tensor]], device: torch.device) -> float:
    """Return the largest difference of a result between a device and the CPU.

    Values below 1 count by their absolute difference, others by the relative one.
    """
    pairs = zip(work(device), work(CPU), strict=True)
    found = [((ours.to(CPU) - cpu).abs() / cpu.abs().clamp(min=1)).max() for ours, cpu in pairs]
    return float(torch.stack(found).max())


def random_views(device: torch.device) -> list[Tensor]:
    """Return four views of 64 images of noise."""
    images, counters = random_images(64, 32).to(device), torch.arange(64, device=device)
    views = Views(count=4, augmentation="emp_ssl")
    return [augment.make_views(images, views, size=32, key=1, counters=counters)]


def losses_of(device: torch.device) -> list[Tensor]:
    """Return each loss of random unit vectors (V, B, D) in float64, and its gradient."""
    drawn = torch.randn(2, 16, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    results: list[Tensor] = []
    kinds: tuple[Callable[[Tensor], Tensor], ...] = (
        partial(losses.nt_xent, temperature=0.07),
        partial(losses.invariance, kind="cosine"),
        partial(losses.invariance, kind="trace"),
        partial(losses.total_coding_rate, eps=0.2),
    )
    for loss in kinds:
        z = torch.nn.functional.normalize(drawn, dim=-1).to(device).requires_grad_()
        value = loss(z)
        value.backward()
        assert z.grad is not None
        results += [value.detach(), z.grad]
    return results


def one_minibatch(
    method: Method, regime: Regime, *, width: int, dtype: torch.dtype
) -> Callable[[torch.device], list[Tensor]]:
    """Return what trains a new encoder on one minibatch: losses, and norms of all weights."""
    count = fewest_views(method)
    images, labels = random_images(8, 16), torch.arange(8) % CLASSES
    batch = step.make_batch(
        images, labels, torch.arange(8), views=Views(count=count), size=16, seed=0, epoch=0
    )

    def train(device: torch.device) -> list[Tensor]:
        classes = CLASSES if method.supervised else None
        encoder = build_encoder(width=width, hidden=64, projection=32, classes=classes)
        net = build_network(encoder.to(device, dtype), method).train()
        options = {key: OPTIMIZER[key] for key in ("name", "lr", "momentum", "weight_decay", "eta")}
        optimizer = build_optimizer(net, **options)
        moved = Batch(*(tensor.to(device) for tensor in batch))
        moved = moved._replace(views=moved.views.to(dtype))
        starts = runtime.generator(device, "delta")
        found, _ = regime.train_batch(net, method, moved, None, optimizer.step, starts)
        norms = torch.stack([value.detach().norm() for value in net.parameters()])
        return [torch.stack(found), norms]

    return train


def fewest_views(method: Method) -> int:
    """Return the smallest number of views that a method accepts."""
    for count in (1, 2):
        with contextlib.suppress(ValueError):
            method.check_views(count)
            return count
    raise AssertionError(method)


def pgd_on_digits() -> Callable[[torch.device], dict[str, Tensor]]:
    """Return what computes the flags of PGD-20 on 64 digits, for a network that the CPU trains."""
    arrays: dict[str, Any] = {}

    def create(name: str, shape: tuple[int, ...], dtype: type[np.generic]) -> Any:  # noqa: ANN401
        return arrays.setdefault(name, np.zeros(shape, dtype))

    shape = stages.prepare(Digits(size=16, test=997), create)
    sizes = {key: shape[key] for key in ("classes", "size")}
    encoder = {"width": 4, "hidden": 64, "projection": 32}
    network = stages.pretrain(
        *(torch.from_numpy(arrays[f"train_{name}"]) for name in ("images", "labels")),
        **sizes,
        encoder=encoder,
        method=METHODS["supervised"](),
        regime=REGIMES["standard"](),
        views=Views(count=1, crop="none", augmentation="geometry"),
        optimizer={**OPTIMIZER, "name": "adam", "lr": 0.01},
        epochs=2,
        batch_size=20,
        device=CPU,
    )
    images, labels = (
        torch.from_numpy(arrays[f"test_{name}"][:64]) for name in ("images", "labels")
    )
    return lambda device: stages.attack(
        network.weights,
        None,
        images,
        labels,
        **sizes,
        encoder=encoder,
        supervised=True,
        probe=OWN_HEAD,
        attack=PgdAttack(eps=(2.0, 4.0, 8.0), steps=20),
        views=Views(count=1),
        device=device,
    )


def compare_flags(setting: Setting, report: Report) -> None:
    """Require that PGD-20 succeeds on the same images on the device and on the CPU."""
    attacked = pgd_on_digits()
    expected, found = attacked(CPU), attacked(setting.device)
    names = [name for name in expected if name not in ("index", "labels")]
    wrong = sum(int((found[name] != expected[name]).sum()) for name in names)
    report.hold("PGD-20 flags that differ", wrong, "0", met=wrong == 0)
    report.numbers["right under PGD-20"] = {name: int(expected[name].sum()) for name in names}


def attacks(setting: Setting, report: Report) -> None:
    """a2: every attack and the resizing run under algorithms that must be deterministic."""
    configure(setting, deterministic=True)
    names = ("apgd-ce", "apgd-t", "fab-t", "square")
    short: dict[str, Any] = {"eps": (8.0,), "version": "custom", "apgd_steps": 5, "fab_steps": 5}
    attack: Callable[..., AutoAttack] = partial(AutoAttack, **short, square_queries=5)
    cases: dict[str, Callable[[], object]] = {
        name: _attacked(setting, attack(attacks=(name,))) for name in names
    }
    cases["n-crop PGD"] = _attacked(setting, PgdAttack(eps=(8.0,), steps=3), NcropProbe(n=2))
    cases["resizing"] = lambda: augment.to_float(random_images(8, 24).to(setting.device), 32)
    for name, case in cases.items():
        with report.trying(name):
            case()
            report.hold(name, "ran", "no error", met=True)


def _attacked(
    setting: Setting, attack: AutoAttack | PgdAttack, probe: LinearProbe | NcropProbe | None = None
) -> Callable[[], object]:
    """Return what attacks a random head of a random encoder on eight images, all classified right.

    AutoAttack leaves images alone that are misclassified anyway.
    """
    size = 8 if setting.small else 32
    options: dict[str, Any] = {"width": 4, "hidden": 64, "projection": 32}
    images, encoder = random_images(8, size), build_encoder(**options).eval()
    weight = torch.randn(CLASSES, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        labels = (encoder.represent(augment.to_float(images, size)) @ weight.T).argmax(dim=1)

    def work() -> object:
        return stages.attack(
            encoder.state_dict(),
            {"weight": weight, "bias": torch.zeros(CLASSES)},
            images,
            labels,
            classes=CLASSES,
            size=size,
            encoder=options,
            supervised=False,
            probe=probe or LinearProbe(),
            attack=attack,
            views=Views(),
            device=setting.device,
        )

    return work


def resumption(setting: Setting, report: Report) -> None:
    """a3: 20 updates give the same bytes twice, and when they resume after the tenth."""
    configure(setting, deterministic=True)
    for name, compiled in (("eager", False), ("compiled", True)):
        with report.trying(name):
            memory = Memory(at=CUT)
            weights, outcome = trained(setting, compiled=compiled)
            report.numbers[name] = outcome
            if setting.device.type == "cuda":  # a CPU stays eager
                report.hold(f"{name}, outcome", outcome, name, met=outcome == name)
            again, _ = trained(setting, compiled=compiled, memory=memory)
            hold_equal(report, f"{name}, twice", weights, again)
            resumed, _ = trained(setting, compiled=compiled, memory=memory)
            hold_equal(report, f"{name}, resumed", weights, resumed)


class Memory:
    """A checkpoint in memory that saves once, after some minibatches."""

    def __init__(self, *, at: int) -> None:
        self.at, self.done = at, 0
        self.saved: tuple[dict[str, Tensor], dict[str, Any]] | None = None

    def load(self) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """Return what was saved."""
        return self.saved

    def due(self) -> bool:
        """Count minibatches; save after one of them."""
        self.done += 1
        return self.done == self.at

    def save(self, tensors: dict[str, Tensor], position: dict[str, Any]) -> None:
        """Copy everything."""
        copied = {name: value.detach().to(CPU, copy=True) for name, value in tensors.items()}
        self.saved = copied, position


def trained(
    setting: Setting, *, compiled: bool, memory: Memory | None = None
) -> tuple[dict[str, Tensor], str]:
    """Return the weights after 20 updates, and whether they were compiled."""
    encoder = build_encoder(width=4 if setting.small else 16, hidden=64, projection=32)
    encoder.to(setting.device)
    progress = pretrain.pretrain(
        encoder,
        random_images(8 * MINIBATCHES, 16),
        torch.zeros(8 * MINIBATCHES, dtype=torch.int64),
        method=EmpSsl(),
        regime=Free(replays=2),
        views=Views(count=4, augmentation="emp_ssl"),
        size=16,
        epochs=1,
        batch_size=8,
        optimizer=OPTIMIZER,
        compiled=compiled,
        checkpoint=memory,
    )
    weights = {name: value.to(CPU) for name, value in encoder.state_dict().items()}
    return weights, progress.compilation


def hold_equal(report: Report, name: str, one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    """Require that all tensors of two networks have the same bytes."""
    different = sum(not torch.equal(value, other[key]) for key, value in one.items())
    report.hold(f"{name}: tensors that differ", different, "0", met=different == 0)


def configure(setting: Setting, *, deterministic: bool) -> None:
    """Set threads and determinism, whatever an earlier part left."""
    runtime.configure(threads=setting.threads, deterministic=deterministic, tuned=True)
