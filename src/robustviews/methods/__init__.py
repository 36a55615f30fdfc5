"""Methods: the views that a method reads, what an adversary may perturb, and the loss.

Each method is a frozen dataclass of its options in a module of its own. Images are in [0, 1].

In distributed training, `Batch` is this rank's share of the minibatch, and each loss is scaled so
that the sum over ranks equals the single-process loss.
"""

from __future__ import annotations

from robustviews.methods.barlow_twins import BarlowTwins
from robustviews.methods.byol import Byol
from robustviews.methods.dino import Dino
from robustviews.methods.emp_ssl import EmpSsl
from robustviews.methods.moco_v3 import MocoV3
from robustviews.methods.protocol import (
    Base,
    Batch,
    DivisionError,
    Heads,
    Loss,
    Method,
    Net,
    Share,
    TwoViews,
    divide,
)
from robustviews.methods.simclr import SimClr
from robustviews.methods.simsiam import SimSiam
from robustviews.methods.supervised import Supervised
from robustviews.methods.swav import SwAv
from robustviews.methods.vicreg import VicReg

__all__ = [
    "METHODS",
    "BarlowTwins",
    "Base",
    "Batch",
    "Byol",
    "Dino",
    "DivisionError",
    "EmpSsl",
    "Heads",
    "Loss",
    "Method",
    "MocoV3",
    "Net",
    "Share",
    "SimClr",
    "SimSiam",
    "Supervised",
    "SwAv",
    "TwoViews",
    "VicReg",
    "divide",
]

METHODS: dict[str, type[Method]] = {
    "emp_ssl": EmpSsl,
    "simclr": SimClr,
    "supervised": Supervised,
    "barlow_twins": BarlowTwins,
    "vicreg": VicReg,
    "simsiam": SimSiam,
    "byol": Byol,
    "moco_v3": MocoV3,
    "swav": SwAv,
    "dino": Dino,
}
