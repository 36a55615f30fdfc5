"""Claims about the rows of a table; only this module parses inequalities such as `row2 > row3`.

    LEFT > RIGHT                      in every accuracy column of the table
    LEFT >= RIGHT - 1                 at most one point worse
    LEFT > RIGHT on cifar10, pgd20/8  only in the columns that have one of these parts
    LEFT <= 0.2 * RIGHT on minutes    at most a fifth of the time; or `on passes`

LEFT and RIGHT are names of rows, and `<` and `<=` are written in the same way. `passes` are
forward and backward passes of one view per training image: they follow from the study alone.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from robustviews.study import plan
from robustviews.study.columns import MINUTES, RETAINED, Column
from robustviews.study.factors import check_levels, retained_attacks
from robustviews.study.located import LocatedDict, show
from robustviews.study.problems import Place, Problems, nearest
from robustviews.study.schema import Claim, Figure, Study, Table

PASSES = "passes"
FORM = "`ROW > ROW`, such as `row2 >= row3 - 1` or `row7 <= 0.2 * row2 on minutes`"
FORMS = ("holds", "most", "influences")
MOST_ROWS = 12  # whose signs are exchanged in all ways
_NUMBER = r"[0-9]+(?:\.[0-9]+)?"
_ROW = r"[a-z0-9]+(?:-[a-z0-9]+)*"
_INEQUALITY = re.compile(
    rf"\s*(?P<left>{_ROW})\s*(?P<sign>>=|<=|>|<)\s*(?:(?P<factor>{_NUMBER})\s*\*\s*)?"
    rf"(?P<right>{_ROW})(?:\s+(?P<direction>[+-])\s*(?P<points>{_NUMBER}))?"
    r"(?:\s+on\s+(?P<columns>\S.*?))?\s*"
)
_NAME = re.compile(r"[A-Za-z0-9]+(-[A-Za-z0-9]+)*")


@dataclass(frozen=True)
class Inequality:
    """LEFT sign FACTOR * RIGHT + OFFSET."""

    text: str  # as the study writes it
    left: str  # name of a row
    sign: str  # `>`, `>=`, `<` or `<=`
    factor: float  # by which the right row is multiplied
    right: str  # name of a row
    offset: float  # added to the right side, in points or minutes
    parts: tuple[str, ...]  # of columns in which it has to hold; all accuracy columns if empty

    @classmethod
    def parse(cls, text: str) -> Inequality:
        """Parse an entry of `holds`.

        Raises:
            ValueError: the text has another form.
        """
        match = _INEQUALITY.fullmatch(text)
        if match is None:
            raise ValueError(f"expected {FORM}; found {show(text)}")
        points = float(match["points"] or 0)
        return cls(
            text=" ".join(text.split()),
            left=match["left"],
            sign=match["sign"],
            factor=float(match["factor"] or 1),
            right=match["right"],
            offset=-points if match["direction"] == "-" else points,
            parts=tuple(part.strip() for part in (match["columns"] or "").split(",") if part),
        )

    @property
    def is_greater(self) -> bool:
        """Whether the left side has to be the greater one."""
        return self.sign in (">", ">=")

    def columns(self, names: Sequence[str]) -> list[str]:
        """Return the columns of a table in which the inequality has to hold, or `passes`."""
        if not self.parts:
            return [name for name in names if not Column.parse(name).is_minutes]
        found = [name for part in self.parts for name in _matching(part, names)]
        return list(dict.fromkeys(found))


def compared(study: Study, claim: Claim) -> list[Table | Figure]:
    """Return the tables and figures that a claim compares."""
    return [plan.blocks(study)[name] for name in (claim.table, claim.narrows) if name]


def measured(study: Study) -> list[Table | Figure]:
    """Return all tables, and the figures that claims compare: what the metrics of a study hold."""
    claimed = (one for claim in study.claims.values() for one in compared(study, claim))
    return list(dict.fromkeys([*study.tables.values(), *claimed]))


def check_claims(study: Study, tree: LocatedDict, problems: Problems) -> None:
    """Report claims that name no table, row or column, or have another form.

    Arguments as in `check_references`.
    """
    known = [*tree.get("tables", ()), *tree.get("figures", ())]
    for name, claim in study.claims.items():
        node = tree["claims"][name]
        if not _NAME.fullmatch(name):
            message = f"{name!r} is not a usable name; expected letters and digits, such as F1"
            problems.add(node.place, message)
        _check_form(claim, node, problems)
        for key in ("table", "narrows"):
            table = getattr(claim, key)
            if table and table not in known:
                message = f"no `{table}` in `tables` or `figures`; {nearest(table, known)}"
                problems.add(node.at[key], message)
        block = plan.blocks(study).get(claim.table)
        if block is None:
            continue
        for text, place in zip(claim.holds, node["holds"].at if claim.holds else (), strict=True):
            _check(text, claim.table, block, place, problems)
            if PASSES in text:
                _check_passes(study, block, place, problems)
        if claim.most:
            _check_most(study, claim, node, problems)
        if claim.influences is not None:
            tables = tree["tables" if claim.table in study.tables else "figures"]
            place = node.at["influences"]
            check_levels(block, tables[claim.table], place, problems.add)


def _check_form(claim: Claim, node: LocatedDict, problems: Problems) -> None:
    """Report a claim that has none or several of the three forms, or half of one."""
    forms = [form for form in FORMS if getattr(claim, form) not in ((), None)]
    if len(forms) != 1:
        found = " and ".join(forms) or "none"
        text = f"expected one of {', '.join(FORMS)}, found {found}; write {FORM} under `holds`"
        problems.add(node.at.get("holds", node.place), text)
    for key in ("over", "narrows"):
        if getattr(claim, key) and not claim.most:
            problems.add(node.at[key], "belongs to a claim with `most`: [ROW, ROW, ...]")
    if claim.most and not claim.over:
        problems.add(node.at["most"], "add the row that they are compared with: `over`: ROW")


def _check_most(study: Study, claim: Claim, node: LocatedDict, problems: Problems) -> None:
    """Report rows of `most` and `over` that a table lacks, and tables without `retained`."""
    least = 1 if claim.narrows else 2
    if not least <= len(claim.most) <= MOST_ROWS:
        text = f"expected {least} to {MOST_ROWS} rows, found {len(claim.most)}"
        problems.add(node.at["most"], text)
    for key in ("table", "narrows"):
        name = getattr(claim, key)
        table = plan.blocks(study).get(name)
        if table is None:
            continue
        for row in dict.fromkeys((*claim.most, claim.over)):
            if row and row not in table.rows:
                place = node.at["over" if row == claim.over else "most"]
                problems.add(place, f"no row `{row}` in `{name}`; {nearest(row, table.rows)}")
        attacks = retained_attacks(table)
        if len(attacks) != 1:
            shown = ", ".join(attacks) or "none"
            text = f"`{name}` needs <dataset>/<attack>/{RETAINED} of one attack, found {shown}"
            problems.add(node.at[key], text)
    if claim.over in claim.most:
        problems.add(node.at["over"], f"compares `{claim.over}` with itself; name another row")


def _check_passes(study: Study, table: Table | Figure, place: Place, problems: Problems) -> None:
    """Report imported encoders beside a claim on passes."""
    for name, row in table.rows.items():
        if row.run in study.encoders:
            problems.add(place, f"row `{name}` is imported: nobody knows its {PASSES}")


def _check(text: str, name: str, table: Table | Figure, place: Place, problems: Problems) -> None:
    try:
        inequality = Inequality.parse(text)
    except ValueError as error:
        problems.add(place, str(error))
        return
    for row in (inequality.left, inequality.right):
        if row not in table.rows:
            problems.add(place, f"no row `{row}` in `{name}`; {nearest(row, table.rows)}")
    if inequality.left == inequality.right:
        problems.add(place, f"compares `{inequality.left}` with itself; name two rows")
    parts = {part for column in table.columns for part in _parts(column)} | {PASSES}
    for part in inequality.parts:
        if not _matching(part, table.columns):
            problems.add(place, f"no column of `{name}` has `{part}`; {nearest(part, parts)}")
    try:
        columns = inequality.columns(table.columns)
    except ValueError:
        return  # the check of the table reports it
    if not inequality.parts and not columns:
        problems.add(place, f"`{name}` has no accuracy column; write `on {MINUTES}`")


def _matching(part: str, names: Sequence[str]) -> list[str]:
    """Return the columns that have some adjacent parts, such as `pgd20/8`; minutes by name only."""
    if part == PASSES:
        return [PASSES]
    matching = [name for name in names if part in _parts(name)]
    if part.endswith(MINUTES):
        return matching
    return [name for name in matching if not name.endswith(f"/{MINUTES}")]


def _parts(column: str) -> set[str]:
    words = column.split("/")
    places = range(len(words))
    return {"/".join(words[start : end + 1]) for start in places for end in places[start:]}
