"""Checks of imported encoders in a study file, and of the rows that name one."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection

from robustviews.probe import Probe
from robustviews.study.columns import MINUTES
from robustviews.study.located import LocatedDict, show
from robustviews.study.problems import Place
from robustviews.study.schema import Imported, Row

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
    if not re.fullmatch("[0-9a-f]{64}", imported.sha256):
        command = f"robustviews import {imported.file}"
        add(
            node.at["sha256"],
            f"expected 64 hexadecimal digits, found {show(imported.sha256)}; {command} prints them",
        )


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
