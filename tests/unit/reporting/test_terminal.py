"""The summary on a terminal: aligned columns, verdicts in colour, and the report as a link."""

from __future__ import annotations

from pathlib import Path

import pytest

from robustviews.reporting import claims, terminal
from robustviews.reporting.tables import comparison


@pytest.fixture(scope="module")
def made(study, frame):
    return comparison(study, study.tables["table1"], frame), claims.evaluate(study, frame)


def lines_of(text):
    """Return the header and rows of a table: the lines up to the first empty one."""
    return text.split("\n\n")[1].splitlines()


def test_columns_are_aligned_and_without_colour_hold_no_escapes(made):
    table, outcomes = made
    lines = lines_of(terminal.table(table, colour=False))
    assert len(lines) == 1 + len(table.rows)
    assert len({len(line) for line in lines}) == 1, "the last column is flush right"
    assert "\x1b" not in terminal.claims(outcomes, colour=False)


def test_colour_changes_nothing_but_colour(made):
    table, outcomes = made
    for write, data in ((terminal.table, table), (terminal.claims, outcomes)):
        coloured = write(data, colour=True)
        for code in ("\x1b[32m", "\x1b[31m", "\x1b[33m", "\x1b[0m"):
            coloured = coloured.replace(code, "")
        assert coloured == write(data, colour=False)
    assert "\x1b[33mundecided" in terminal.claims(outcomes, colour=True)


def test_the_report_is_a_link_only_on_a_terminal():
    path = Path("/folder/report.html")
    assert terminal.link(path, colour=False) == "/folder/report.html"
    assert "\x1b]8;;file:///folder/report.html\x1b" in terminal.link(path, colour=True)
