"""Verbs that turn finished results into tables, figures and the report, without torch."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from robustviews import artifacts
from robustviews.cli.names import known
from robustviews.reporting import claims, histories, results, terminal
from robustviews.reporting.tables import TABLES, TableData, writers
from robustviews.reporting.tables import metrics as numbers
from robustviews.study import Study, folders, load_study, plan
from robustviews.study.claims import measured


def frame(options: argparse.Namespace) -> None:
    """Write all results of a study as one tidy table, frame.csv."""
    study = load_study(options.study)
    rows = results.frame(study, partial=options.partial)
    artifacts.write_text(folders.results_folder(study) / "frame.csv", results.to_csv(rows))


def table(options: argparse.Namespace) -> None:
    """Write one table as Markdown, CSV and LaTeX."""
    study = load_study(options.study)
    known(options.table, study.tables, "table")
    rendered = _make_table(study, options.table, partial=options.partial)
    path = folders.results_folder(study) / "tables" / options.table
    for suffix, writer in writers.WRITERS.items():
        artifacts.write_text(path.with_suffix(suffix), writer(rendered))


def metrics(options: argparse.Namespace) -> None:
    """Write all cells and claims, metrics.json, and a few numbers, headline.json."""
    study = load_study(options.study)
    folder = folders.results_folder(study)
    rows = results.frame(study, blocks=measured(study), partial=options.partial)
    artifacts.write_json(folder / "metrics.json", numbers.metrics(study, rows))
    artifacts.write_json(folder / "headline.json", numbers.headline(study, rows))


def figure(options: argparse.Namespace) -> None:
    """Draw one figure as SVG and PNG."""
    from robustviews.reporting import figures

    study = load_study(options.study)
    known(options.figure, study.figures, "figure")
    layout = study.figures[options.figure]
    rows = results.frame(study, blocks=[layout], partial=options.partial)
    _write_drawing(study, f"figures/{options.figure}", figures.draw(study, layout, rows))


def curves(options: argparse.Namespace) -> None:
    """Draw the training curves of all runs as SVG and PNG."""
    from robustviews.reporting import figures

    study = load_study(options.study)
    _write_drawing(study, "training/curves", figures.training_curves(study, histories.read(study)))


def report(options: argparse.Namespace) -> None:
    """Write the report and the audit, one HTML page each."""
    from robustviews.pages import audit as page
    from robustviews.pages.report import render
    from robustviews.provenance.audit import audit
    from robustviews.provenance.seal import sealed

    study = load_study(options.study)
    folder = folders.results_folder(study)

    def picture(name: str) -> bytes | None:
        path = folder / f"{name}.svg"
        return path.read_bytes() if path.exists() else None

    pictures = {name: picture(f"figures/{name}") for name in study.figures}
    pictured = {task: picture(folders.pictures(task)) for task in plan.examples(study)}
    # While the workflow runs, its last outputs do not exist yet.
    result = audit(study, settled=False)
    rows = results.frame(study, partial=options.partial)
    rendered = render(
        study,
        rows,
        tables={name: _make_table(study, name, partial=options.partial) for name in study.tables},
        figures={name: data for name, data in pictures.items() if data is not None},
        records=results.records(study),
        audited=result,
        claims=claims.evaluate(study, rows),
        gaps=_gaps(study, rows),
        curves=picture("training/curves"),
        adversarial={name: data for name, data in pictured.items() if data is not None},
        examples=picture("examples/views"),
    )
    artifacts.write_text(folder / page.NAME, sealed(page.render(study, result)))
    artifacts.write_text(folder / "report.html", sealed(rendered))


def _gaps(study: Study, rows: list[results.Result]) -> bytes | None:
    """Draw the advantages of the rows that claims compare; None if there are none."""
    from robustviews.reporting import figures, robustness

    found = robustness.advantages(study, rows)
    if not any(part.ours is not None for parts in found.values() for part in parts.values()):
        return None
    return figures.to_svg(figures.gaps(found, title="Advantages under attack"))


def summary(options: argparse.Namespace) -> int:
    """Print the main table of a study, its claims, and the path of its report.

    Returns:
        Exit status: 1 with `--strict` if the attack on a shown head is not established.
    """
    study = load_study(options.study)
    path = folders.results_folder(study) / "report.html"
    colour = sys.stdout.isatty() and "NO_COLOR" not in os.environ
    for main in list(study.tables)[:1]:  # none in a study that only has figures
        table = _make_table(study, main, partial=True)
        sys.stdout.write(terminal.table(table, colour=colour))
    if study.claims:
        rows = results.frame(study, blocks=measured(study), partial=True)
        outcomes = claims.evaluate(study, rows)
        sys.stdout.write(f"\n{terminal.claims(outcomes, colour=colour)}")
    if path.exists():
        sys.stdout.write(f"\nReport: {terminal.link(Path.cwd() / path, colour=colour)}\n")
    else:
        sys.stdout.write(f"\nNo report yet: run snakemake --config study={study.file}\n")
    faults = list(_not_established(study)) if options.strict else []
    for line in faults:
        sys.stderr.write(f"{line}\n")
    return int(bool(faults))


def _not_established(study: Study) -> Iterator[str]:
    """Yield each head of a shown cell whose attack is not established, with the failed checks."""
    rows = {
        (row["run"], row["probe"], row["attack"], row["eps"]): row["sanity"]
        for row in results.frame(study, partial=True)
    }
    faults: dict[str, str] = {}
    for cell in plan.cells_of(study):
        for run in cell.runs:
            if cell.measure.attack is not None:
                eps = cell.eps or study.attacks[cell.measure.attack].eps[0]  # or all: any of them
                fault = rows.get((run, cell.probe, cell.measure.attack, eps), results.NOT_CHECKED)
                if len(fault) > len(faults.get(f"{run}/{cell.probe}", "")):
                    faults[f"{run}/{cell.probe}"] = fault
    for head, fault in faults.items():
        yield f"{head}: attack not established: {fault}"


def _make_table(study: Study, name: str, *, partial: bool) -> TableData:
    layout = study.tables[name]
    rows = results.frame(study, blocks=[layout], partial=partial)
    return TABLES[layout.kind](study, layout, rows)


def _write_drawing(study: Study, name: str, drawing: object) -> None:
    from matplotlib.figure import Figure

    from robustviews.reporting import figures

    assert isinstance(drawing, Figure)
    path = folders.results_folder(study) / name
    artifacts.write_bytes(path.with_suffix(".svg"), figures.to_svg(drawing))
    artifacts.write_bytes(path.with_suffix(".png"), figures.to_png(drawing))
