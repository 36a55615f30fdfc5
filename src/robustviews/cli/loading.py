"""What jobs read: a split of a prepared data set, an encoder, a head; each with the files read."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from robustviews import artifacts
from robustviews.artifacts import ArtifactError
from robustviews.cli.names import UsageError
from robustviews.probe import OwnHead
from robustviews.study import Study, folders, plan, specs

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from robustviews.datasets import Images
    from robustviews.encoder import Encoder


def load_split(
    study: Study, dataset: str, split: str
) -> tuple[Images, Tensor, dict[str, int], list[Path]]:
    """Return images in their file, labels, the data set's summary (classes, size), the files."""
    import torch

    from robustviews.datasets import open_split

    folder = folders.data_folder(study, dataset)
    summary = artifacts.read_json(folder / "summary.json")
    images, labels = open_split(folder, split)
    names = (f"{split}_images.npy", f"{split}_labels.npy", "summary.json")
    return images, torch.tensor(labels), summary, [folder / name for name in names]


def load_encoder(
    study: Study, run: str, classes: int, device: torch.device
) -> tuple[Encoder, Path]:
    """Return an encoder in eval mode with the weights of a finished run, and their file."""
    from robustviews.encoder import build_encoder

    options = study.runs[plan.jobs(study)[run].entry]
    encoder = build_encoder(
        **specs.pretrain_spec(study, run)["run"]["encoder"],
        classes=classes if options.method.supervised else None,
    )
    path = folders.pretrain_folder(study, run) / "encoder.safetensors"
    _load_strictly(encoder, path)
    return encoder.to(device).eval(), path


def load_head(
    study: Study, run: str, probe_name: str, encoder: Encoder, classes: int, device: torch.device
) -> tuple[torch.nn.Linear, Path]:
    """Return a trained head and its file; a supervised network brings the head of probe `own`."""
    from torch import nn

    options = study.probes[probe_name]
    if isinstance(options, OwnHead):
        if encoder.classifier is None:
            raise UsageError(f"run `{run}` has no classifier of its own; name a trained probe")
        return encoder.classifier, folders.pretrain_folder(study, run) / "encoder.safetensors"
    path = folders.probe_folder(study, run, probe_name) / "head.safetensors"
    head = nn.Linear(encoder.width_of(options.feature), classes)
    _load_strictly(head, path)
    return head.to(device), path


def _load_strictly(module: torch.nn.Module, path: Path) -> None:
    weights = artifacts.read_tensors(path)
    try:
        module.load_state_dict(weights, strict=True)
    except RuntimeError as error:
        raise ArtifactError(
            f"{error}\n{path}: does not fit the study's network; make it again with:", path
        ) from None
