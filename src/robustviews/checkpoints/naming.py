"""Names in checkpoints: torchvision's from others, plain ones for people, and groups of many."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from robustviews.checkpoints.errors import CheckpointError
from robustviews.checkpoints.layouts import PAIRS

# Of networks with one batch norm for clean and one for adversarial images, the latter is taken:
# it is the one that DynACL, ACL and AdvCL evaluate.
_CLEAN = re.compile(r"\.bn_list\.0\.")
_RENAMED = (
    (re.compile(r"\.bn_list\.1\."), "."),
    (re.compile(r"\.shortcut\."), ".downsample."),
    (re.compile(r"\.downsample\.conv\."), ".downsample.0."),
    (re.compile(r"\.downsample\.bn\."), ".downsample.1."),
)

Place = tuple[tuple[str, ...], str]  # keys of the tables, prefix of the names


def torchvision_names(names: Iterable[str], prefix: str) -> dict[str, str]:
    """Return the names that begin with a prefix, by torchvision's names."""
    result: dict[str, str] = {}
    for original in names:
        name = original[len(prefix) :]
        if _CLEAN.search(name):
            continue
        for pattern, replacement in _RENAMED:
            name = pattern.sub(replacement, name)
        if name in result:
            raise CheckpointError(f"two tensors for one layer: {result[name]} and {original}")
        result[name] = original
    return result


def choose(places: Sequence[Place], weights: str | None) -> int:
    """Return the number of the network that `weights` names; the only one for None.

    Raises:
        CheckpointError: several fit and `weights` names none of them.
    """
    if len(places) == 1:
        if weights is None or weights in (_text(places[0]), *_parts(places[0])):
            return 0
        raise CheckpointError(f"holds one network, at {_text(places[0])}; leave out --weights")
    labels, texts = _labels(places), [_text(place) for place in places]
    pair = dict(next((pair for pair in PAIRS if {name for name, _ in pair} == set(labels)), ()))
    plain = [pair.get(label, label) for label in labels]
    for number, names in enumerate(zip(labels, plain, texts, strict=True)):
        if weights in names:
            return number
    listed = ", ".join(f"{name} ({text})" for name, text in zip(plain, texts, strict=True))
    best = next(iter(pair.values()), "")  # what the authors evaluate, if it is known
    advice = f"; its authors evaluate {best}" if best else ""
    raise CheckpointError(
        f"holds {len(places)} networks: {listed}; name one with --weights, such as "
        f"--weights {best or plain[0]}{advice}"
    )


def place_of(keys: Sequence[str], prefix: str) -> str:
    """Return the place of a network, `tables:prefix`."""
    return "/".join(keys) + ":" + prefix


def shown(place: str) -> str:
    """Return the place of a network, `tables:prefix`, for people."""
    return "the top level" if place == ":" else place


def groups(names: Iterable[str], prefix: str) -> list[str]:
    """Return many names as few groups with counts, such as `module.fc.* (4)`."""
    counts = Counter(_group(name, prefix) for name in names)
    return [f"{group} ({count})" for group, count in sorted(counts.items())]


def siblings(tree: Mapping[Any, Any], keys: Sequence[str]) -> list[str]:
    """Return what lies beside a table: the other keys of the mappings around it."""
    beside = []
    for depth, key in enumerate(keys):
        front = "/".join((*keys[:depth], ""))
        beside += [f"{front}{other}" for other in tree if str(other) != key]
        tree = next(inner for name, inner in tree.items() if str(name) == key)
    return beside


def _group(name: str, prefix: str) -> str:
    if _CLEAN.search(name):
        return "*.bn_list.0.*"
    front = prefix if name.startswith(prefix) else "module." if name.startswith("module.") else ""
    first, dot, _ = name[len(front) :].partition(".")
    return f"{front}{first}.*" if dot else f"{front}{first}"


def _parts(place: Place) -> list[str]:
    keys, prefix = place
    return [*keys, *prefix.split(".")[:-1]]


def _text(place: Place) -> str:
    return shown(place_of(*place))


def _labels(places: Sequence[Place]) -> list[str]:
    """Return what distinguishes each place from the others."""
    shared = set.intersection(*(set(_parts(place)) for place in places))
    own = ([part for part in _parts(place) if part not in shared] for place in places)
    return [".".join(parts) or _text(place) for parts, place in zip(own, places, strict=True)]
