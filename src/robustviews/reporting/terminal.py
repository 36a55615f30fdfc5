"""The main table and the claims of a study as aligned text for a terminal."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from robustviews.reporting.claims import LEGEND
from robustviews.reporting.tables.writers import cell_text, notes, with_brackets

if TYPE_CHECKING:
    from robustviews.reporting.outcomes import Outcome
    from robustviews.reporting.tables import TableData
    from robustviews.reporting.tables.values import CellValue

WIDTH = 100  # of notes
_GREEN, _RED, _YELLOW, _PLAIN = "\x1b[32m", "\x1b[31m", "\x1b[33m", "\x1b[0m"
_COLOURS = {
    "reproduced": _GREEN,
    "holds": _GREEN,
    "different": _RED,
    "fails": _RED,
    "undecided": _YELLOW,
}

Field = tuple[str, str]  # text, and the verdict that colours it


def table(data: TableData, *, colour: bool) -> str:
    """Return a table with aligned columns and, if asked for, coloured verdicts; and its notes."""
    one = f" ({data.columns[0].dataset})" if len({c.dataset for c in data.columns}) == 1 else ""
    names = [column.label if one else f"{column.dataset} {column.label}" for column in data.columns]
    lines: list[list[Field]] = [[(head, "") for head in (*data.leading, *names)]]
    for row in data.rows:
        lines.append([*((label, "") for label in data.labels(row)), *map(_field, row.cells)])
    banner = [_wrapped(data.demonstration), ""] if data.demonstration else []
    below = [text for note in notes(data) for text in ("", _wrapped(note))]
    aligned = _aligned(lines, left=len(data.leading), colour=colour)
    return "\n".join([f"{data.title}{one}", "", *banner, *aligned, *below]) + "\n"


def claims(outcomes: Sequence[Outcome], *, colour: bool) -> str:
    """Return each claim with its result, the published numbers, and the decisive inequality."""
    lines: list[list[Field]] = [
        [(head, "") for head in ("claim", "result", "published numbers", "says")]
    ]
    for one in outcomes:
        lines.append([(one.name, ""), (one.state, one.state), (one.published, ""), (one.says, "")])
    aligned = _aligned(lines, left=len(lines[0]), colour=colour)
    decisive = [f"{one.name}: {one.decisive}" for one in outcomes]
    return "\n".join(["Claims", "", *aligned, "", *decisive, "", _wrapped(LEGEND)]) + "\n"


def link(path: Path, *, colour: bool) -> str:
    """Return a path; on a terminal as a link that opens the file."""
    return f"\x1b]8;;{path.as_uri()}\x1b\\{path}\x1b]8;;\x1b\\" if colour else str(path)


def _field(cell: CellValue) -> Field:
    text = cell_text(cell)
    ours = f"{text.ours} ±{text.spread}" if text.spread else text.ours
    return with_brackets(ours, text, text.difference), text.state


def _aligned(lines: Sequence[Sequence[Field]], *, left: int, colour: bool) -> Iterator[str]:
    """Yield lines of aligned columns, the first ones to the left, the others to the right."""
    widths = [max(len(text) for text, _ in column) for column in zip(*lines, strict=True)]
    for line in lines:
        cells = []
        for number, ((text, state), width) in enumerate(zip(line, widths, strict=True)):
            padded = text.ljust(width) if number < left else text.rjust(width)
            shade = _COLOURS.get(state, "") if colour else ""
            cells.append(f"{shade}{padded}{_PLAIN}" if shade else padded)
        yield "  ".join(cells).rstrip()


def _wrapped(text: str) -> str:
    return textwrap.fill(text, WIDTH, break_on_hyphens=False)
