"""Digests of code: every edit that may change a number changes the digests of what uses it, no other does."""

from __future__ import annotations

import ast
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from robustviews import fingerprint

PACKAGE = {
    "__init__": '"""A package."""\n__version__ = "1"\n',
    "options": """
class LazyModule:
    pass
""",
    "train": '''
"""Training."""

from __future__ import annotations

from typing import TYPE_CHECKING

from robustviews import noise
from robustviews.layers import Network as Net
from robustviews.layers import scale
from robustviews.options import LazyModule

if TYPE_CHECKING:
    import torch

    from robustviews import losses
else:
    torch, losses = LazyModule("torch"), LazyModule("robustviews.losses")

RATE = 0.1
UNUSED = 5
LOW, HIGH = 0, 1


def logged(function):
    return function


@logged
def train(net: Net = Net(), *, rate=RATE) -> torch.Tensor:
    """Train."""

    def step(x):
        return clip(x) * scale(rate)

    loss: float = losses.contrast(step(noise.draw(3)))
    return loss


def clip(x):
    return min(max(x, LOW), HIGH)


def choose(x):
    match x:
        case MARK.value:
            return noise.fold(x)
        case Other(field=3):
            return 1
    return 0


class MARK:
    value = 3


class Other:
    field = RATE


def evaluate(x):
    from robustviews import metrics as measures
    from robustviews.text import label

    return measures.accuracy(x), label


def everything(name):
    return getattr(losses, name)
''',
    "losses": '''
"""Losses."""

TEMPERATURE = 0.5


def contrast(x):
    """Return the contrast."""
    return _mean(x) / TEMPERATURE


def spread(x):
    return _mean(x) * 2


def _mean(x):
    return sum(x) / len(x)


LOSSES = {"contrast": contrast}
''',
    "layers": '''
from robustviews.losses import spread


class Base:
    depth = 2


class Network(Base):
    """A network.

    Attributes:
        width: of it.
    """

    width: int = 3

    def forward(self, x):
        """Map x."""
        return x * self.width


def scale(x):
    return spread(x)
''',
    "noise": "def draw(n):\n    return [0.5] * n\n\n\ndef fold(x):\n    return -x\n",
    "metrics": "def accuracy(x):\n    return x\n",
    "text/__init__": "from robustviews.text.labels import label\n",
    "text/labels": "label = 'x'\n",
    "tables": "WIDE = 1\n",
}


@pytest.fixture
def digest(tmp_path):
    """Return a function that digests roots of the package above, with some text replaced."""
    count = 0

    def run(*roots: str, **changes: tuple[str, str]) -> str:
        nonlocal count
        count += 1
        source = tmp_path / str(count)
        for name, text in PACKAGE.items():
            for old, new in [changes[name]] if name in changes else []:
                assert old in text, f"{old!r} is not in {name}"
                text = text.replace(old, new)  # noqa: PLW2901
            path = source / f"{name}.py"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return fingerprint.digest(*(tuple(root.split(".")) for root in roots), source=source)

    return run
