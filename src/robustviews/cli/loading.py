"""Load a job's inputs: a split of a prepared data set, and weights."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from robustviews import artifacts
from robustviews.artifacts import ArtifactError
from robustviews.study import folders
from robustviews.study.jobs import Job, without_unused

if TYPE_CHECKING:
    from torch import Tensor

    from robustviews.datasets import Rows


class Split(NamedTuple):
    """One split of a prepared data set, with memory-mapped images."""

    images: Rows
    labels: Tensor
    classes: int
    size: int
    names: tuple[str, ...] = ()  # of the classes


def load_split(job: Job) -> Split:
    """Return the split that a job reads.

    Raises:
        DataError: a file is missing, damaged, or of another shape.
    """
    import torch

    from robustviews.datasets import open_split

    (arrays,) = (path for path in job.reads if path.name.endswith("_images.npy"))
    summary = artifacts.read_json(arrays.parent / folders.SUMMARY)
    images, labels = open_split(arrays.parent, arrays.name.removesuffix("_images.npy"))
    names = summary.get("class_names") or map(str, range(summary["classes"]))
    return Split(images, torch.tensor(labels), summary["classes"], summary["size"], tuple(names))


def load_encoder(job: Job) -> dict[str, Tensor]:
    """Return the weights of the encoder that a job reads, without those that it does not use."""
    return without_unused(artifacts.read_tensors(_inputs(job)[folders.ENCODER]), job)


def load_head(job: Job) -> dict[str, Tensor] | None:
    """Return the weights of the head that a job reads; None if it reads none."""
    path = _inputs(job).get(folders.HEAD)
    return artifacts.read_tensors(path) if path else None


def load_heads(job: Job) -> dict[str, dict[str, Tensor]]:
    """Return the weights of all heads that a job reads, by probe."""
    heads = (path for path in job.reads if path.name == folders.HEAD)
    return {path.parent.name: artifacts.read_tensors(path) for path in heads}


def load_flags(job: Job) -> list[dict[str, Tensor]]:
    """Return the flags of each attack whose flags a job combines."""
    return [artifacts.read_tensors(path) for path in job.reads if path.name == folders.FLAGS]


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
