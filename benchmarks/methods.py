"""Time a training step of each method, with our loss against those of lightly and solo-learn.

All sides train the same network with the same optimizer, and their losses have the same value:
encoder, heads, loss, backward, update of the parameters. Teachers are computed and moved on all
sides; the queue is empty. solo-learn's package imports its trainer, so that only its module of
losses is loaded; its release on PyPI has no MoCo v3.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import sys
import types
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from benchmarks import record, rounds
from robustviews.encoder import build_encoder
from robustviews.methods import METHODS, Batch, Method
from robustviews.network import Network, build_network
from robustviews.optim import build_optimizer

OPTIONS: dict[str, dict[str, Any]] = {
    "simclr": {"simclr_temperature": 0.2, "simclr_base_temperature": None},
    "barlow_twins": {},
    "vicreg": {},
    "simsiam": {},
    "byol": {},
    "moco_v3": {},
    "swav": {"queue": 0, "frozen_epochs": 0},
    "dino": {"frozen_epochs": 0},
}
LIGHTLY, SOLO = "lightly", "solo-learn"
Loss = Callable[[Network, Batch], Tensor]


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """Return the options of this benchmark."""
    parser = record.arguments("methods", __doc__, threads=1)
    parser.add_argument("--batch", type=int, help="images of a minibatch (256; --quick: 64)")
    parser.add_argument("--width", type=int, help="of ResNet-18 (64; --quick: 8)")
    options = parser.parse_args(argv)
    options.batch = options.batch or (64 if options.quick else 256)
    options.width = options.width or (8 if options.quick else 64)
    options.rounds = options.rounds or 5
    return options


def measure(options: argparse.Namespace, device: torch.device) -> dict[str, Any]:
    """Time the sides of each method in turns."""
    comparisons, skipped = [], []
    generator = torch.Generator().manual_seed(0)
    views = torch.rand(2, options.batch, 3, 32, 32, generator=generator).to(device)
    labels = torch.zeros(options.batch, dtype=torch.int64, device=device)
    batch = Batch(views[0], views, labels)
    for name, own in OPTIONS.items():
        method = METHODS[name](**own)
        work = f"step of {name}, {options.batch} images"
        losses, reasons = rivals(name, method)
        skipped += [{"work": work, "rival": rival, "reason": text} for rival, text in reasons]
        if not losses:
            continue
        losses = {"ours": partial(of_ours, method), **losses}
        sides = {
            side: step(method, loss, batch, width=options.width, device=device)
            for side, loss in losses.items()
        }
        seconds = rounds.interleave(sides, rounds=options.rounds, device=device)
        comparisons += [
            record.comparison(work, seconds, ours="ours", rival=side)
            for side in losses
            if side != "ours"
        ]
    return {"comparisons": comparisons, "skipped": skipped}


def step(
    method: Method, loss: Loss, batch: Batch, *, width: int, device: torch.device
) -> rounds.Work:
    """Return a training step of a new network."""
    encoder = build_encoder(width=width, hidden=None, projection=1).to(device)
    net = build_network(encoder, method).train()
    optimizer = build_optimizer(net, name="sgd", lr=1e-3, momentum=0.9, weight_decay=0.0, eta=1.0)

    def work() -> None:
        optimizer.zero_grad(set_to_none=True)
        fresh = Batch(batch.images, batch.views[:], batch.labels)  # so that targets are, too
        loss(net, fresh).backward()
        optimizer.step()
        with torch.no_grad():
            method.after_step(net, fresh, 0.0)

    return work


def rivals(name: str, method: Method) -> tuple[dict[str, Loss], list[tuple[str, str]]]:
    """Return the losses of other programs, and which are missing, and why."""
    found: dict[str, Loss] = {}
    missing = []
    for program, load, make in ((LIGHTLY, of_lightly, "lightly"), (SOLO, of_solo, "solo")):
        if make not in sys.modules and importlib.util.find_spec(make) is None:
            fix = "uv pip install --no-deps"
            missing.append((program, f"not installed: {fix} {program}"))
            continue
        loss = load(name, method)
        if loss is None:
            missing.append((program, "has no such loss"))
        else:
            found[program] = loss
    return found, missing


def of_ours(method: Method, net: Network, batch: Batch) -> Tensor:
    """Return our loss."""
    return method.train_loss(net, batch, batch.views[1])


def of_lightly(name: str, method: Any) -> Loss | None:  # noqa: ANN401  # options differ
    """Return the loss of lightly, on the outputs of our network; None if it has none."""
    from lightly import loss as them

    if name == "simclr":
        simclr = them.NTXentLoss(temperature=method.simclr_temperature)
        return lambda net, one: simclr(*_projections(net, one))
    if name == "barlow_twins":
        barlow = them.BarlowTwinsLoss(lambda_param=method.off_diagonal)
        return lambda net, one: method.loss_scale * barlow(*_projections(net, one))
    if name == "vicreg":
        vicreg = them.VICRegLoss()
        return lambda net, one: vicreg(*_projections(net, one))
    cosine = them.NegativeCosineSimilarity()
    if name == "simsiam":
        return _predicted(name, lambda p, z: cosine(p, z) / 2)
    if name == "byol":
        return _predicted(name, lambda p, z: 2 + 2 * cosine(p, z))
    if name == "swav":
        swav = them.SwaVLoss(temperature=method.temperature, sinkhorn_epsilon=method.epsilon)
        return lambda net, one: swav([net.predict(net(view)) for view in one.views], [])
    if name == "dino":
        dino = them.DINOLoss(
            output_dim=method.prototypes,
            teacher_temp=method.teacher_temperature,
            warmup_teacher_temp_epochs=0,
        )
        return lambda net, one: dino(
            list(net.target(one.views)), [net.predict(net(view)) for view in one.views]
        )
    return None


def of_solo(name: str, method: Any) -> Loss | None:  # noqa: ANN401  # options differ
    """Return the loss of solo-learn, on the outputs of our network; None if it has none."""
    them = solo_losses()
    if name == "simclr":
        return lambda net, one: them.simclr_loss_func(
            *_projections(net, one), temperature=method.simclr_temperature
        )
    if name == "barlow_twins":
        return lambda net, one: them.barlow_loss_func(
            *_projections(net, one), method.off_diagonal, method.loss_scale
        )
    if name == "vicreg":
        variance = method.variance / 2  # of each view; solo-learn sums them
        return lambda net, one: them.vicreg_loss_func(
            *_projections(net, one), var_loss_weight=variance
        )
    if name == "simsiam":
        return _predicted(name, lambda p, z: them.simsiam_loss_func(p, z) / 2)
    if name == "byol":
        return _predicted(name, them.byol_loss_func)
    if name == "dino":
        dino = them.DINOLoss(
            num_prototypes=method.prototypes,
            warmup_teacher_temp=method.teacher_temperature,
            teacher_temp=method.teacher_temperature,
            warmup_teacher_temp_epochs=0,
            num_epochs=1,
        )
        return lambda net, one: dino(
            torch.cat([net.predict(net(view)) for view in one.views]),
            net.target(one.views).flatten(0, 1),
        )
    return None  # SwAV: Sinkhorn is a part of its trainer


def solo_losses() -> types.ModuleType:
    """Import solo-learn's losses without its trainer, which needs versions of 2022."""
    if "solo.losses" in sys.modules:
        return sys.modules["solo.losses"]
    spec = importlib.util.find_spec("solo")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    for name, part in (("solo", ""), ("solo.utils", "/utils")):
        package = types.ModuleType(name)
        package.__path__ = [f"{path}{part}" for path in spec.submodule_search_locations]
        sys.modules.setdefault(name, package)
    return importlib.import_module("solo.losses")


def _projections(net: Network, batch: Batch) -> tuple[Tensor, Tensor]:
    return net(batch.views[0]), net(batch.views[1])


def _predicted(name: str, loss: Callable[[Tensor, Tensor], Tensor]) -> Loss:
    """Return a loss of predictions and the outputs of the other view, in both directions."""

    def both(net: Network, batch: Batch) -> Tensor:
        z1, z2 = _projections(net, batch)
        t1, t2 = net.target(batch.views) if name == "byol" else (z1.detach(), z2.detach())
        return loss(net.predict(z1), t2) + loss(net.predict(z2), t1)

    return both


def main(argv: list[str] | None = None) -> None:
    """Measure, keep the record, print its table."""
    record.run("methods", parse(argv), measure)


if __name__ == "__main__":
    main(sys.argv[1:])
