"""Find the network in nested mappings of tensors, whatever its names begin with.

A key that ends in `conv1.weight`, outside of a block, is the stem of a candidate. A candidate
counts only if every name of a supported network exists beside it, with its shape, and no further
layer: nothing partial is accepted.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor

from robustviews.checkpoints import naming, transformers
from robustviews.checkpoints.errors import CheckpointError
from robustviews.checkpoints.found import Found, Stem, Table, finite_float, head_of, inside
from robustviews.checkpoints.layouts import layout_of
from robustviews.resnet import BACKBONES, ResNet

_STEMS: dict[tuple[int, ...], Stem] = {(3, 3): "cifar", (7, 7): "imagenet"}
Shapes = dict[str, tuple[int, ...]]  # of weights, by torchvision's name
Differences = tuple[list[str], list[str], list[str]]
_COUNTER = "num_batches_tracked"  # of no effect here, and absent from old files
_STATISTICS = ("running_mean", "running_var")


@dataclass(frozen=True)
class Candidate:
    """A place where a network may be.

    Attributes:
        table: tensors around it.
        prefix: what its names begin with.
        names: name in the table, by torchvision's name.
    """

    table: Table
    prefix: str
    names: dict[str, str]

    @property
    def place(self) -> str:
        """Where the network is: `tables:prefix`."""
        return naming.place_of(self.table.keys, self.prefix)

    def tensor(self, name: str) -> Tensor | None:
        """Return the tensor of torchvision's name, or None."""
        return self.table.tensors.get(self.names.get(name, ""))


def find(
    tree: Any,  # noqa: ANN401  # what a file holds
    weights: str | None = None,
    *,
    classifier: bool = True,
) -> Found:
    """Find the one network in a tree, or the one that `weights` names.

    Args:
        tree: nested mappings.
        weights: plain name of one of several networks, such as `teacher`.
        classifier: whether to keep a trained classifier `fc`.

    Raises:
        CheckpointError: no supported network, a partial or damaged one, or several.
    """
    tables = list(_tables(tree, ()))
    candidates = [candidate for table in tables for candidate in _candidates(table)]
    fits = [(candidate, _architectures(candidate)) for candidate in candidates]
    whole = [(candidate, names[0]) for candidate, names in fits if names]
    if not whole:
        transformer = transformers.find(tables, tree, weights, classifier=classifier)
        if transformer is None:
            raise CheckpointError(_no_network(tables, candidates))
        return transformer
    number = naming.choose([(each.table.keys, each.prefix) for each, _ in whole], weights)
    chosen, backbone = whole[number]
    everything = {name for table in tables for name in table.tensors} | set(_keys(tree))
    layout = layout_of(chosen.place, everything)
    # Beside a second network, such as a momentum encoder, `fc` is a projector; beside the moving
    # average of supervised training it is a classifier.
    alone = len(whole) == 1 or any(re.search(r"(^|[_./])ema[_./:]", c.place) for c, _ in whole)
    network = _network(chosen, backbone)
    assert network is not None
    stem, width, expected = network
    head = _head(chosen, expected) if classifier and layout.classifier and alone else None
    used = _used(chosen, expected, head is not None)
    return Found(
        backbone=backbone,
        width=width,
        stem=stem,
        place=chosen.place,
        layout=layout,
        weights=_weights(chosen, expected),
        matched=sum(chosen.tensor(name) is not None for name in expected),
        head=head,
        inside=inside(chosen.tensor),
        dropped=naming.groups(
            (each for each in chosen.table.tensors if each not in used), chosen.prefix
        )
        + naming.siblings(tree, chosen.table.keys),
    )


def _tables(value: Any, keys: tuple[str, ...], above: tuple[int, ...] = ()) -> Iterator[Table]:  # noqa: ANN401
    """Yield all mappings that hold tensors; a mapping inside itself is left out."""
    if not isinstance(value, Mapping) or id(value) in above or len(above) > 20:
        return
    tensors = {k: v for k, v in value.items() if isinstance(k, str) and isinstance(v, Tensor)}
    if tensors:
        yield Table(keys, tensors)
    for key, inner in value.items():
        yield from _tables(inner, (*keys, str(key)), (*above, id(value)))


def _keys(tree: Any) -> list[str]:  # noqa: ANN401  # what a file holds
    return [str(key) for key in tree] if isinstance(tree, Mapping) else []


def _candidates(table: Table) -> Iterator[Candidate]:
    for name in table.tensors:
        match = re.fullmatch(r"(|.*\.)conv1\.weight", name)
        if match and not re.search(r"(^|\.)layer\d+\.", match[1]):
            prefix = match[1]
            names = [each for each in table.tensors if each.startswith(prefix)]
            yield Candidate(table, prefix, naming.torchvision_names(names, prefix))


def _architectures(candidate: Candidate) -> list[str]:
    """Return the supported networks that a candidate is; at most one."""
    found = ((name, _differences(candidate, name)) for name in BACKBONES)
    return [name for name, differences in found if differences and not any(differences)]


