"""Time the total coding rate, forward and backward, against a D x D log-determinant a crop."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from benchmarks import published, record, rounds
from benchmarks.recipe import Recipe
from robustviews import losses

BAR = 30.0


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """Return the options of this benchmark."""
    parser = record.arguments("coding_rate", __doc__)
    options = parser.parse_args(argv)
    options.rounds = options.rounds or (3 if options.quick else 7)
    return options


def measure(options: argparse.Namespace, device: torch.device) -> dict[str, Any]:
    """Time both forms on the same projections."""
    recipe = Recipe()
    shape = (recipe.crops, recipe.batch, recipe.projection)
    generator = torch.Generator().manual_seed(0)
    z = functional.normalize(torch.randn(shape, generator=generator), dim=-1).to(device)
    repeats = 1 if device.type == "cpu" else 10

    def ours() -> None:
        for _ in range(repeats):
            gradient(z, lambda z: losses.total_coding_rate(z, eps=recipe.tcr_eps))

    def by_crop() -> None:
        for _ in range(repeats):
            gradient(z, lambda z: -published.coding_rate(list(z), eps=recipe.tcr_eps))

    sides = {"published": by_crop, "ours": ours}
    seconds = rounds.interleave(sides, rounds=options.rounds, device=device)
    work = f"coding rate, forward + backward, {' x '.join(map(str, shape))}"
    row = record.comparison(work, seconds, ours="ours", rival="published", bar=BAR, note="fp32")
    return {"repeats": repeats, "comparisons": [row]}


def gradient(z: Tensor, loss: Callable[[Tensor], Tensor]) -> Tensor:
    """Return the gradient of a loss of z (V, B, D) in z."""
    leaf = z.detach().requires_grad_()
    return torch.autograd.grad(loss(leaf), leaf)[0]


def main(argv: list[str] | None = None) -> None:
    """Measure, keep the record, print its table."""
    record.run("coding_rate", parse(argv), measure)


if __name__ == "__main__":
    main(sys.argv[1:])
