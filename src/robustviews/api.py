"""The Python API: load encoders, classifiers, images and results of finished studies; attack.

Imported through the package: `from robustviews import load_classifier, attack`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

from robustviews import artifacts, augment, checkpoints, evaluate
from robustviews.artifacts import RECORD, ArtifactError, Record
from robustviews.attacks import ATTACKS
from robustviews.datasets import open_split
from robustviews.encoder import Encoder, restore_encoder
from robustviews.machine import runtime
from robustviews.options import check_bounds
from robustviews.probe import OWN_HEAD, PROBES
from robustviews.reporting import results as reading
from robustviews.study import Study, folders, load_study
from robustviews.study.problems import nearest

if TYPE_CHECKING:
    from robustviews.probe import Probe
    from robustviews.reporting.results import Result


_LEAST_EPS = 0.1  # a smaller radius is surely meant in pixel units


class Attacked(NamedTuple):
    """The result of an attack on some images.

    Attributes:
        images: adversarial images (B, 3, H, W) in [0, 1].
        clean: (B,) bool, whether each image was classified correctly before the attack.
        robust: (B,) bool, whether each image is classified correctly after the attack.
    """

    images: Tensor
    clean: Tensor
    robust: Tensor


def load_encoder(folder: str | Path, *, device: str = "cpu") -> Encoder:
    """Return the encoder of a finished pretraining or import, in eval mode and frozen.

    Args:
        folder: such as `results/digits-demo/pretrain/emp-crop4-free3-digits-s0`, or
            `imported/dino` of `robustviews import`, or the folder of a probe that tuned an encoder.
        device: device of the returned module.

    Returns:
        A module from images (N, 3, H, W) in [0, 1] to projections (N, D), to logits
        (N, classes) of a network with a classifier, or to features (N, D) of an imported backbone;
        `represent` returns the features that probes read.

    Raises:
        ArtifactError: a file is missing or damaged, or its checksum differs from the record.
    """
    folder = Path(folder)
    record = source = _record(folder)
    if record.stage == "probe" and folders.ENCODER in record.outputs:  # the tuned weights
        source = _record(_input(folder, record, folders.ENCODER).parent)
    if source.stage == "import":
        options, classified = source.spec["encoder"], True  # with as many classes as came along
    elif source.stage == "encoder":
        options, classified = source.result["encoder"], True
    elif source.stage == "pretrain":
        run = source.spec["run"]
        options, classified = run["encoder"], run["method"]["kind"] == "supervised"
        if classified and source is not record:  # tuned without its classifier
            options, classified = {**options, "hidden": None}, False
    else:
        raise ArtifactError(f"{folder}: expected a pretrain job, found {source.stage}")
    encoder = restore_encoder(
        artifacts.read_tensors(_covered(folder / folders.ENCODER, record.outputs)),
        options,
        classes=source.result["classes"] if classified else None,
        device=torch.device(device),
    )
    return encoder.requires_grad_(False)


def import_checkpoint(
    path: str | Path,
    *,
    normalise: str | None = None,
    weights: str | None = None,
    padding: int | None = None,
    sha256: str | None = None,
    device: str = "cpu",
) -> Encoder:
    """Return the network in a checkpoint of another program, in eval mode and frozen.

    Args:
        path: file of `torch.save`, or safetensors; nothing in it is executed.
        normalise: how its training normalised images in [0, 1]: `imagenet`, `swav`, `cifar10`,
            `cifar100`, `none`, or `mean,mean,mean/std,std,std`; None if the file tells.
        weights: which of several networks, such as `teacher`.
        padding: 1 or 2, of a 3x3 stem; None if the file tells.
        sha256: expected hash of the file.
        device: device of the returned module.

    Returns:
        A module from images (N, 3, H, W) in [0, 1] to logits (N, classes), if a classifier came
        along, or to features (N, D); `represent(images, "backbone")` returns the features.

    Raises:
        CheckpointError: no checkpoint, a damaged or partial one, another network, another hash, or
            one that does not tell its normalisation, padding, or which network is meant.
    """
    imported = checkpoints.bring(
        Path(path), normalise=normalise, weights=weights, padding=padding, sha256=sha256
    )
    return imported.network().to(device)


def load_classifier(folder: str | Path, *, device: str = "cpu") -> nn.Module:
    """Return the classifier of a finished probe, in eval mode and frozen.

    Args:
        folder: of a probe, such as `results/digits-demo/probe/emp-crop4-free3-digits-s0/rle`; or of
            a supervised pretraining or an import, whose network has a classifier of its own.
        device: device of the returned module.

    Returns:
        A module from images (N, 3, H, W) in [0, 1] to logits (N, classes).

    Raises:
        ArtifactError: a file is missing or damaged, or its checksum differs from a record.
        ValueError: the classifier takes stacks of views (an n-crop probe), or the folder has none.
    """
    folder = Path(folder)
    record = _record(folder)
    if record.stage != "probe":
        encoder = load_encoder(folder, device=device)
        if encoder.classifier is None:
            raise ValueError(f"{folder}: an encoder without classifier; name the folder of a probe")
        return _frozen(encoder, encoder.classifier, OWN_HEAD)
    options = dict(record.spec["probe"])
    probe = PROBES[options.pop("kind")](**options)
    if probe.draws_views:
        raise ValueError(f"{folder}: sees {probe.stack} views of an image; use stages.attack")
    tuned = folders.ENCODER in record.outputs
    pretrained = _input(folder, record, folders.ENCODER).parent
    encoder = load_encoder(folder if tuned else pretrained, device=device)
    weights = artifacts.read_tensors(_covered(folder / folders.HEAD, record.outputs))
    classes = artifacts.read_json(_input(folder, record, folders.SUMMARY))["classes"]
    head = probe.restore(weights, encoder, classes=classes)
    return _frozen(encoder, head, probe)


def load_images(folder: str | Path, split: str = "test") -> tuple[Tensor, Tensor]:
    """Return the images that the job in a folder read.

    Args:
        folder: of a pretraining, probe or attack, or of a prepared data set.
        split: `train` or `test`.

    Returns:
        Images (N, 3, S, S) float32 in [0, 1], and labels (N,) int64.

    Raises:
        ArtifactError: the folder has no record, or the data is missing.
    """
    folder = Path(folder)
    record = _record(folder)
    if record.stage != "data":
        folder = _input(folder, record, folders.SUMMARY).parent
        record = _record(folder, "data")
    further = (name for name in folders.further(folder) if name.startswith(f"{split}_"))
    for name in (*folders.split_files(split), *further):
        _covered(folder / name, record.outputs)
    images, labels = open_split(folder, split)
    pixels = torch.tensor(images[:])
    return augment.to_float(pixels, pixels.shape[-1]), torch.tensor(labels)


def attack(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    kind: str = "pgd",
    eps: float = 8.0,
    *,
    seed: int = 0,
    batch: int = 500,
    **options: Any,  # noqa: ANN401  # of the attack
) -> Attacked:
    """Attack any classifier as a study does.

    Args:
        model: maps images (B, 3, H, W) in [0, 1] to logits (B, classes); any normalisation is
            inside. The model is attacked in eval mode; afterwards its mode, parameters and their
            gradients are as before.
        images: (N, 3, H, W) float in [0, 1], on the device of the model.
        labels: (N,) int64.
        kind: of the attack, as in a study file: `pgd`, `autoattack`.
        eps: radius of the ball, in 1/255; with `norm="l2"` in pixel units.
        seed: of random starts.
        batch: number of images attacked at a time.
        options: more options of the attack in the units of a study file, such as `steps=20` and
            `step_size=2.55` (in 1/255).

    Raises:
        ValueError: unknown attack, an option out of its range, images outside [0, 1], labels that
            are none of the classes, an attack that left its ball, or (NonFiniteError) a logit of a
            clean or attacked image that is not finite.
    """
    if kind not in ATTACKS:
        raise ValueError(f"no attack {kind!r}; {nearest(kind, ATTACKS)}")
    pixels = images.dim() == 4 and images.is_floating_point() and images.numel() > 0
    if not (pixels and labels.dtype == torch.int64 and labels.shape == images.shape[:1]):
        found = " and ".join(f"{tuple(given.shape)} {given.dtype}" for given in (images, labels))
        raise ValueError(
            f"images and labels: expected (N, 3, H, W) float and (N,) int64, found {found}"
        )
    low, high = images.min().item(), images.max().item()
    if not (low >= 0 and high <= 1):  # so that NaN is refused, too
        raise ValueError(f"images: expected values in [0, 1], found [{low:.3g}, {high:.3g}]")
    if eps < _LEAST_EPS and options.get("norm") != "l2" and "relative_step" not in options:
        raise ValueError(f"eps: expected a radius in 1/255 such as 8, found {eps:g}")
    attack_class: Any = ATTACKS[kind]
    adversary = attack_class(eps=(eps,), **options)
    check_bounds(adversary)
    modes = [(module, module.training) for module in model.modules()]
    batches = []
    try:
        model.eval()
        with runtime.frozen(model), runtime.tf32(allowed=False):
            for number, (part, target) in enumerate(
                zip(images.detach().split(batch), labels.split(batch), strict=True)
            ):
                clean = evaluate.answer(model, part, target, title="attack")
                adversarial, robust = evaluate.attack_once(
                    model,
                    adversary,
                    part,
                    target,
                    radius=eps,
                    seed=runtime.attack_seed(seed, "attack", number),
                    title="attack",
                )
                batches.append(Attacked(adversarial, clean.bool(), robust.bool()))
    finally:
        for module, training in modes:
            module.training = training
    return Attacked(*(torch.cat(tensors) for tensors in zip(*batches, strict=True)))


def results(
    study: Study | str | Path, *, root: str | Path = ".", partial: bool = False
) -> list[Result]:
    """Return all results of a study as one tidy frame: a row per run, probe, attack and radius.

    Args:
        study: a study, or its file.
        root: project folder.
        partial: leave out results that do not exist yet instead of raising.

    Returns:
        Rows for `pandas.DataFrame`; accuracies are fractions, `eps` is in 1/255 and 0 for clean.

    Raises:
        ResultsError: a record is missing, stale or damaged.
    """
    study = study if isinstance(study, Study) else load_study(study)
    return reading.frame(study, Path(root), partial=partial)


def _frozen(encoder: Encoder, head: nn.Module, probe: Probe) -> nn.Module:
    return evaluate.Classifier(encoder, head, probe).eval().requires_grad_(False)


def _record(folder: Path, stage: str = "") -> Record:
    record = Record.read(folder / RECORD)
    if stage and record.stage != stage:
        raise ArtifactError(f"{folder}: expected a {stage} job, found {record.stage}")
    return record


def _covered(path: Path, hashes: dict[str, str]) -> Path:
    """Return a file's path after comparing its checksum with the one recorded by its name."""
    actual, expected = artifacts.sha256(path), hashes.get(path.name)
    if actual != expected:
        raise ArtifactError(f"{path}: expected {expected} as recorded, found {actual}")
    return path


def _input(folder: Path, record: Record, name: str) -> Path:
    """Return the path of a job's input, found from any working folder, with a matching checksum."""
    for path in map(Path, record.inputs):
        if path.name == name:
            for root in (*folder.absolute().parents, Path()):
                if (root / path).is_file():
                    return _covered(root / path, {name: record.inputs[path.as_posix()]})
            raise ArtifactError(f"{path}: missing, but {folder} was made from it")
    raise ArtifactError(f"{folder / RECORD}: names no {name} among its inputs")
