"""Time PGD on a trained network: with folded batch norms and crafted in less than float32."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from benchmarks import record, rounds
from robustviews.attacks import PgdAttack
from robustviews.encoder import build_encoder, fold_batchnorm_
from robustviews.evaluate import Classifier, attack_once
from robustviews.machine import runtime
from robustviews.probe import LinearProbe

STEPS = 5


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """Return the options of this benchmark."""
    parser = record.arguments("evaluation", __doc__)
    parser.add_argument("--images", type=int, help="images attacked at a time")
    options = parser.parse_args(argv)
    options.rounds = options.rounds or (3 if options.quick else 7)
    options.images = options.images or (16 if options.quick else 100)
    return options


def measure(options: argparse.Namespace, device: torch.device) -> dict[str, Any]:
    """Time all variants on the same images."""
    images = torch.rand(options.images, 3, 32, 32, device=device)
    labels = torch.zeros(options.images, dtype=torch.int64, device=device)

    def attacked(*, fold: bool, precision: Any) -> Callable[[], object]:  # noqa: ANN401  # a literal
        encoder = build_encoder().eval()
        if fold:
            fold_batchnorm_(encoder)
        head = nn.Linear(encoder.width_of("prefeature"), 10)
        model = Classifier(encoder, head, LinearProbe()).to(device).eval()
        attack = PgdAttack(eps=(8.0,), steps=STEPS, craft_precision=precision)

        def work() -> None:
            with runtime.frozen(model):
                attack_once(model, attack, images, labels, radius=8.0, seed=0, title="benchmark")

        return work

    lower = (["tf32"] if device.type == "cuda" else []) + ["bf16"] * runtime.native_bf16(device)
    sides = {"fp32": attacked(fold=False, precision="fp32")}
    sides |= {f"folded {name}": attacked(fold=True, precision=name) for name in ("fp32", *lower)}
    seconds = rounds.interleave(sides, rounds=options.rounds, device=device)
    work = f"PGD-{STEPS} on {options.images} images, ResNet-18"
    rows = [
        record.comparison(work, seconds, ours=name, rival="fp32", bar=None, note="")
        for name in list(sides)[1:]
    ]
    return {"images": options.images, "comparisons": rows}


def main(argv: list[str] | None = None) -> None:
    """Measure, keep the record, print its table."""
    record.run("evaluation", parse(argv), measure)


if __name__ == "__main__":
    main(sys.argv[1:])