def _network(candidate: Candidate, backbone: str) -> tuple[Stem, int, Shapes] | None:
    """Return stem, width, and names with shapes of a network with the candidate's stem, if any."""
    stem = candidate.tensor("conv1.weight")
    if stem is None or stem.dim() != 4 or tuple(stem.shape[2:]) not in _STEMS:
        return None
    kind, width = _STEMS[tuple(stem.shape[2:])], len(stem)
    return (kind, width, _expected(backbone, width, kind)) if 1 <= width <= 1024 else None


@cache
def _expected(backbone: str, width: int, stem: Stem) -> Shapes:
    with torch.device("meta"):
        network = ResNet(*BACKBONES[backbone], width=width, stem=stem)
    return {name: tuple(value.shape) for name, value in network.state_dict().items()}


def _differences(candidate: Candidate, backbone: str) -> Differences | None:
    """Return names that are missing, of another shape, and of layers that the network lacks.

    None for a stem that no supported network has.
    """
    network = _network(candidate, backbone)
    if network is None:
        return None
    expected, missing, other = network[2], list[str](), list[str]()
    for name, shape in expected.items():
        tensor = candidate.tensor(name)
        if tensor is None:
            missing += [] if name.endswith(_COUNTER) else [name]
        elif tuple(tensor.shape) != shape or tensor.layout != torch.strided or tensor.is_meta:
            other.append(name)
    more = [n for n in candidate.names if re.match(r"(conv|bn|layer)\d", n) and n not in expected]
    return missing, other, more


def _no_network(tables: list[Table], candidates: list[Candidate]) -> str:
    """Return why no candidate counts."""
    names = [name for table in tables for name in table.tensors]
    if not names:
        return f"holds no tensors by name; expected the weights of {_supported()}"
    if not candidates:
        first = ", ".join(names[:3])
        expected = f"expected {_supported()}; import a checkpoint of one of these"
        return f"another network; {expected}; its first tensors: {first}"
    lines = [
        (sum(map(len, differences)), backbone, candidate, differences)
        for candidate in candidates
        for backbone in BACKBONES
        if (differences := _differences(candidate, backbone)) is not None
    ]
    if not lines:
        stem = candidates[0].table.tensors[f"{candidates[0].prefix}conv1.weight"]
        return (
            f"another network: the first convolution at {naming.shown(candidates[0].place)} has "
            f"weights of shape {tuple(stem.shape)}; expected (width, 3, 3, 3) or (width, 3, 7, 7)"
        )
    _, backbone, candidate, differences = min(lines, key=lambda line: line[0])
    return _nearly(naming.shown(candidate.place), backbone, differences)


def _nearly(place: str, backbone: str, differences: Differences) -> str:
    """Return how a candidate differs from the most similar supported network."""
    missing, other, more = differences
    if missing and not other and not more and all(n.endswith(_STATISTICS) for n in missing):
        return (
            f"the batch-norm statistics are missing ({len(missing)}, such as {missing[0]}) at "
            f"{place}; save the whole state dict of the network, with its buffers"
        )
    kinds = {"names missing": missing, "of another shape": other, "names too many": more}
    parts = [f"{len(names)} {kind}, such as {names[0]}" for kind, names in kinds.items() if names]
    return (
        f"another or an incomplete network at {place}; expected {_supported()}, nearest is "
        f"{backbone}: {'; '.join(parts)}; save the whole state dict, or import another checkpoint"
    )


def _supported() -> str:
    return (
        ", ".join(name.replace("resnet", "ResNet-") for name in BACKBONES) + ", ViT-S/16, ViT-B/16"
    )


def _weights(candidate: Candidate, expected: Shapes) -> dict[str, Tensor]:
    """Return finite weights in float32, in memory of their own."""
    weights = {}
    for name in expected:
        tensor = candidate.tensor(name)
        if name.endswith(_COUNTER):
            weights[name] = torch.tensor(0) if tensor is None else tensor.long().clone()
        elif tensor is not None:
            weights[name] = finite_float(tensor, candidate.names[name])
    return weights


def _head(candidate: Candidate, expected: Shapes) -> tuple[Tensor, Tensor] | None:
    """Return weight and bias of a layer `fc`; None without one, and for a projector `fc.0...`."""
    names = [candidate.names.get(f"fc.{end}", "") for end in ("weight", "bias")]
    (features,) = expected["layer4.0.downsample.1.weight"]  # every supported network has one
    return head_of(candidate.table.tensors, names, features)


def _used(candidate: Candidate, expected: Shapes, head: bool) -> set[str]:
    """Return the names in the file that the import uses."""
    kept = set(expected)
    kept |= {f"{word}.{part}" for word in ("normalise", "normalize") for part in ("mean", "std")}
    kept |= {"fc.weight", "fc.bias"} if head else set()
    return {original for name, original in candidate.names.items() if name in kept}
