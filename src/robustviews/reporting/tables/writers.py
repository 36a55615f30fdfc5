"""Write a table as Markdown, CSV and LaTeX; only here accuracies become percent."""

from __future__ import annotations

import csv as csv_format
import io
import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from robustviews.reporting.tables.values import PERCENT, CellValue
from robustviews.reporting.verdicts import DIFFERENT, NOT_RUN, UNAVAILABLE

if TYPE_CHECKING:
    from robustviews.reporting.tables import TableData
    from robustviews.reporting.tables.values import RowValues
    from robustviews.study.columns import Column
    from robustviews.study.plan import Cell


_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    "|": r"\textbar{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "≥": r"$\geq$",
    **{character: f"\\{character}" for character in "&%$#_{}"},
}


WIDE = 0.02  # half of an interval beyond which tenths of a percent say nothing
LEAST = 0.001  # smallest half of an interval that is printed, so that none is zero


class CellText(NamedTuple):
    """The parts of a cell as text, for a writer to combine.

    Attributes:
        ours: `75.4`, or `not run`; whole percents where the interval is wider than +-2 points.
        spread: half of the interval, `0.9`; empty where there is none.
        seeds: `2 of 3 seeds` if some were not run; otherwise empty.
        published: `75.88`, `published value not available`, or empty.
        difference: `-0.5`; empty without a comparison.
        verdict: `reproduced`; empty without one.
        state: the verdict alone, for styles.
        struck: `attack not established: AS9` for a number to strike through; otherwise empty.
    """

    ours: str
    spread: str
    seeds: str
    published: str
    difference: str
    verdict: str
    state: str
    struck: str


_TAG = re.compile(r"<(?=[A-Za-z/!?])")


def distinct(rows: Sequence[RowValues] | Sequence[Cell]) -> list[str]:
    """Return the labels of rows, with the probe if a label occurs twice."""
    names = [row.label for row in rows]
    return [
        f"{row.label} ({row.probe})" if names.count(row.label) > 1 else row.label for row in rows
    ]


def cell_text(cell: CellValue) -> CellText:
    """Return the parts of a cell as text."""
    published = ""
    if cell.published == "unavailable":
        published = UNAVAILABLE
    elif cell.published is not None:
        published = f"{cell.published * cell.column.scale:.6g}"
    if cell.ours is None:
        return CellText(NOT_RUN, "", "", published, "", "", state="", struck="")
    half = cell.half
    decimals = 0 if half is not None and half > WIDE else 1
    is_shown = cell.verdict is not None and cell.verdict.state != "not attempted"
    return CellText(
        ours=("≥ " if cell.at_bound else "") + number(cell.column, cell.ours, decimals),
        spread=""
        if half is None or cell.struck
        else number(cell.column, max(half, LEAST), decimals),
        seeds=cell.unfinished,
        published=published,
        difference="" if cell.difference is None else signed(cell.difference, decimals),
        verdict=str(cell.verdict) if is_shown else "",
        state=cell.verdict.state if cell.verdict else "",
        struck=cell.missing,
    )


def number(column: Column, value: float, decimals: int = 1) -> str:
    """Write a value of a column without its unit."""
    if column.is_minutes:
        return minutes(value)
    return percent(value, decimals) if column.unit == "%" else f"{value:.3g}"


def percent(fraction: float, decimals: int = 1) -> str:
    """Write a fraction in percent, without the percent sign."""
    return f"{fraction * PERCENT:.{decimals}f}"


def signed(fraction: float, decimals: int = 1) -> str:
    """Write a difference of fractions in percentage points with its sign; never `-0.0`."""
    points = round(fraction * PERCENT, decimals)
    return f"{points:+.{decimals}f}" if points else f"{0:.{decimals}f}"


def minutes(value: float) -> str:
    """Write minutes with about three digits."""
    return f"{value:.2f}" if value < 1 else f"{value:.1f}" if value < 100 else f"{value:.0f}"


def notes(table: TableData) -> list[str]:
    """Return the notes below a table, one per line."""
    lines = [table.protocol, table.legend, table.comparable, table.note]
    return [line for line in lines if line]


