"""From a checkpoint to an encoder: read, find, and settle what tensors do not tell."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from robustviews import catalogue
from robustviews.checkpoints import downloading, normalisations
from robustviews.checkpoints.errors import CheckpointError
from robustviews.checkpoints.finding import find
from robustviews.checkpoints.found import Found, finite_float
from robustviews.checkpoints.normalisations import NORMALISATIONS, Normalisation
from robustviews.checkpoints.reading import Contents, read, recognise
from robustviews.encoder import Encoder, build_encoder, load_strictly
from robustviews.resnet import Normalise
from robustviews.vit import TransformerError

if TYPE_CHECKING:
    from torch import Tensor

PADDING = "padding"  # of the stem: the only option that weights do not imply, so kept beside them
_PLACES = (":backbone.", ":backbone.vit.")  # of backbones in files of this project
_OWN = ("backbone.", "prefeature.", "projector.", "classifier.")


@dataclass(frozen=True)
class Imported:
    """A checkpoint as an encoder of this project.

    Attributes:
        container: how the file is stored.
        sha256: hash of the file, in hexadecimal digits.
        found: the network in it.
        options: arguments of `encoder.build_encoder`.
        classes: of the classifier that came along; None without one.
        weights: all weights of the encoder.
        origins: why the normalisation and the padding are what they are.
        dropped: what else the file holds, in groups.
    """

    container: str
    sha256: str
    found: Found
    options: dict[str, Any]
    classes: int | None
    weights: dict[str, Tensor]
    origins: dict[str, str]
    dropped: list[str]

    def network(self) -> Encoder:
        """Return the encoder, in eval mode and frozen."""
        encoder = build_encoder(**self.options, classes=self.classes)
        load_strictly(encoder, self.weights, "encoder")
        return encoder.eval().requires_grad_(False)

    def summary(self, file: str) -> dict[str, Any]:
        """Return what a record states of the import of a file."""
        return {
            "source": {
                "file": file,
                "sha256": f"sha256:{self.sha256}",
                "container": self.container,
            },
            "layout": self.found.layout.name,
            "place": self.found.place,
            "encoder": self.options,
            "origins": self.origins,
            "dropped": self.dropped,
            "classes": self.classes,
            "matched": self.found.matched,
        }

    @property
    def metadata(self) -> dict[str, str]:
        """Return what belongs into the file of the encoder beside its weights."""
        return {PADDING: str(self.options.get(PADDING, 3))}


def bring(
    path: Path,
    *,
    normalise: str | None = None,
    weights: str | None = None,
    padding: int | None = None,
    classifier: bool = True,
    sha256: str | None = None,
) -> Imported:
    """Read a checkpoint and turn it into an encoder of this project.

    Args:
        path: of the checkpoint.
        normalise: name in `NORMALISATIONS`, or `mean,mean,mean/std,std,std`; None if the layout
            or the file tells.
        weights: which of several networks, such as `teacher`.
        padding: 1 or 2, of a 3x3 stem; None if the layout tells.
        classifier: whether to keep a classifier that came along.
        sha256: expected hash of the file, or its first digits.

    Raises:
        CheckpointError: the file is no checkpoint of a supported network, or does not tell all.
    """
    if path.is_file():
        recognise(path)  # before a large file is hashed
    digest = downloading.check(path, sha256)
    contents = read(path)
    try:
        return _imported(contents, digest, normalise, weights, padding, classifier=classifier)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from None


def _imported(
    contents: Contents,
    digest: str,
    normalise: str | None,
    weights: str | None,
    padding: int | None,
    *,
    classifier: bool,
) -> Imported:
    found = find(contents.tree, weights, classifier=classifier)
    heads = _own_heads(contents, found)
    own_padding = contents.metadata.get(PADDING, "1" if "prefeature.0.weight" in heads else None)
    options, origins = _settle(found, digest, normalise, padding, own_padding)
    first, last = heads.get("prefeature.0.weight"), heads.get("projector.3.weight")
    options["hidden"] = None if first is None else len(first)
    if last is not None:
        options["projection"] = len(last)
    backbone = {**found.weights, **_buffers(options["normalise"])}
    ours = heads or _classifier(found)
    imported = Imported(
        container=contents.container,
        sha256=digest,
        found=found,
        options=options,
        classes=len(ours["classifier.weight"]) if "classifier.weight" in ours else None,
        weights={**{f"backbone.{name}": value for name, value in backbone.items()}, **ours},
        origins=origins,
        dropped=[] if heads else found.dropped,
    )
    _check_whole(imported)
    return imported


def _own_heads(contents: Contents, found: Found) -> dict[str, Tensor]:
    """Return pre-feature and projector, or classifier, of a file of this project; else nothing."""
    if contents.container != "safetensors" or found.place not in _PLACES:
        return {}
    if not all(name.startswith(_OWN) for name in contents.tree):
        return {}
    others = {n: v for n, v in contents.tree.items() if not n.startswith("backbone.")}
    return {n: v if n.endswith("tracked") else finite_float(v, n) for n, v in others.items()}


def _classifier(found: Found) -> dict[str, Tensor]:
    if found.head is None:
        return {}
    return {"classifier.weight": found.head[0], "classifier.bias": found.head[1]}


def _buffers(normalise: Normalisation | None) -> dict[str, Tensor]:
    return {} if normalise is None else Normalise(*normalise).state_dict(prefix="normalise.")


def _check_whole(imported: Imported) -> None:
    """Raise CheckpointError unless the weights are exactly those of the encoder."""
    try:
        with torch.device("meta"):
            network = build_encoder(**imported.options, classes=imported.classes)
    except TransformerError as error:
        raise CheckpointError(str(error)) from None
    expected = {name: value.shape for name, value in network.state_dict().items()}
    actual = {name: value.shape for name, value in imported.weights.items()}
    differing = sorted({name for name, _ in expected.items() ^ actual.items()})
    if differing:
        raise CheckpointError(f"an incomplete encoder of this project; see {differing[0]}")


def _settle(
    found: Found, digest: str, normalise: str | None, padding: int | None, own: str | None
) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the options of `build_encoder` that a network implies, and where two come from.

    Args:
        found: the network.
        digest: hash of its file.
        normalise: given normalisation, or None.
        padding: given padding, or None.
        own: padding of an encoder of this project; None for any other.
    """
    normalisation = _normalisation(found, digest, normalise, own=own is not None)
    pad = _padding(found, padding, own)
    unknown = [value for value in (normalisation, pad) if isinstance(value, str)]
    if unknown:
        raise CheckpointError("; ".join(unknown))
    assert not isinstance(normalisation, str)
    assert not isinstance(pad, str)
    options: dict[str, Any] = {"backbone": found.backbone, "normalise": normalisation[0]}
    if found.heads is None:
        options |= {"width": found.width, "stem": found.stem}
    else:
        options |= {"heads": found.heads}
    origins = {"normalise": normalisation[1]}
    if pad is not None:
        options[PADDING], origins[PADDING] = pad
    return options, origins


