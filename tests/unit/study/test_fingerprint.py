"""Digests of code: an edit changes the digests of jobs that use the code, and no others."""

from __future__ import annotations

import pytest

from robustviews.study import fingerprint

PACKAGE = {
    "__init__": '"""A package."""\n__version__ = "1"\n',
    "options": """
class LazyModule:
    pass


def switch(default, **notes):
    return default
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
late = LazyModule("robustviews.metrics")


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


def lately(x):
    return late.accuracy(x)
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
LOSSES["s"] = spread
''',
    "layers": '''
from robustviews.losses import spread
from robustviews.options import switch


class Base:
    depth = 2


class Network(Base):
    """A network.

    Attributes:
        width: of it.
    """

    width: int = 3
    height: int = switch(5, ge=1, code=(5,))

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
    "rounding": """
import operator as op
from math import floor as whole

from robustviews.noise import draw as first, fold as second
from robustviews.options import LazyModule

np = LazyModule("numpy")


def rounded(x):
    return first(whole(x)) - second(whole(x))


def sized(x):
    return np.size(op.neg(x))
""",
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
            path = source / f"{name}.py"
            path.parent.mkdir(parents=True, exist_ok=True)
            old, new = changes.get(name, ("", ""))
            assert old in text, f"{old!r} is not in {name}"
            path.write_text(text.replace(old, new) if old else text)
        return fingerprint.digest(*(tuple(root.split(".")) for root in roots), source=source)

    return run


# Each edit: old text, new text, and a definition that uses the text.
USED = {
    "body": ("train.clip", "train", "min(max(x, LOW), HIGH)", "max(min(x, HIGH), LOW)"),
    "helper": ("train.train", "train", "min(max(x, LOW), HIGH)", "max(min(x, HIGH), LOW)"),
    "helper of a lazily imported module": ("train.train", "losses", "/ len(x)", "/ (1 + len(x))"),
    "constant of a lazily imported module": ("train.train", "losses", "= 0.5", "= 0.7"),
    "lazily imported module that type checkers do not see": (
        "train.lately",
        "metrics",
        "return x",
        "return -x",
    ),
    "helper of an imported module": ("train.train", "noise", "[0.5]", "[0.6]"),
    "helper of a helper elsewhere": ("train.train", "losses", "* 2", "* 3"),
    "decorator": ("train.train", "train", "    return function\n", "    return print\n"),
    "decoration": ("train.train", "train", "@logged\n", ""),
    "default argument": ("train.train", "train", "RATE = 0.1", "RATE = 0.2"),
    "class of a default argument": ("train.train", "layers", "width: int = 3", "width: int = 4"),
    "default of a switch": ("train.train", "layers", "switch(5,", "switch(6,"),
    "bound of a switch": ("train.train", "layers", "ge=1", "ge=2"),
    "base class": ("train.train", "layers", "depth = 2", "depth = 3"),
    "method": ("train.train", "layers", "x * self.width", "x + self.width"),
    "nested function": ("train.train", "train", "clip(x) * scale", "clip(x) + scale"),
    "one of two constants": ("train.clip", "train", "LOW, HIGH = 0, 1", "LOW, HIGH = 0, 2"),
    "pattern": ("train.choose", "train", "Other(field=3)", "Other(field=4)"),
    "value in a pattern": ("train.choose", "train", "    value = 3", "    value = 4"),
    "class in a pattern": ("train.choose", "train", "field = RATE", "field = 2 * RATE"),
    "constant of a class in a pattern": ("train.choose", "train", "RATE = 0.1", "RATE = 0.2"),
    "behind a pattern": ("train.choose", "noise", "return -x", "return +x"),
    "import inside a function": ("train.evaluate", "metrics", "return x", "return -x"),
    "name that a package passes on": ("train.evaluate", "text/labels", "'x'", "'y'"),
    "module that is used whole": ("train.everything", "losses", "* 2", "* 3"),
    "imported function of another package": ("rounding.rounded", "rounding", "floor as", "ceil as"),
    "imported module of another package": ("rounding.sized", "rounding", "operator as", "math as"),
    "lazy module of another package": ("rounding.sized", "rounding", '"numpy"', '"torch"'),
    "two imported names that change places": (
        "rounding.rounded",
        "rounding",
        "draw as first, fold as second",
        "fold as first, draw as second",
    ),
    "entry of a table that is used": ("losses.LOSSES", "losses", '"contrast": ', '"c": '),
    "entry that is added to a table": ("losses.LOSSES", "losses", 'LOSSES["s"]', 'LOSSES["t"]'),
}
UNUSED = {
    "comment": ("train", "RATE = 0.1", "# a comment\nRATE = 0.1  # another"),
    "empty lines": ("train", "def clip", "\n\n\ndef clip"),
    "line breaks": ("train", "min(max(x, LOW), HIGH)", "min(\n        max(x, LOW), HIGH\n    )"),
    "docstring of a module": ("losses", "Losses.", "All losses."),
    "docstring of a function": ("losses", "Return the contrast.", "Compute the contrast."),
    "docstring that is new": ("losses", "return _mean(x) * 2", '"""S."""\n    return _mean(x) * 2'),
    "docstring of a class": ("layers", "width: of it.", "width: of the network."),
    "docstring of a method": ("layers", "Map x.", "Map x to y."),
    "annotation of an argument": ("train", "net: Net =", "net: list[Net] ="),
    "annotation that is gone": ("train", "-> torch.Tensor:", ":"),
    "annotation of a variable": ("train", "loss: float =", "loss: complex ="),
    "annotation of a field": ("layers", "width: int = 3", "width: float = 3"),
    "values of the code of a switch": ("layers", "code=(5,)", "code=(5, 6)"),
    "values of the paper of a switch": ("layers", "code=(5,)", 'code=(5,), paper={"pgd": (6,)}'),
    "name of a switch": ("layers", "code=(5,)", 'code=(5,), name="size"'),
    "constant that nobody uses": ("train", "UNUSED = 5", "UNUSED = 6"),
    "function that nobody uses": ("train", "return 0\n", "return 1\n"),
    "function of a used module": ("noise", "return -x", "return +x"),
    "new entry of a table": ("losses", ": contrast}", ': contrast, "spread": spread}'),
    "new function": ("losses", "def spread", "def new():\n    return 1\n\n\ndef spread"),
    "import that is not used": ("train", "RATE = 0.1", "import os\nRATE = 0.1"),
    "module that is not imported": ("tables", "WIDE = 1", "WIDE = 2"),
    "version of the package": ("__init__", '"1"', '"2"'),
}  # fmt: skip


@pytest.mark.parametrize("edit", USED)
def test_an_edit_of_a_used_definition_changes_the_digest(edit, digest):
    root, module, old, new = USED[edit]
    assert digest(root) != digest(root, **{module: (old, new)})


@pytest.mark.parametrize("edit", UNUSED)
def test_an_edit_that_decides_nothing_changes_no_digest(edit, digest):
    module, old, new = UNUSED[edit]
    assert digest("train.train") == digest("train.train", **{module: (old, new)})


def test_roots_are_a_set(digest):
    assert digest("train.clip", "noise.draw") == digest("noise.draw", "train.clip", "noise.draw")
    assert digest("train.clip", "noise.draw") != digest("train.clip")


def test_a_digest_is_the_same_for_all_versions_of_python(digest):
    # 3.11, 3.12 and 3.13 agree on it.
    assert digest("train.train", "train.choose", "train.evaluate") == "24b364b1bd06483b"


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("from robustviews.losses import *", "name what is imported from robustviews"),
        ("from . import losses", "name what is imported from robustviews"),
        ("from .losses import spread", "name what is imported from robustviews"),
        ("import robustviews.losses", "write `from robustviews import ...`"),
        ("import robustviews.losses as other", "write `from robustviews import ...`"),
        ("import robustviews", "write `from robustviews import ...`"),
        ("for name in 'ab':\n    print(name)", "runs at import; put it into a function"),
        ("if RATE:\n    RATE = 2", "runs at import"),
        ("try:\n    import torch\nexcept ImportError:\n    pass", "runs at import"),
        ("print(1)", "runs at import"),
        ("from robustviews.noise import scale", "scale is imported from two modules"),
    ],
)
def test_code_that_cannot_be_followed_is_refused_with_its_line(statement, message, digest):
    with pytest.raises(SyntaxError, match=r"train\.py:21: ") as caught:
        digest("train.train", train=("RATE = 0.1\n", f"RATE = 0.1\n{statement}\n"))
    assert message in str(caught.value)


def test_an_import_of_a_whole_module_inside_a_function_is_refused_too(digest):
    edit = ("    return min(", "    import robustviews.losses\n    return min(")
    with pytest.raises(SyntaxError, match="write `from robustviews import"):
        digest("train.train", train=edit)


@pytest.mark.parametrize(
    ("root", "changes"),
    [
        ("train.missing", {}),
        ("missing.train", {}),
        ("train.train", {"train": ("import scale", "import rescale as scale")}),
    ],
)
def test_a_missing_definition_or_module_is_an_error(root, changes, digest):
    with pytest.raises(LookupError, match=r"missing|rescale"):
        digest(root, **changes)


def test_whole_files_count_with_every_byte(tmp_path):
    (tmp_path / "tables").mkdir()
    (tmp_path / "tables" / "page.j2").write_text("a")
    (tmp_path / "report.py").write_text("b")
    (tmp_path / "other.py").write_text("c")

    def digest() -> str:
        fingerprint.files.cache_clear()
        return fingerprint.files("tables", "report", source=tmp_path)

    first = digest()
    (tmp_path / "other.py").write_text("d")
    (tmp_path / "tables" / "page.pyc").write_text("d")
    assert digest() == first
    (tmp_path / "report.py").write_text("b  # a comment")
    second = digest()
    (tmp_path / "tables" / "page.j2").write_text("d")
    assert len({first, second, digest()}) == 3
    with pytest.raises(LookupError, match="holds no module or folder 'missing'"):
        fingerprint.files("missing", source=tmp_path)
