"""The verb that prints the switches of a study; it reads no results."""

from __future__ import annotations

import argparse
import sys

from robustviews.study import load_study
from robustviews.study.switches import text


def switches(options: argparse.Namespace) -> None:
    """Print what paper, reference code and study do at each switch."""
    sys.stdout.write(text(load_study(options.study)))
