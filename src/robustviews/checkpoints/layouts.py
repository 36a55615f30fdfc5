"""How the programs that pretrain networks lay out their checkpoints.

Tensors do not tell everything: a network of another padding or normalisation has the same names and
shapes, and a layer called `fc` may be a classifier or a projector. What is known, is known from the
program that wrote the file, and that is recognised by the names in the file.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Layout:
    """A program's files.

    Attributes:
        name: of the program or method.
        at: regular expression of the place of a network: `tables:prefix`, such as
            `state_dict:module.encoder_q.`.
        marks: regular expressions, each of which some name in the file must match.
        normalise: normalisation outside the network, by name, with an ImageNet stem; `none` with
            any stem; None if it differs from file to file.
        padding: of a 3x3 stem; None if it differs from file to file.
        classifier: whether a layer `fc` is a trained classifier.
    """

    name: str
    at: str = ""
    marks: tuple[str, ...] = ()
    normalise: str | None = None
    padding: int | None = None
    classifier: bool = False

    def fits(self, place: str, names: Iterable[str]) -> bool:
        """Return whether a network at a place, in a file with these names, has this layout."""
        if not re.search(self.at, place):
            return False
        return all(any(re.search(mark, name) for name in names) for mark in self.marks)


_LIGHTNING = r"^pytorch-lightning_version$"
_DUAL = r"\.bn_list\.1\."
PLAIN = Layout("plain state dict", classifier=True)

# The first that fits counts. Sources: the loaders in the repositories that catalogue.py names.
LAYOUTS: tuple[Layout, ...] = (
    Layout("ACL or DynACL, adversarial route", marks=(_DUAL, r"(^|\.)normalize\.mean$"), padding=1),
    Layout("AdvCL, adversarial route", marks=(_DUAL,), normalise="none", padding=1),
    Layout(
        "DeACL",
        at=r"^state_dict:backbone\.$",
        marks=(_LIGHTNING, r"^backbone\.normalize\.mean$"),
        padding=2,
    ),
    Layout(
        "DynACL++",
        at=r":(module\.)?$",
        marks=(r"(^|\.)normalize\.mean$", r"\.downsample\.conv\."),
        padding=1,
    ),
    Layout(
        "SwAV or DeepCluster v2",
        at=r":module\.$",
        marks=(r"^module\.prototypes\.",),
        normalise="swav",
    ),
    Layout("MoCo v3", at=r":(module\.)?(base|momentum)_encoder\.$", normalise="imagenet"),
    Layout("MoCo v1 or v2", at=r":(module\.)?encoder_[qk]\.$", normalise="imagenet"),
    Layout(
        "SimSiam", at=r":module\.encoder\.$", marks=(r"^module\.predictor\.",), normalise="imagenet"
    ),
    Layout(
        "DINO",
        at=r"(^|/)(student|teacher):(module\.)?backbone\.$",
        marks=(r"(^|\.)head\.",),
        normalise="imagenet",
    ),
    Layout(
        "Barlow Twins or VICReg",
        at=r":module\.backbone\.$",
        marks=(r"^module\.projector\.",),
        normalise="imagenet",
    ),
    Layout("VISSL", at=r":_feature_blocks\.$", normalise="imagenet"),
    Layout(
        "solo-learn",
        at=r"^state_dict:(momentum_)?(backbone|encoder)\.$",
        marks=(_LIGHTNING, r"^projector\.", r"^classifier\."),
        padding=2,
    ),
    Layout(
        "lightly",
        at=r"^state_dict:([a-z]+_)?backbone\.$",
        marks=(_LIGHTNING, r"projection_head\."),
        normalise="imagenet",
    ),
    PLAIN,
)

# Two networks that one file holds: the part of their places that differs, and its plain name. The
# first is the one that the authors evaluate.
PAIRS: tuple[tuple[tuple[str, str], tuple[str, str]], ...] = (
    (("base_encoder", "base"), ("momentum_encoder", "momentum")),  # MoCo v3
    (("encoder_q", "q"), ("encoder_k", "k")),  # MoCo v1, v2
    (("teacher", "teacher"), ("student", "student")),  # DINO
    (("backbone", "online"), ("momentum_backbone", "momentum")),  # solo-learn
    (("encoder", "online"), ("momentum_encoder", "momentum")),  # solo-learn, older
    (("backbone", "teacher"), ("student_backbone", "student")),  # lightly's DINO
    (("backbone", "student"), ("teacher_backbone", "teacher")),  # lightly's BYOL
    (("backbone", "q"), ("key_backbone", "k")),  # lightly's MoCo v2
)


def layout_of(place: str, names: Iterable[str]) -> Layout:
    """Return the layout of a network at a place, in a file with these names."""
    names = list(names)
    return next(layout for layout in LAYOUTS if layout.fits(place, names))