def markdown(table: TableData) -> str:
    """Write a table as Markdown, such as `75.4 ±0.9 (75.88, -0.5, reproduced)`."""

    def cell(value: CellValue) -> str:
        text = cell_text(value)
        ours = f"~~{text.ours}~~" if text.struck else text.ours
        difference = f"**{text.difference}**" if text.state == DIFFERENT else text.difference
        return with_brackets(ours + (f" ±{text.spread}" if text.spread else ""), text, difference)

    def line(fields: list[str]) -> str:
        return "| " + " | ".join(field.replace("|", "\\|") for field in fields) + " |"

    names = [f"{column.dataset} {column.label}" for column in table.columns]
    lines = [line([*table.leading, *names])]
    lines.append("|" + " --- |" * len(table.leading) + " ---: |" * len(names))
    lines += [line([*table.labels(row), *map(cell, row.cells)]) for row in table.rows]
    banner = [f"> **{table.demonstration}**", ""] if table.demonstration else []
    below = [text for note in notes(table) for text in ("", note)]
    text = "\n".join([f"## {table.title}", "", *banner, *lines, *below]) + "\n"
    return _TAG.sub("&lt;", text)  # a page that shows the table must not run a title


def with_brackets(ours: str, text: CellText, difference: str) -> str:
    """Write a number of ours, and in brackets what stands beside it."""
    parts = (text.struck, text.published, difference, text.verdict, text.seeds)
    brackets = ", ".join(filter(None, parts))
    return f"{ours} ({brackets})" if brackets else ours


def csv(table: TableData) -> str:
    """Write a table as CSV, one line per cell with its records."""
    text = io.StringIO()
    lines = [
        {"row": row.name, "label": row.label, "probe": row.probe, **_fields(cell)}
        | {"demonstration": table.demonstration}
        for row in table.rows
        for cell in row.cells
    ]
    writer = csv_format.DictWriter(text, list(lines[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return text.getvalue()


def _fields(cell: CellValue) -> dict[str, str | int]:
    scale = cell.column.scale

    def exact(value: float | None) -> str:
        return "" if value is None else f"{value * scale:.6g}"

    published, verdict = cell.published, cell.verdict
    return {
        "dataset": cell.column.dataset,
        "column": cell.column.label,
        "unit": cell.column.unit,
        "ours": NOT_RUN if cell.ours is None else exact(cell.ours),
        "low": exact(cell.low),
        "high": exact(cell.high),
        "sd": exact(cell.sd),
        "spread": exact(cell.spread.sd if cell.spread else None),
        "seeds": len(cell.evidence),
        "planned": cell.planned,
        "published": published if published == "unavailable" else exact(published),
        "difference": exact(cell.difference),
        "margin": exact(verdict.margin if verdict else None),
        "state": verdict.state if verdict else "",
        "reason": verdict.reason if verdict else "",
        "struck": cell.struck,
        "records": " ".join(run.record for run in cell.evidence),
    }


def latex(table: TableData) -> str:
    """Write a table as LaTeX, for a document that uses booktabs."""

    def cell(value: CellValue) -> str:
        text = cell_text(value)
        ours = f"${text.ours} \\pm {text.spread}$" if text.spread else text.ours
        difference = f"${text.difference}$" if text.difference else ""
        if text.state == DIFFERENT:
            difference = f"$\\mathbf{{{text.difference}}}$"
        return with_brackets(f"\\sout{{{ours}}}" if text.struck else ours, text, difference)

    leading = len(table.leading)
    groups, rules, first = [], [], leading + 1
    for dataset, width in table.groups:
        groups.append(f"\\multicolumn{{{width}}}{{c}}{{{escape(dataset)}}}")
        rules.append(f"\\cmidrule(lr){{{first}-{first + width - 1}}}")
        first += width
    header = [*table.leading, *(escape(column.label) for column in table.columns)]
    body = [
        " & ".join([*map(escape, table.labels(row)), *map(cell, row.cells)]) + r" \\"
        for row in table.rows
    ]
    strikes = any(cell.struck for row in table.rows for cell in row.cells)
    banner = f"\\textbf{{{escape(table.demonstration)}}} " if table.demonstration else ""
    return "\n".join(
        [
            "% \\usepackage{booktabs}",
            *(["% \\usepackage[normalem]{ulem}"] if strikes else []),
            "\\begin{table}",
            "\\centering",
            f"\\caption{{{banner}{escape(table.title)}}}",
            f"\\begin{{tabular}}{{{'l' * leading}{'r' * len(table.columns)}}}",
            "\\toprule",
            " & ".join([""] * leading + groups).lstrip() + r" \\",
            " ".join(rules),
            " & ".join(header).lstrip() + r" \\",
            "\\midrule",
            *body,
            "\\bottomrule",
            "\\end{tabular}",
            *(f"\\par\\footnotesize {escape(line)}" for line in notes(table)),
            "\\end{table}",
            "",
        ]
    )


def escape(text: str) -> str:
    """Escape text for LaTeX."""
    return "".join(_LATEX.get(character, character) for character in text)


# Writers by the suffix of their file.
WRITERS: dict[str, Callable[[TableData], str]] = {".md": markdown, ".csv": csv, ".tex": latex}
