"""The stage that runs all checks on the heads of one encoder."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from robustviews.options import LazyModule
from robustviews.sanity.checks import CHECKS, failed
from robustviews.sanity.flags import counts_of
from robustviews.sanity.information import INFORMATION

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from robustviews import encoder as encoders
    from robustviews import evaluate
    from robustviews.augment import Views
    from robustviews.checkpoint import Checkpoint
    from robustviews.datasets import Rows
    from robustviews.evaluate import Classifier
    from robustviews.machine import feed, memory, runtime
    from robustviews.probe import Probe
    from robustviews.sanity import subject as subjects
    from robustviews.sanity.dense import DenseChecks
    from robustviews.sanity.options import Sanity
    from robustviews.sanity.subject import Subject

    Weights = Mapping[str, Tensor]
else:
    encoders, evaluate = LazyModule("robustviews.encoder"), LazyModule("robustviews.evaluate")
    feed, memory = LazyModule("robustviews.machine.feed"), LazyModule("robustviews.machine.memory")
    runtime, torch = LazyModule("robustviews.machine.runtime"), LazyModule("torch")
    subjects = LazyModule("robustviews.sanity.subject")


class Examined(NamedTuple):
    """The results of the checks of some heads.

    Attributes:
        flags: by `<probe>/<name>`: `index` (n,) int64 of the attacked images; `labels` and, for
            each try of an attack, what results store of the answers (n, ...): of classification
            (n,) uint8, 1 where the prediction stays correct.
        heads: by probe: `measures`, and `failed` checks with what is wrong.
    """

    flags: dict[str, Tensor]
    heads: dict[str, dict[str, Any]]


def sanity(
    weights: Weights,
    heads: Mapping[str, Weights],
    images: Tensor | Rows,
    labels: Tensor,
    *,
    classes: int,
    size: int,
    encoder: Mapping[str, Any],
    supervised: bool,
    probes: Mapping[str, Probe],
    sanity: Sanity,
    dense: DenseChecks | None = None,
    views: Views,
    seed: int = 0,
    batch: int = 500,
    fold: bool = False,
    device: torch.device,
    checkpoint: Checkpoint | None = None,
    title: str = "sanity",
) -> Examined:
    """Check on each head of an encoder whether an attack on it is established.

    Args:
        weights: weights of the encoder.
        heads: weights of each trained head, by name of its probe.
        images: (N, 3, S, S) uint8, the whole test set, in memory or mapped from their file.
        labels: of all images, as the task has them: (N,) int64 for classification.
        classes: number of classes.
        size: side of the images in pixels.
        encoder: arguments of `encoder.build_encoder`.
        supervised: whether the encoder has its own classifier.
        probes: probe of each head, by name.
        sanity: how much is spent.
        dense: checks of heads of another task than classification; None for classifiers.
        views: views of the pretraining, from which an n-crop probe draws.
        seed: seed of views, random starts and noise.
        batch: views attacked at a time; random draws depend on it.
        fold: whether batch norms are folded, see `encoder.restore_encoder`.
        device: device of the attacks.
        checkpoint: saves the finished heads, after which an interrupted job resumes.
        title: title of the progress bar and of log lines.

    Raises:
        ShortageError: the device has too little memory.
        WeightsError: weights do not fit the encoder or the head.
        ValueError: an attack left its ball or [0, 1].
    """
    network = encoders.restore_encoder(
        weights, encoder, classes=classes if supervised else None, device=device, fold=fold
    )
    saved = checkpoint.load() if checkpoint is not None else None
    flags, results = ({}, {}) if saved is None else (dict(saved[0]), dict(saved[1]["heads"]))
    rows = feed.choose(images, device)

    def restored(name: str) -> Classifier:
        head = probes[name].restore(heads.get(name, {}), network, classes=classes)
        return evaluate.Classifier(network, head, probes[name]).eval()

    for name in (name for name in probes if name not in results):
        classifier, *peers = map(restored, (name, *_peers(name, probes)[:1]))
        with (
            memory.explained(title, memory.SMALLER_BATCH),
            runtime.tf32(allowed=False),
            runtime.frozen(torch.nn.ModuleList([classifier, *peers])),
        ):
            subject = (dense or subjects).choose(
                classifier,
                rows,
                labels,
                options=sanity,
                views=views,
                size=size,
                seed=seed,
                batch=batch,
                peer=peers[0] if peers else None,
            )
            results[name] = (dense.examine if dense else examine)(subject, title=f"{title}/{name}")
        flags |= {f"{name}/{key}": flag for key, flag in subject.rows.items()}
        if checkpoint is not None and checkpoint.due():
            checkpoint.save(flags, {"heads": results})
    return Examined(flags, results)


def _peers(name: str, probes: Mapping[str, Probe]) -> list[str]:
    """Return the other probes that see as many views of an image."""
    return [one for one in probes if one != name and probes[one].stack == probes[name].stack]


def examine(subject: Subject, *, title: str = "sanity") -> dict[str, Any]:
    """Run all checks on a head, measure the information, and add the flags to its rows.

    Args:
        subject: the head and its images; its classifier is in eval mode and frozen.
        title: title of the progress bar.

    Returns:
        `measures`, and `failed` checks with what is wrong.

    Raises:
        ValueError: an attack left its ball or [0, 1].
    """
    measuring = [*(check.measure for check in CHECKS.values()), *INFORMATION.values()]
    values = measured(subject, measuring if len(subject.labels) else (), title=title)
    measures = counts_of({name: flag.numpy() for name, flag in subject.rows.items()}) | values
    return {"measures": measures, "failed": failed(measures, subject.options)}


def measured(
    subject: Subject,
    measuring: Sequence[Callable[[Subject], Mapping[str, Tensor | float]]],
    *,
    title: str,
) -> dict[str, float]:
    """Return the values that functions measure on a head, and add answers to its rows."""
    values: dict[str, float] = {}
    bar = runtime.ProgressBar(len(measuring), "check", title)
    for number, measure in enumerate(measuring):
        for name, value in measure(subject).items():
            if isinstance(value, int | float):
                values[name] = value
            else:
                subject.rows[name] = value
        bar.show(number + 1)
    return values
