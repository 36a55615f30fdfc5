"""Checks of imported encoders in a study file, and of the rows that name one."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path

from robustviews.catalogue import CATALOGUE
from robustviews.probe import Probe
from robustviews.study.columns import MINUTES
from robustviews.study.located import LocatedDict, show
from robustviews.study.problems import Place, nearest
from robustviews.study.schema import Imported, Row

UNKNOWN = "unknown"  # hash of a file that nobody has brought yet
Add = Callable[[Place, str], None]  # reports a mistake


def check_imported(
    name: str, imported: Imported, block: LocatedDict, runs: Collection[str], add: Add
) -> None:
    """Report the name of a run, and a value that is no SHA-256."""
    node = block[name]
    if name in runs:
        add(block.at[name], f"a run is also named `{name}`; choose another name")
    if re.search("-s[0-9]+$", name):
        add(block.at[name], f"`{name}` ends as the folder of a seed; choose another name")
    if imported.sha256 != UNKNOWN and not re.fullmatch("[0-9a-f]{8,64}", imported.sha256):
        command = f"robustviews import {imported.file}"
        add(
            node.at["sha256"],
            f"expected 8 to 64 hexadecimal digits or `{UNKNOWN}`, found {show(imported.sha256)}; "
            f"{command} prints them",
        )
    if imported.source and imported.source not in CATALOGUE:
        text = f"no published checkpoint `{imported.source}`; {nearest(imported.source, CATALOGUE)}"
        add(node.at["source"], text)


def missing(encoders: Mapping[str, Imported]) -> Iterator[str]:
    """Yield which files a user must bring, with their source, and which hashes are not stated."""
    for name, imported in encoders.items():
        published = CATALOGUE.get(imported.source)
        command = f"`robustviews import {imported.source or imported.file}`"
        pin = f"; write the sha256 that {command} prints" * (imported.sha256 == UNKNOWN)
        if not Path(imported.file).is_file():
            where = "save it there"
            if published:
                where = f"{published.address or published.page}, by {command}"
            yield f"encoders.{name}: not here yet: {imported.file}: {where}{pin}"
        elif pin:
            yield f"encoders.{name}: {imported.file} is here{pin}"


def check_row(
    row: Row,
    imported: Imported | None,
    probe: Probe | None,
    columns: list[tuple[str, str]],
    node: LocatedDict,
    add: Add,
) -> None:
    """Check a row of an imported encoder."""
    if row.pretrained_on:
        add(node.at["pretrained_on"], f"`{row.run}` is imported; remove this key")
    if any(metric == MINUTES for _, metric in columns):
        message = f"`{row.run}` is imported: nobody knows its minutes; move it to a table"
        add(node.at["run"], f"{message} without a column of minutes")
    if imported is None or probe is None:
        return
    if probe.trained == imported.classifier:
        fix = f"no classifier of `{row.run}` is kept; set its classifier: true"
        if imported.classifier:
            fix = f"`{row.run}` has a classifier of its own; use probe `own`"
        add(node.at["probe"], fix)
    elif probe.trained and probe.feature != "backbone":
        message = f"`{row.run}` is imported and has no {probe.feature}"
        add(node.at["probe"], f"{message}; use a probe with feature: backbone")
