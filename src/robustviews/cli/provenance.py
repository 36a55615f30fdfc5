"""Verbs that tell where a number comes from, without torch: explain, diff and prune."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from robustviews import commands
from robustviews.machine.humanize import size
from robustviews.provenance import comparison, difference, leftovers
from robustviews.provenance.explain import explain as tell
from robustviews.study import load_study
from robustviews.study.folders import STATE


def explain(options: argparse.Namespace) -> None:
    """Tell how a cell was made, in words, and with which commands to make it again."""
    study = load_study(options.study)
    sys.stdout.write(tell(study, options.cell, file=study.file))


def diff(options: argparse.Namespace) -> int:
    """Name the first input in which two results differ, then all others."""
    sides = [
        difference.side(text, lambda: load_study(options.study))
        for text in (options.first, options.second)
    ]
    seen = difference.compare(*sides)
    sys.stdout.write(comparison.in_words(seen))
    return int(seen.differs)


def prune(options: argparse.Namespace) -> None:
    """List what no job of the study has any more; remove it when told so."""
    study = load_study(options.study)
    found = leftovers.find(study, study.file, states=STATE)
    if not found:
        sys.stdout.write(f"{study.study}: nothing is left over\n")
        return
    if options.yes:
        leftovers.refuse_busy(study)
        leftovers.remove(found)
    for each in found:
        sys.stdout.write(f"{size(each.size):>10}  {each.path}  ({each.why})\n")
    total = size(sum(each.size for each in found))
    count = f"{len(found)} leftover{'s' if len(found) > 1 else ''}, {total}"
    if not options.yes:
        way = commands.robustviews(study.file, "prune", "--yes")
        sys.stdout.write(f"{study.study}: {count}; to remove them: {way}\n")
        return
    sys.stdout.write(f"{study.study}: {count}: removed\n")
    if Path("dvc.lock").exists():
        sys.stdout.write("So that dvc.lock forgets them too, type: dvc repro (no job will run)\n")
