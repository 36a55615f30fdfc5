"""Verbs that tell where a number comes from, without torch: explain, diff and prune."""

from __future__ import annotations

import argparse
import sys

from robustviews.config import load_study
from robustviews.provenance import comparison, difference
from robustviews.provenance.explain import explain as tell


def explain(options: argparse.Namespace) -> None:
    """Tell how a cell was made, in words, and with which commands to make it again."""
    study = load_study(options.study)
    sys.stdout.write(tell(study, options.cell, file=str(options.study)))


def diff(options: argparse.Namespace) -> int:
    """Name the first input in which two results differ, then all others."""
    sides = [
        difference.side(text, lambda: load_study(options.study))
        for text in (options.first, options.second)
    ]
    seen = difference.compare(*sides)
    sys.stdout.write(comparison.in_words(seen))
    return int(seen.differs)
