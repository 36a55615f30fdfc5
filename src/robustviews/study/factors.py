"""Factors: rows that differ in a number or a word, in groups that differ in nothing else."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from statistics import fmean

from robustviews.study.columns import RETAINED, Column
from robustviews.study.located import LocatedDict
from robustviews.study.problems import Place
from robustviews.study.schema import Figure, Table

Level = float | str
Weights = dict[str, float]  # by row


def groups(block: Table | Figure) -> dict[str, dict[str, Level]]:
    """Return the levels of the rows of each group; rows without a level are left out."""
    found: dict[str, dict[str, Level]] = {}
    for name, row in block.rows.items():
        if row.level is not None:
            found.setdefault(row.group, {})[name] = row.level
    return found


def comparisons(block: Table | Figure) -> dict[str, Weights]:
    """Return the weighted sums of rows that measure the influence of a factor, by description.

    Of numbers it is the slope over log2(level) that all groups share; of words the difference of
    each word and the first one of its group, averaged over the groups that have both.
    """
    found = groups(block)
    if all(isinstance(level, float) for rows in found.values() for level in rows.values()):
        return {"per doubling": slope(list(found.values()))}
    pairs: dict[str, list[tuple[str, str]]] = {}
    for rows in found.values():
        (low, first), *others = rows.items()
        for high, level in others:
            pairs.setdefault(f"{level} against {first}", []).append((high, low))
    return {text: _difference(rows) for text, rows in pairs.items()}


def slope(rows_of_groups: Sequence[Mapping[str, Level]]) -> Weights:
    """Return the weights of the least-squares slope over log2(level), one intercept per group."""
    centred: Weights = {}
    for rows in rows_of_groups:
        x = {name: math.log2(float(level)) for name, level in rows.items()}
        mean = fmean(x.values())
        centred |= {name: value - mean for name, value in x.items()}
    total = sum(value**2 for value in centred.values())
    return {name: value / total for name, value in centred.items()}


def check_levels(
    block: Table | Figure, node: LocatedDict, place: Place, add: Callable[[Place, str], None]
) -> None:
    """Report levels that cannot be compared; that there is none, at the place that needs them."""
    found = groups(block)
    if not found:
        add(place, "needs rows with a `level`, such as {run: ..., probe: ..., level: 200}")
        return
    numbers = {isinstance(level, float) for rows in found.values() for level in rows.values()}
    if len(numbers) > 1:
        add(node.at["rows"], "some levels are numbers and some are words; expected one of both")
    for group, rows in found.items():
        if len(set(rows.values())) < 2:
            title = f"group `{group}`" if group else "the rows without a group"
            add(node.at["rows"], f"{title}: expected two levels or more, found one")
        if len(set(rows.values())) < len(rows):
            add(node.at["rows"], f"group `{group}` has a level twice; give the rows two groups")
    attacks = retained_attacks(block)
    if len(attacks) != 1:
        shown = ", ".join(attacks) or "none"
        text = f"expected columns <dataset>/<attack>/{RETAINED} of one attack, found {shown}"
        add(node.at["columns"], text)


def retained_attacks(block: Table | Figure) -> list[str]:
    """Return the attacks, with a metric that is named, of which a table has `retained`."""
    columns = []
    for text in block.columns:
        try:
            columns.append(Column.parse(text))
        except ValueError:
            continue  # the check of the table reports it
    found = (one for one in columns if one.statistic == RETAINED)
    return list(dict.fromkeys(":".join(filter(None, (one.metric, one.score))) for one in found))


def _difference(pairs: Sequence[tuple[str, str]]) -> Weights:
    """Return the weights of the mean difference of pairs of rows."""
    highs = {high: 1 / len(pairs) for high, _ in pairs}
    return highs | {low: -1 / len(pairs) for _, low in pairs}
