"""Methods: the views that a method reads, what an adversary may perturb, and the loss.

Each method is a frozen dataclass of its options in a module of its own. Images are in [0, 1].

In distributed training, `Batch` is this rank's share of the minibatch, and each loss is scaled so
that the sum over ranks equals the single-process loss.
"""

from __future__ import annotations

from robustviews.methods.emp_ssl import EmpSsl
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
from robustviews.methods.supervised import Supervised

__all__ = [
    "METHODS",
    "Base",
    "Batch",
    "DivisionError",
    "EmpSsl",
    "Heads",
    "Loss",
    "Method",
    "Net",
    "Share",
    "SimClr",
    "Supervised",
    "TwoViews",
    "divide",
]

METHODS: dict[str, type[Method]] = {
    "emp_ssl": EmpSsl,
    "simclr": SimClr,
    "supervised": Supervised,
}
