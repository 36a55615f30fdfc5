"""Does every method learn? Its loss, the spread of its projections, and its nearest neighbours.

    python -m benchmarks.learning

First 20 updates on 64 digits; then the trainings of `studies/methods-cifar.yaml`, if they are
finished. Neighbours are 5, in cosines of backbone features or in distances of pixels; they are
found among the training images for images of the test split.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path
from typing import NamedTuple

import torch
from sklearn.neighbors import KNeighborsClassifier
from torch import Tensor
from torch.nn import functional

from benchmarks import table
from robustviews import api, augment, stages
from robustviews.augment import Views
from robustviews.encoder import Encoder, build_encoder, restore_encoder
from robustviews.machine import runtime
from robustviews.network import build_network
from robustviews.study import Study, folders, load_study, plan
from robustviews.study.schema import Run

STUDY = "studies/methods-cifar.yaml"
NEIGHBOURS, UPDATES, DIGITS, SIDE, WIDTH = 5, 20, 64, 16, 8
LEAST_SPREAD = 0.3  # of 1 / sqrt(D), the spread of random directions
Split = tuple[Tensor, Tensor]  # images (N, 3, S, S) in [0, 1] and labels (N,)


class Learned(NamedTuple):
    """What a training of some passes shows.

    Attributes:
        method: label of the run.
        first: loss of the first pass.
        last: loss of the last pass.
        spread: `z_std` times sqrt(D); None for a supervised method.
        features: accuracy of the nearest neighbours of features.
        pixels: accuracy of the nearest neighbours of pixels.
    """

    method: str
    first: float
    last: float
    spread: float | None
    features: float
    pixels: float

    @property
    def passes(self) -> bool:
        """Whether the loss fell, nothing collapsed, and features beat pixels."""
        spread = self.spread is None or self.spread > LEAST_SPREAD
        return self.last < self.first and spread and self.features > self.pixels


def on_digits(run: Run, train: Split, test: Split, *, updates: int = UPDATES) -> Learned:
    """Train a run on a few digits, one minibatch, with a narrow network and mild views."""
    images, labels = train
    encoder = {**dataclasses.asdict(run.encoder), "width": WIDTH}
    trained = stages.pretrain(
        (images * 255).to(torch.uint8),
        labels,
        classes=10,
        size=SIDE,
        encoder=encoder,
        method=run.method,
        regime=run.regime,
        views=Views(count=run.views.count, augmentation="geometry", scale=(0.6, 1.0)),
        optimizer=dataclasses.asdict(run.optimizer),
        epochs=updates,
        batch_size=len(images),
        device=torch.device("cpu"),
    )
    classes = 10 if run.method.supervised else None
    network = restore_encoder(trained.weights, encoder, classes=classes, device=torch.device("cpu"))
    return learned(run, encoder, trained.progress.history, network, train, test)


def learned(
    run: Run,
    encoder: dict[str, object],
    history: list[dict[str, float]],
    network: Encoder,
    train: Split,
    test: Split,
) -> Learned:
    """Return what a history and a trained encoder show."""
    return Learned(
        run.label,
        history[0]["loss"],
        history[-1]["loss"],
        None
        if run.method.supervised
        else history[-1]["z_std"] * dimension(run, encoder, train[0][:2]) ** 0.5,
        neighbours(features(network, train[0]), train[1], features(network, test[0]), test[1]),
        neighbours(train[0].flatten(1), train[1], test[0].flatten(1), test[1]),
    )


def dimension(run: Run, encoder: dict[str, object], images: Tensor) -> int:
    """Return the dimension D of the projections of a run."""
    net = build_network(build_encoder(**encoder), run.method)  # type: ignore[arg-type]
    with torch.no_grad():
        return net.embed(images).shape[1]


@torch.no_grad()
def features(network: Encoder, images: Tensor) -> Tensor:
    """Return unit features (N, F) of the backbone."""
    parts = [network.represent(part, "backbone") for part in images.split(500)]
    return functional.normalize(torch.cat(parts), dim=1)


def neighbours(bank: Tensor, labels: Tensor, queries: Tensor, truth: Tensor) -> float:
    """Return the accuracy of nearest neighbours of (M, F) among (N, F)."""
    found = KNeighborsClassifier(NEIGHBOURS).fit(bank.numpy(), labels.numpy())
    return float(found.score(queries.numpy(), truth.numpy()))


def digits() -> tuple[Split, Split]:
    """Return 64 digits, and all others."""
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    raw = torch.tensor(pixels / 16 * 255).round().to(torch.uint8).view(-1, 1, 8, 8)
    images = augment.to_float(raw.expand(-1, 3, -1, -1), SIDE)
    truth = torch.tensor(labels)
    return (images[:DIGITS], truth[:DIGITS]), (images[DIGITS:], truth[DIGITS:])


def of_study(study: Study, root: Path) -> list[Learned]:
    """Return what the finished trainings of a study show."""
    rows = []
    for name, pretraining in plan.pretrainings(study).items():
        folder = root / folders.pretrain_folder(study, name)
        if not (folder / folders.ENCODER).exists():
            continue
        run = study.runs[pretraining.entry]
        history = [json.loads(line) for line in (folder / folders.CURVE).read_text().splitlines()]
        network = api.load_encoder(folder)
        train, test = (api.load_images(folder, split) for split in ("train", "test"))
        rows.append(learned(run, dataclasses.asdict(run.encoder), history, network, train, test))
    return rows


def markdown(work: str, rows: list[Learned]) -> str:
    """Return a table; a criterion that is missed has a question mark."""
    cells = []
    for row in rows:
        spread = "" if row.spread is None else f"{row.spread:.2f}"
        accuracies = [f"{100 * accuracy:.1f}" for accuracy in (row.features, row.pixels)]
        losses = [f"{row.first:.3f}", f"{row.last:.3f}"]
        cells.append([row.method, *losses, spread, *accuracies, "yes" if row.passes else "no"])
    head = [work, "first loss", "last", "z_std sqrt(D)", "features, %", "pixels, %", "all three"]
    return table.grid(head, cells, align="lrrrrrl")


def main(argv: list[str] | None = None) -> None:
    """Train on digits, and print both tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.learning", description=__doc__)
    parser.add_argument("--study", default=STUDY)
    options = parser.parse_args(argv)
    runtime.configure(threads=1, deterministic=True)
    study = load_study(options.study)
    train, test = digits()
    rows = [on_digits(run, train, test) for run in study.runs.values()]
    print(markdown(f"{UPDATES} updates on {DIGITS} digits", rows))
    found = of_study(study, Path())
    if found:
        print("\n" + markdown("trainings of the study", found))
    else:
        print(f"\nno training is finished: snakemake --config study={options.study}")


if __name__ == "__main__":
    main()
