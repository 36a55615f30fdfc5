"""The command line: one verb a rule of the workflow, and what people use by hand.

Parse, load, call, save; no logic.
Modules that need torch or matplotlib are imported by the verbs that need them, so that `check` and
`--help` answer at once.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path

from robustviews.artifacts import ArtifactError
from robustviews.config import StudyError, load_study

Verb = Callable[[argparse.Namespace], int | None]


def main(arguments: list[str] | None = None) -> int:
    """Run one verb.

    Returns:
        Exit status: 0, or 2 when something that the user can mend is wrong.
    """
    options = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    try:
        status: int | None = options.verb(options)
    except (ValueError, ArtifactError) as error:  # what the package refuses, in its own words
        if type(error) is ValueError:  # or a mistake of ours, which the log should tell apart
            logging.info("", exc_info=error)
        sys.stderr.write(f"{error}\n")
        return 2
    return status or 0


def check(options: argparse.Namespace) -> int:
    """Validate study files: all mistakes of all files at once."""
    from robustviews import plan

    status = 0
    for path in options.files:
        try:
            study = load_study(path)
        except StudyError as error:
            sys.stderr.write(f"{error}\n")
            status = 2
            continue
        sys.stdout.write(
            f"{path}: ok: {len(plan.jobs(study))} trainings, {len(plan.heads(study))} probes, "
            f"{len(plan.evaluations(study))} attacks, {len(study.tables)} tables, "
            f"{len(study.figures)} figures\n"
        )
    return status


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"expected 1 or more, found {text}")
    return value


def _verb(module: str, name: str) -> Verb:
    """Return a verb that imports its module only when it runs."""

    def run(options: argparse.Namespace) -> int | None:
        from importlib import import_module

        verb: Verb = getattr(import_module(f"robustviews.cli.{module}"), name)
        return verb(options)

    return run


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="robustviews",
        description="Run a study of adversarially robust self-supervised learning.",
    )
    verbs = parser.add_subparsers(dest="name", required=True, metavar="VERB")
    checker = verbs.add_parser("check", help="validate study files")
    checker.add_argument("files", nargs="+", type=Path, metavar="FILE")
    checker.set_defaults(verb=check)
    for name, (module, text, names) in VERBS.items():
        verb = verbs.add_parser(name, help=text, description=text)
        verb.set_defaults(verb=_verb(module, name))
        study = os.environ.get("ROBUSTVIEWS_STUDY", "params.yaml")
        verb.add_argument("--study", default=study, help="study file (%(default)s)")
        for each in names:
            verb.add_argument(f"--{each}", required=True, help=f"name of the {each}")
        if module == "estimate":
            _add_estimate_options(verb)
        if module in ("jobs", "estimate"):
            verb.add_argument(
                "--device",
                default=os.environ.get("ROBUSTVIEWS_DEVICE", "auto"),
                help="auto, cpu, cuda, cuda:1 (%(default)s)",
            )
        if module == "jobs":
            verb.add_argument("--threads", type=_positive, help="CPU threads (the study's)")
        if module == "reporting":
            verb.add_argument(
                "--partial", action="store_true", help="leave out what was not run yet"
            )
    return parser


def _add_estimate_options(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--jobs", type=_positive, help="jobs at a time (what the workflow runs)")
    verb.add_argument("--recalibrate", action="store_true", help="measure this machine again")
    verb.add_argument("--each", action="store_true", help="list every job")
    verb.add_argument("--json", action="store_true", help="write JSON, with every job")


VERBS: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "estimate": ("estimate", "tell time, memory and disk of what is still to be done", ()),
    "data": ("jobs", "prepare a data set as uint8 arrays", ("dataset",)),
    "pretrain": ("jobs", "train one encoder", ("run",)),
    "probe": ("jobs", "train one head on a frozen encoder", ("run", "probe")),
    "attack": ("jobs", "attack one classifier at every radius", ("run", "probe", "attack")),
    "examples": ("jobs", "draw example views, clean and perturbed", ()),
    "frame": ("reporting", "write all results as one tidy CSV", ()),
    "table": ("reporting", "write one table as Markdown, CSV and LaTeX", ("table",)),
    "figure": ("reporting", "draw one figure as SVG and PNG", ("figure",)),
    "curves": ("reporting", "draw the training curves as SVG and PNG", ()),
    "report": ("reporting", "write the report as one HTML page", ()),
    "summary": ("reporting", "print the main table and where the report lies", ()),
}