def _normalisation(
    found: Found, digest: str, given: str | None, *, own: bool
) -> tuple[Normalisation | None, str] | str:
    """Return the normalisation and its origin, or what to ask."""
    layout, published = found.layout, catalogue.by_hash(digest)
    stated = None if given is None else normalisations.parse(given)
    if found.inside is not None:
        if given is not None and stated != found.inside:
            raise CheckpointError(
                f"the network itself normalises by {normalisations.name_of(found.inside)}; leave "
                "out --normalise"
            )
        return found.inside, "inside the network"
    if given is not None:
        return stated, "given"
    if own:
        return None, "as this project trains"
    if layout.normalise == "none" or (layout.normalise and found.stem == "imagenet"):
        return NORMALISATIONS[layout.normalise], f"known of {layout.name}"
    if published is not None and published.normalise is not None:
        return NORMALISATIONS[published.normalise], f"known of {published.file}"
    return (
        "the tensors do not tell how training normalised images; add --normalise imagenet (as "
        "torchvision, Barlow Twins, VICReg, DINO, BYOL), swav, cifar10, cifar100, or none (as "
        "Google's SimCLR, and networks that take [0, 1])"
    )


def _padding(found: Found, given: int | None, own: str | None) -> tuple[int, str] | str | None:
    """Return the padding of a 3x3 stem and its origin, or what to ask; None for a 7x7 stem."""
    if found.stem == "imagenet":
        if given is not None:
            raise CheckpointError("the stem is 7x7 with padding 3; leave out --padding")
        return None
    if given is not None or own is not None:
        text = str(own if given is None else given)
        if text not in ("1", "2"):
            raise CheckpointError(f"padding: expected 1 or 2, found {text}")
        return int(text), "known of this project" if given is None else "given"
    if found.layout.padding is not None:
        return found.layout.padding, f"known of {found.layout.name}"
    return (
        "the stem is 3x3, and the tensors do not tell its padding; add --padding 1 (most programs) "
        "or --padding 2 (solo-learn, DeACL)"
    )
