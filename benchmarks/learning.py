"""Does every method learn? Its loss, the spread of its projections, and its nearest neighbours.

    python -m benchmarks.learning
    python -m benchmarks.learning --held-out

First 20 updates on 64 digits; then the trainings of `studies/methods-cifar.yaml`, if they are
finished, in the mean over seeds. Neighbours are 5, in cosines of backbone features or in distances
of pixels; they are found among the training images for images of the test split, or, on which the
settings of the study were chosen, for further images of the training split.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

import numpy as np
import torch
from sklearn.neighbors import KNeighborsClassifier
from torch import Tensor
from torch.nn import functional
from torchvision import datasets

from benchmarks import table
from robustviews import api, augment, stages
from robustviews.augment import Views
from robustviews.datasets import Cifar10, Dataset
from robustviews.datasets.sources import source_folder
from robustviews.datasets.splits import choose
from robustviews.encoder import Encoder, build_encoder, restore_encoder
from robustviews.machine import runtime
from robustviews.network import build_network
from robustviews.study import Study, folders, load_study, plan
from robustviews.study.schema import Optimizer, Run

STUDY = "studies/methods-cifar.yaml"
NEIGHBOURS, UPDATES, DIGITS, SIDE, WIDTH = 5, 20, 64, 16, 8
HELD_OUT = 5000  # images
RECIPE: dict[str, Any] = {"name": "adam", "lr": 0.002, "weight_decay": 0.0}  # on digits
LEAST_SPREAD = 0.3  # of 1 / sqrt(D), the spread of random directions
Split = tuple[Tensor, Tensor]  # images (N, 3, S, S) in [0, 1] and labels (N,)


class Learned(NamedTuple):
    """What one training of some passes shows, or several in the mean.

    Attributes:
        method: label of the run.
        first: loss of the first pass.
        last: loss of the last pass.
        spread: `z_std` times sqrt(D), the smallest; None for a supervised method.
        features: accuracy of the nearest neighbours of features, of each training.
        pixels: accuracy of the nearest neighbours of pixels.
    """

    method: str
    first: float
    last: float
    spread: float | None
    features: tuple[float, ...]
    pixels: float

    @property
    def passes(self) -> bool:
        """Whether the loss fell, nothing collapsed, and features beat pixels."""
        spread = self.spread is None or self.spread > LEAST_SPREAD
        return self.last < self.first and spread and fmean(self.features) > self.pixels


def joined(rows: Sequence[Learned]) -> Learned:
    """Return what the trainings of a run show, of which each has another seed."""
    spreads = [row.spread for row in rows if row.spread is not None]
    return rows[0]._replace(
        first=fmean(row.first for row in rows),
        last=fmean(row.last for row in rows),
        spread=min(spreads, default=None),
        features=tuple(accuracy for row in rows for accuracy in row.features),
    )


def on_digits(run: Run, train: Split, test: Split, *, updates: int = UPDATES) -> Learned:
    """Train a run on a few digits, one minibatch, with a narrow network and one mild recipe."""
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
        optimizer=dataclasses.asdict(Optimizer(**RECIPE)),
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
    """Return what a history and a trained encoder show, without pixels."""
    spread = None
    if not run.method.supervised:
        spread = history[-1]["z_std"] * dimension(run, encoder, train[0][:2]) ** 0.5
    known, asked = (features(network, images) for images, _ in (train, test))
    accuracy = neighbours(known, train[1], asked, test[1])
    return Learned(run.label, history[0]["loss"], history[-1]["loss"], spread, (accuracy,), 0.0)


def of_pixels(train: Split, test: Split) -> float:
    """Return the accuracy of the nearest neighbours of pixels."""
    return neighbours(train[0].flatten(1), train[1], test[0].flatten(1), test[1])


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


def held_out(dataset: Dataset) -> Split:
    """Return images of the training split of CIFAR-10 that a data set does not keep."""
    assert isinstance(dataset, Cifar10)
    data = datasets.CIFAR10(source_folder(dataset.root)[0], train=True)
    labels = np.array(data.targets)
    count = dataset.train_images or dataset.totals[0]
    more = np.setdiff1d(choose(labels, count + HELD_OUT, ""), choose(labels, count, ""))
    images = torch.tensor(data.data[more]).movedim(3, 1)
    return augment.to_float(images, dataset.size), torch.tensor(labels[more])


def of_study(study: Study, root: Path, *, test: Split | None = None) -> list[Learned]:
    """Return what the finished trainings of a study show, a row per run.

    Args:
        study: its runs have one data set.
        root: folder of the results.
        test: images of the questions; None takes the test split.
    """
    found: dict[str, list[Learned]] = {}
    pixels: float | None = None
    for name, pretraining in plan.pretrainings(study).items():
        folder = root / folders.job_folder(study, "pretrain", name)
        if not (folder / folders.ENCODER).exists():
            continue
        run = study.runs[pretraining.entry]
        history = [json.loads(line) for line in (folder / folders.CURVE).read_text().splitlines()]
        train = api.load_images(folder, "train")
        test = test or api.load_images(folder, "test")
        pixels = of_pixels(train, test) if pixels is None else pixels
        encoder, network = dataclasses.asdict(run.encoder), api.load_encoder(folder)
        row = learned(run, encoder, history, network, train, test)
        found.setdefault(pretraining.entry, []).append(row._replace(pixels=pixels))
    return [joined(rows) for rows in found.values()]


def markdown(work: str, rows: list[Learned]) -> str:
    """Return a table; its last column says whether a row meets all three criteria."""
    cells = []
    for row in rows:
        spread = "" if row.spread is None else f"{row.spread:.2f}"
        accuracies = [percent(row.features), f"{100 * row.pixels:.1f}"]
        losses = [f"{row.first:.3f}", f"{row.last:.3f}"]
        cells.append([row.method, *losses, spread, *accuracies, "yes" if row.passes else "no"])
    head = [work, "first loss", "last", "z_std sqrt(D)", "features, %", "pixels, %", "all three"]
    return table.grid(head, cells, align="lrrrrrl")


def percent(accuracies: Sequence[float]) -> str:
    """Return the mean of some accuracies and, of several, their range."""
    mean, low, high = (100 * of(accuracies) for of in (fmean, min, max))
    return f"{mean:.1f}" + (f" ({low:.1f}-{high:.1f})" if len(accuracies) > 1 else "")


def main(argv: list[str] | None = None) -> None:
    """Train on digits, and print both tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.learning", description=__doc__)
    parser.add_argument("--study", default=STUDY)
    parser.add_argument("--held-out", action="store_true", help="ask about training images")
    options = parser.parse_args(argv)
    runtime.configure(threads=1, deterministic=True)
    study = load_study(options.study)
    if not options.held_out:
        train, test = digits()
        pixels = of_pixels(train, test)
        runs = study.runs.values()
        rows = [on_digits(run, train, test)._replace(pixels=pixels) for run in runs]
        print(markdown(f"{UPDATES} updates on {DIGITS} digits", rows))
    chosen = held_out(next(iter(study.datasets.values()))) if options.held_out else None
    found = of_study(study, Path(), test=chosen)
    if found:
        print("\n" + markdown("trainings of the study", found))
    else:
        print(f"\nno training is finished: snakemake --config study={options.study}")


if __name__ == "__main__":
    main()
