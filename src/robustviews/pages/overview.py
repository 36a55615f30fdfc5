"""The first screen of the report: what was asked, what came out, and what is not established."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from robustviews.reporting.tables.writers import percent
from robustviews.study import plan
from robustviews.study.claims import Inequality

if TYPE_CHECKING:
    from robustviews.reporting.outcomes import Outcome
    from robustviews.reporting.tables import CellValue, TableData
    from robustviews.study.schema import Study

_HOLD = {  # others: `is` or `are`
    "holds": ("holds", "hold"),
    "fails": ("fails", "fail"),
    "narrows": ("holds in part", "hold in part"),
    "influences": ("holds", "hold"),
    "no relevant influence": ("fails", "fail"),
}
_ONE_SEED = (
    "Trainings differ by chance, and each run has one seed: no value counts as reproduced, and no "
    "claim about more than these networks is tested."
)


@dataclass(frozen=True)
class Overview:
    """The first screen.

    Attributes:
        asked: questions, without a question mark: `whether crops beat patches`.
        found: what came out, in at most two sentences.
        open: what is not established, one sentence each.
    """

    asked: tuple[str, ...]
    found: tuple[str, ...]
    open: tuple[str, ...]


def overview(
    study: Study, tables: Mapping[str, TableData], outcomes: Sequence[Outcome]
) -> Overview:
    """Return the first screen of a report.

    Args:
        study: study of the report.
        tables: its tables, the main one first.
        outcomes: of its claims.
    """
    main = next(iter(tables.values()), None)
    asked = [f"whether {claim.says}" for claim in study.claims.values()]
    if not asked and main is not None:
        asked = [f"{main.title}: how accurate is each row on clean and on attacked images"]
    return Overview(tuple(asked), tuple(_found(study, main, outcomes)), tuple(_open(tables)))


def _found(study: Study, main: TableData | None, outcomes: Sequence[Outcome]) -> Iterator[str]:
    if outcomes:
        yield _states(outcomes)
        yield _decisive(study, outcomes)
    elif main is not None:
        yield from _best(main)


def _states(outcomes: Sequence[Outcome]) -> str:
    """Return how many claims hold, fail, ..., with their names."""
    if len(outcomes) == 1:
        (one,) = outcomes
        return f"The claim that {one.says} {_verb(one.state, 1)}."
    counts = Counter(one.state for one in outcomes)
    parts = [
        f"{count} {_verb(state, count)} ({', '.join(o.name for o in outcomes if o.state == state)})"
        for state, count in counts.items()
    ]
    return f"Of {len(outcomes)} claims {_and(parts)}."


def _verb(state: str, count: int) -> str:
    is_one = count == 1
    word, _, scope = state.partition(" for ")
    if word in _HOLD:
        return _HOLD[word][not is_one] + (f" for {scope}" if scope else "")
    if state == "not even on the published numbers":
        return f"{'does' if is_one else 'do'} not even hold on the published numbers"
    return f"{'is' if is_one else 'are'} {state}"


def _decisive(study: Study, outcomes: Sequence[Outcome]) -> str:
    """Return the decisive comparison of the first decided claim, or of the first one."""
    outcome = next(
        (one for one in outcomes if one.state.partition(" for ")[0] in _HOLD), outcomes[0]
    )
    part = outcome.decisive
    claim = study.claims[outcome.name]
    if not claim.holds:
        return f"{outcome.name}: {part}."
    rows = plan.blocks(study)[claim.table].rows
    inequality = Inequality.parse(part.text)
    left, right = (
        rows[name].label or study.runs[rows[name].run].label or name
        for name in (inequality.left, inequality.right)
    )
    name = f"{outcome.name}: " if len(outcomes) > 1 else ""
    what = f"{name}“{left}” against “{right}” on {' and '.join(inequality.parts)}"
    if part.ours is None:
        return f"{what}: {part.missing}."
    if inequality.factor != 1 or not _in_points(inequality):
        return f"{name}{part}."
    interval = part.interval
    spread = f" ({interval.low:+.1f} to {interval.high:+.1f})" if interval else ""
    missing = f", {part.missing}" if part.missing else ""
    return f"{what}: {part.ours:+.1f} points{spread}{missing}."


def _in_points(inequality: Inequality) -> bool:
    return not any(name in part for part in inequality.parts for name in ("minutes", "passes"))


def _best(main: TableData) -> Iterator[str]:
    """Yield the row of the main table with the highest accuracy under its last attack."""
    attacked = [number for number, column in enumerate(main.columns) if column.attack]
    if not attacked:
        return
    number = attacked[-1]
    done = [(row.cells[number], row.label) for row in main.rows]
    known = [
        (cell.ours, label) for cell, label in done if cell.ours is not None and not cell.struck
    ]
    if known:
        value, label = max(known)
        column = main.columns[number]
        yield f"Highest under {column.label} on {column.dataset}: “{label}”, {percent(value)} %."


def _open(tables: Mapping[str, TableData]) -> Iterator[str]:
    """Yield what the tables do not establish."""
    every = [
        (row.label, cell) for table in tables.values() for row in table.rows for cell in row.cells
    ]
    cells = [cell for _, cell in every]
    missing = sum(len(cell.evidence) < cell.planned for cell in cells)
    if missing:
        yield f"{missing} of {len(cells)} cells lack some or all of their runs."
    struck = dict.fromkeys(f"“{label}” ({cell.struck})" for label, cell in every if cell.struck)
    if struck:
        yield f"The attack on {_and(list(struck))}: the numbers are struck through."
    if any(cell.evidence for cell in cells) and all(len(cell.evidence) < 2 for cell in cells):
        yield _ONE_SEED
    yield from _against_paper(cells)


def _against_paper(cells: Sequence[CellValue]) -> Iterator[str]:
    """Yield how many cells say nothing about the paper's values."""
    states = Counter(cell.verdict.state for cell in cells if cell.verdict)
    compared = f"of {states.total()} cells with a published value"
    unavailable = sum(cell.published == "unavailable" for cell in cells)
    if states["undecided"]:
        yield f"{states['undecided']} {compared} are undecided."
    if states["not comparable"]:
        yield (
            f"{states['not comparable']} {compared} are not comparable with it; each table "
            "has the reasons."
        )
    if unavailable:
        yield f"{unavailable} published values are not available."


def _and(parts: Sequence[str]) -> str:
    return f"{', '.join(parts[:-1])} and {parts[-1]}" if len(parts) > 1 else "".join(parts)
