"""Find a vision transformer in tables of tensors, as `finding` finds a residual network.

A key that ends in `patch_embed.proj.weight` marks a candidate. It counts only if every name of
ViT-S/16 or ViT-B/16 exists beside it, with its shape, and no further block.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

from torch import Tensor

from robustviews import vit
from robustviews.checkpoints import naming
from robustviews.checkpoints.errors import CheckpointError
from robustviews.checkpoints.found import Found, Table, finite_float, head_of, inside
from robustviews.checkpoints.layouts import Layout, layout_of

_MARK = "patch_embed.proj.weight"
_MOCO_HEADS = 12  # of ViT-S in MoCo v3, vits.py; timm's and DINO's have 6, with the same shapes
_OURS = "vit."  # before timm's names in `vit.VisionTransformer`

Candidate = tuple[Table, str]  # a table, and what the names begin with


def find(
    tables: Sequence[Table],
    tree: Any,  # noqa: ANN401  # what a file holds
    weights: str | None,
    *,
    classifier: bool,
) -> Found | None:
    """Return the one vision transformer, or the one that `weights` names; None without any.

    Raises:
        CheckpointError: a partial, damaged or unsupported one, or several.
    """
    candidates = list(_candidates(tables))
    if not candidates:
        return None
    kinds = [_kind(*candidate) for candidate in candidates]
    whole = [(one, kind) for one, kind in zip(candidates, kinds, strict=True) if kind]
    if not whole:
        raise CheckpointError(_unsupported(*candidates[0]))
    number = naming.choose([(table.keys, prefix) for (table, prefix), _ in whole], weights)
    (table, prefix), kind = whole[number]
    place = naming.place_of(table.keys, prefix)
    everything = {name for one in tables for name in one.tensors} | {str(key) for key in tree}
    layout = layout_of(place, everything)
    tensors, names = table.tensors, list(vit.shapes(kind))
    found = {_OURS + name: finite_float(tensors[prefix + name], prefix + name) for name in names}
    head, ends = None, [f"{prefix}head.{end}" for end in ("weight", "bias")]
    if classifier and layout.classifier and len(whole) == 1:
        head = head_of(tensors, ends, vit.WIDTHS[kind])
    used = {prefix + name for name in names} | set(ends if head else ())
    return Found(
        backbone=kind,
        width=vit.WIDTHS[kind],
        stem="imagenet",
        heads=_heads(kind, layout, found[f"{_OURS}pos_embed"]),
        place=place,
        layout=layout,
        weights=found,
        matched=len(found),
        head=head,
        inside=inside(lambda name: tensors.get(prefix.removesuffix(_OURS) + name)),
        dropped=naming.groups((name for name in tensors if name not in used), prefix)
        + naming.siblings(tree, table.keys),
    )


def _candidates(tables: Sequence[Table]) -> Iterator[Candidate]:
    for table in tables:
        for name in table.tensors:
            if name == _MARK or name.endswith(f".{_MARK}"):
                yield table, name[: -len(_MARK)]


def _kind(table: Table, prefix: str) -> str | None:
    """Return the network that a candidate is; None for another one."""
    for kind in vit.WIDTHS:
        if not _differing(table, prefix, kind):
            return kind
    return None


def _differing(table: Table, prefix: str, kind: str) -> list[str]:
    """Return names that are missing, of another shape, or of a block that the network lacks."""
    expected, tensors = vit.shapes(kind), table.tensors
    wrong = [
        name
        for name, shape in expected.items()
        if prefix + name not in tensors or tuple(tensors[prefix + name].shape) != shape
    ]
    names = [name[len(prefix) :] for name in tensors if name.startswith(prefix)]
    more = [name for name in names if re.match(r"(blocks\.|norm\.|reg_token|dist_token)", name)]
    return wrong + [name for name in more if name not in expected]


def _unsupported(table: Table, prefix: str) -> str:
    nearest = min(vit.WIDTHS, key=lambda kind: len(_differing(table, prefix, kind)))
    differing = _differing(table, prefix, nearest)
    place = naming.shown(naming.place_of(table.keys, prefix))
    return (
        f"another or an incomplete vision transformer at {place}; expected ViT-S/16 or ViT-B/16 "
        f"for images of {vit.SIDE} pixels, nearest is {nearest}: {len(differing)} names differ, "
        f"such as {differing[0]}; import a checkpoint of one of these"
    )


def _heads(kind: str, layout: Layout, positions: Tensor) -> int:
    """Return the attention heads; tensors do not tell, but MoCo v3's fixed positions do."""
    fixed = not positions[0, 0].any()  # sines and cosines, and zeros for the class token
    return _MOCO_HEADS if fixed or layout.name == "MoCo v3" else vit.HEADS[kind]
