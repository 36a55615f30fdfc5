"""Time a training step of each method, with our loss against those of other programs.

All sides train one network in turns with the same optimizer, and their losses have the same value:
encoder, heads, loss, backward, update of the parameters. Each side moves the teacher, and DINO's
center, in its own way; the queue is empty.
"""

from __future__ import annotations

import argparse
import sys
import time
from typing import Any

import torch

from benchmarks import record, rounds
from benchmarks.rivals import Rival, rivals
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
    """Time the sides of each method in turns: the whole step, and the step without the encoder."""
    comparisons, skipped = [], []
    # The time of this process alone, which other processes on a busy CPU do not lengthen as much.
    clock = time.process_time if device.type == "cpu" else time.perf_counter
    generator = torch.Generator().manual_seed(0)
    views = torch.rand(2, options.batch, 3, 32, 32, generator=generator).to(device)
    labels = torch.zeros(options.batch, dtype=torch.int64, device=device)
    for name, own in OPTIONS.items():
        method = METHODS[name](**own)
        found, reasons = rivals(name, method)
        skipped += [{"work": name, "rival": rival, "reason": text} for rival, text in reasons]
        if not found:
            continue
        net = build_network(build_encoder(width=options.width, hidden=None).to(device), method)
        net.train()
        with torch.no_grad():
            features = torch.stack([net.encoder(view) for view in views])
        for work, inputs in (("step", views), ("step without encoder", features)):
            batch = Batch(inputs[0], inputs, labels)
            sides = {side: step(net, method, rival, batch) for side, rival in found.items()}
            sides = {"ours": step(net, method, None, batch), **sides}
            seconds = rounds.interleave(sides, rounds=options.rounds, device=device, clock=clock)
            title = f"{name}: {work}, {options.batch} images"
            comparisons += [
                record.comparison(title, seconds, ours="ours", rival=side, bar=1.0)
                for side in found
            ]
            skip_encoder_(net)
    return {"comparisons": comparisons, "skipped": skipped}


def skip_encoder_(net: Network) -> None:
    """Make the student and its teacher take features as if they were images."""
    net.encoder = Features()  # type: ignore[assignment]
    if net.teacher:
        net.teacher["encoder"] = Features()


class Features(torch.nn.Identity):
    """An encoder of features that are there already."""

    precision = "fp32"


def step(net: Network, method: Method, rival: Rival | None, batch: Batch) -> rounds.Work:
    """Return a training step with the loss and the teacher of one side; without a rival, ours.

    All sides train the same network, since memory of another one may be faster.
    """
    optimizer = build_optimizer(net, name="sgd", lr=1e-3, momentum=0.9, weight_decay=0.0, eta=1.0)

    def work() -> None:
        optimizer.zero_grad(set_to_none=True)
        fresh = Batch(batch.images, batch.views[:], batch.labels)  # so that targets are, too
        if rival is None:
            method.train_loss(net, fresh, fresh.views[1]).backward()
        else:
            rival.loss(net, fresh).backward()
        optimizer.step()
        with torch.no_grad():
            if rival is None:
                method.after_step(net, fresh, 0.0)
            elif net.teacher:
                move(net, rival, tau=method.tau)  # type: ignore[attr-defined]

    return work


def move(net: Network, rival: Rival, *, tau: float) -> None:
    """Move the teacher as another program does, or as ours if it has no function for that."""
    if rival.follow is None:
        net.follow(tau)
        return
    for part, module in net.teacher.items():
        if next(module.parameters(), None) is not None:  # lightly refuses a module without any
            rival.follow(getattr(net, part), module, tau)


def main(argv: list[str] | None = None) -> None:
    """Measure, keep the record, print its table."""
    record.run("methods", parse(argv), measure)


if __name__ == "__main__":
    main(sys.argv[1:])
