"""Verbs on the provenance of results, without torch: explain, diff, prune."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from robustviews import commands
from robustviews.machine.humanize import size
from robustviews.provenance import difference, orphans
from robustviews.provenance.explain import explain as explain_cell
from robustviews.study import load_study
from robustviews.workflow import metadata


def explain(options: argparse.Namespace) -> None:
    """Explain how a cell was computed, with the commands that compute it again."""
    study = load_study(options.study)
    sys.stdout.write(explain_cell(study, options.cell))


def diff(options: argparse.Namespace) -> int:
    """List the inputs in which two results differ, the first cause first."""
    first, second = options.first, options.second
    comparison = difference.compare(first, second, lambda: load_study(options.study))
    sys.stdout.write(str(comparison))
    return int(comparison.differs)


def prune(options: argparse.Namespace) -> None:
    """List orphaned files, which no job of the study writes; remove them with --yes."""
    study = load_study(options.study)
    paths = orphans.find(study)
    if not paths:
        sys.stdout.write(f"{study.study}: no orphaned files\n")
        return
    groups: dict[Path, list[Path]] = {}
    for path in paths:
        is_entry = path.is_relative_to(metadata.FOLDER)
        groups.setdefault(metadata.FOLDER if is_entry else path.parent, []).append(path)
    bytes_of = {path: path.lstat().st_size for path in paths}
    if options.yes:
        orphans.remove(study, paths)
    for folder, group in groups.items():
        names = ", ".join(path.name for path in group)
        what = f"{len(group)} entries" if folder == metadata.FOLDER else names
        sys.stdout.write(f"{size(sum(map(bytes_of.__getitem__, group))):>10}  {folder}: {what}\n")
    count = f"{study.study}: {len(paths)} orphaned files, {size(sum(bytes_of.values()))}"
    if options.yes:
        sys.stdout.write(f"{count}: removed\n")
        if Path("dvc.lock").exists():
            sys.stdout.write("To update dvc.lock, type: dvc repro   (no job will run)\n")
    else:
        removal = commands.robustviews(study.file, "prune", "--yes")
        sys.stdout.write(f"{count}; to remove them: {removal}\n")
