"""What a job reads, loaded from its files: a split of a data set, weights, flags, options.

Files are those of a project folder, `root`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from robustviews import artifacts
from robustviews.artifacts import RECORD, ArtifactError, Record
from robustviews.study import folders
from robustviews.study.jobs import Job

if TYPE_CHECKING:
    from torch import Tensor

    from robustviews.datasets import Rows

_HERE = Path()


class Split(NamedTuple):
    """One split of a prepared data set, with memory-mapped images."""

    images: Rows
    labels: Tensor
    classes: int
    size: int
    names: tuple[str, ...] = ()  # of the classes


def load_split(job: Job, root: Path = _HERE) -> Split:
    """Return the split that a job reads.

    Raises:
        DataError: a file is missing, damaged, or of another shape.
    """
    import torch

    from robustviews.datasets import open_split

    (arrays,) = (root / path for path in job.reads if path.name.endswith("_images.npy"))
    summary = artifacts.read_json(arrays.parent / folders.SUMMARY)
    images, labels = open_split(arrays.parent, arrays.name.removesuffix("_images.npy"))
    names = summary.get("class_names") or map(str, range(summary["classes"]))
    return Split(images, torch.tensor(labels), summary["classes"], summary["size"], tuple(names))


def load_encoder(job: Job, root: Path = _HERE) -> dict[str, Tensor]:
    """Return the weights of the encoder that a job reads.

    A job that trains or attacks another head on a supervised network leaves out its classifier.
    """
    weights = artifacts.read_tensors(root / _inputs(job)[folders.ENCODER])
    if job.arguments.get("supervised") is not False:
        return weights
    return {name: one for name, one in weights.items() if not name.startswith("classifier.")}


def load_head(job: Job, root: Path = _HERE) -> dict[str, Tensor] | None:
    """Return the weights of the head that a job reads; None if it reads none."""
    path = _inputs(job).get(folders.HEAD)
    return artifacts.read_tensors(root / path) if path else None


def load_heads(job: Job) -> dict[str, dict[str, Tensor]]:
    """Return the weights of all heads that a job reads, by probe."""
    heads = (path for path in job.reads if path.name == folders.HEAD)
    return {path.parent.name: artifacts.read_tensors(path) for path in heads}


def load_flags(job: Job) -> list[dict[str, Tensor]]:
    """Return the flags of each attack whose flags a job combines."""
    return [artifacts.read_tensors(path) for path in job.reads if path.name == folders.FLAGS]


def completed_arguments(job: Job, root: Path = _HERE) -> dict[str, Any]:
    """Return the options of a job's stage; the record beside an imported encoder states its own.

    So does the record beside an imported encoder that a probe has tuned. The job is a probe, an
    attack, or checks.
    """
    encoder = _inputs(job).get(folders.ENCODER)
    if encoder is None or job.arguments["encoder"] is not None:
        return dict(job.arguments)
    record = Record.read(root / encoder.parent / RECORD)
    return {**job.arguments, "encoder": record.result["encoder"]}


@contextlib.contextmanager
def fitting(job: Job) -> Iterator[None]:
    """Raise a WeightsError of the block as an error that names the job's file.

    Raises:
        ArtifactError: weights do not fit the study's network.
    """
    from robustviews.encoder import WeightsError

    try:
        yield
    except WeightsError as error:
        path = _inputs(job)[{"encoder": folders.ENCODER, "head": folders.HEAD}[error.part]]
        message = f"{path}: does not fit the study's network ({error}); make it again with:"
        raise ArtifactError(message, path) from None


def _inputs(job: Job) -> dict[str, Path]:
    return {path.name: path for path in job.reads}
