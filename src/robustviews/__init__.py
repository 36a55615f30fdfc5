"""Robust self-supervised representations: run a study, trust its numbers, beat them."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from robustviews.version import __version__

if TYPE_CHECKING:
    from robustviews.api import (
        Attacked,
        attack,
        import_checkpoint,
        load_classifier,
        load_encoder,
        load_images,
        results,
    )
    from robustviews.study import load_study

__all__ = [
    "Attacked",
    "__version__",
    "attack",
    "import_checkpoint",
    "load_classifier",
    "load_encoder",
    "load_images",
    "load_study",
    "results",
]


def __getattr__(name: str) -> Any:  # noqa: ANN401  # of any type
    """Import what a notebook asks for, so that `import robustviews` alone imports no torch."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = "robustviews.study" if name == "load_study" else "robustviews.api"
    return getattr(importlib.import_module(module), name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
