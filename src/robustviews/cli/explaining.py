"""Verbs that tell where a number comes from, without torch: explain, diff and prune."""

from __future__ import annotations

import argparse
import sys

from robustviews.config import load_study
from robustviews.provenance import comparison, difference


def diff(options: argparse.Namespace) -> int:
    """Name the first input in which two results differ, then all others."""
    sides = [
        difference.side(text, lambda: load_study(options.study))
        for text in (options.first, options.second)
    ]
    seen = difference.compare(*sides)
    sys.stdout.write(comparison.in_words(seen))
    return int(seen.differs)
