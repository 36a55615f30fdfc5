"""The command line: one verb per rule of the workflow, and verbs for use by hand.

Verbs parse, load, call and save; they have no logic. Those that need torch or matplotlib import
them, so that `check` and `--help` answer at once.
"""

from __future__ import annotations

import argparse
import keyword
import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from robustviews.artifacts import ArtifactError
from robustviews.cli import ending
from robustviews.commands import DEFAULT_STUDY
from robustviews.study import StudyError, load_study

Verb = Callable[[argparse.Namespace], int | None]

_CHECKERS = ("verify", "audit")  # whose exit status 1 means that a check failed
_STUDYLESS = ("import", "keys")


def main(arguments: list[str] | None = None) -> int:
    """Run one verb.

    Returns:
        Exit status: 0, or 2 for an error that the user can fix. `verify` and `audit` exit with 1 if
        a check failed, and with 2 if something could not be checked or they crashed. Any other verb
        that crashes raises, and so exits with 1. `ending` adds those of signals and of the machine.
    """
    name = next(iter(sys.argv[1:] if arguments is None else arguments), "")
    return ending.ended(lambda: _run(arguments), name)


def _run(arguments: list[str] | None) -> int:
    options = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    try:
        status: int | None = options.verb(options)
    except (ValueError, ArtifactError) as error:  # errors with a message for users
        if type(error) is ValueError:  # perhaps a bug: log its traceback
            logging.info("", exc_info=error)
        message = error.message(options.study) if isinstance(error, ArtifactError) else str(error)
        sys.stderr.write(f"{message}\n")
        return 2
    except Exception as error:  # exit status 1 would mean a failed check
        if options.name not in _CHECKERS or ending.is_of_machine(error):
            raise
        logging.exception("robustviews %s crashed, so nothing was checked", options.name)
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
        return 2
    return status or 0


def check(options: argparse.Namespace) -> int:
    """Validate study files; report all mistakes of all files at once."""
    from robustviews.study import enough, imported, plan
    from robustviews.workflow import dvc

    status = 0
    for path in options.files:
        try:
            study = load_study(path)
            lacking = [f"{path}: {lack}\n" for lack in enough.lacks(study, enough.prepared(study))]
            for name in dvc.unstated(path):
                value = "[0]" if name == "seeds" else "{}"
                lacking.append(f"{path}: dvc.yaml reads {name}; add: {name}: {value}\n")
        except (StudyError, ArtifactError) as error:
            sys.stderr.write(f"{error}\n")
            status = 2
            continue
        if lacking:
            sys.stderr.write("".join(lacking))
            status = 2
            continue
        sys.stdout.write(
            f"{path}: ok: {len(plan.pretrainings(study))} trainings, "
            f"{len(plan.heads(study))} probes, {len(plan.evaluations(study))} attacks, "
            f"{len(study.tables)} tables, {len(study.figures)} figures\n"
        )
        for name, (finding, fix) in enough.missing(study).items():
            sys.stdout.write(f"{path}: datasets.{name}: not here yet: {finding}; {fix}\n")
        for text in imported.missing(study.encoders):
            sys.stdout.write(f"{path}: {text}\n")
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


def _function(verb: str) -> str:
    name = verb.replace("-", "_")
    return f"{name}_" if keyword.iskeyword(name) else name


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="robustviews",
        description="Run a study of adversarially robust self-supervised learning.",
    )
    verbs = parser.add_subparsers(dest="name", required=True, metavar="VERB")
    checker = verbs.add_parser("check", help="validate study files")
    checker.add_argument("files", nargs="+", type=Path, metavar="FILE")
    study = os.environ.get("ROBUSTVIEWS_STUDY", DEFAULT_STUDY)
    checker.set_defaults(verb=check, study=study)
    for name, (module, text, options) in VERBS.items():
        verb = verbs.add_parser(name, help=text, description=text)
        verb.set_defaults(verb=_verb(module, _function(name)), study=study)
        if name not in _STUDYLESS:
            verb.add_argument("--study", default=study, help="study file (%(default)s)")
        for option in options:
            verb.add_argument(option, **_options()[option])
    return parser


def _options() -> dict[str, dict[str, Any]]:
    """Return argparse's arguments for each option that verbs name."""
    device = os.environ.get("ROBUSTVIEWS_DEVICE", "auto")
    switch: dict[str, Any] = {"action": "store_true"}
    return {
        "--dataset": {"required": True, "help": "name of the data set"},
        "--run": {"required": True, "help": "name of the run"},
        "--encoder": {"required": True, "help": "name of the imported encoder"},
        "--probe": {"required": True, "help": "name of the probe"},
        "--attack": {"required": True, "help": "name of the attack"},
        "--table": {"required": True, "help": "name of the table"},
        "--figure": {"required": True, "help": "name of the figure"},
        "--device": {"default": device, "help": "auto, cpu, cuda, cuda:1 (%(default)s)"},
        "--threads": {"type": _positive, "help": "CPU threads (the study's)"},
        "--partial": {**switch, "help": "leave out results that do not exist yet"},
        "--strict": {
            **switch,
            "help": "exit with 1 if the attack on a shown head is not established",
        },
        "--jobs": {"type": _positive, "help": "jobs at a time (as many as the workflow runs)"},
        "--recalibrate": {**switch, "help": "measure this machine again"},
        "--each": {**switch, "help": "list every job"},
        "--json": {**switch, "help": "write JSON with all details"},
        "--markdown": {**switch, "help": "write a page of the manual"},
        "--stages": {"nargs": "+", "metavar": "STAGE", "help": "check only these stages"},
        "--cell": {"metavar": "TABLE:ROW:COLUMN", "help": "check only this cell"},
        "--again": {"type": _positive, "metavar": "N", "help": "attack N images per attack again"},
        "cell": {"metavar": "TABLE:ROW:COLUMN", "help": "cell of a table"},
        "first": {"metavar": "A", "help": "record, folder, cell, or REVISION:PATH"},
        "second": {"metavar": "B", "help": "the same, to compare with"},
        "source": {"metavar": "FILE|NAME", "help": "checkpoint, or name of a published one"},
        "--name": {"metavar": "NAME", "help": "name of the encoder (the file's)"},
        "--normalise": {
            "metavar": "HOW",
            "help": "imagenet, swav, cifar10, cifar100, none, or mean,mean,mean/std,std,std",
        },
        "--weights": {"metavar": "WHICH", "help": "which of several networks, such as teacher"},
        "--padding": {"type": int, "choices": (1, 2), "help": "padding of a 3x3 stem"},
        "--sha256": {"metavar": "HEX", "help": "expected hash of the file"},
        "--yes": {**switch, "help": "remove them"},
        "--to": {"type": Path, "required": True, "metavar": "FOLDER", "help": "folder to write"},
        "--agent": {
            "metavar": "NAME",
            "help": "person who ran it, or an ORCID URL; none by default",
        },
        "--key": {"type": Path, "required": True, "metavar": "FILE", "help": "key file"},
    }


_COMPUTES = ("--device", "--threads")

# Verb: its module in this package, its help text, its options.
VERBS: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "doctor": ("doctor", "report what works on this machine, with suggested commands", ("--json",)),
    "estimate": (
        "estimate",
        "estimate time, memory and disk of the jobs still to run",
        ("--device", "--jobs", "--recalibrate", "--each", "--json"),
    ),
    "switches": ("switches", "print what paper, code and study do at each switch", ("--markdown",)),
    "keys": ("switches", "print every key of a study file as Markdown", ()),
    "data": ("stages", "prepare a data set as uint8 arrays", ("--dataset", *_COMPUTES)),
    "encoder": ("stages", "import one encoder of the study", ("--encoder", *_COMPUTES)),
    "pretrain": ("stages", "train one encoder", ("--run", *_COMPUTES)),
    "probe": (
        "stages",
        "train one head, on a frozen encoder or with it",
        ("--run", "--probe", *_COMPUTES),
    ),
    "attack": (
        "stages",
        "attack one classifier at every radius",
        ("--run", "--probe", "--attack", *_COMPUTES),
    ),
    "sanity": (
        "stages",
        "check whether attacks on the heads of one run are established",
        ("--run", *_COMPUTES),
    ),
    "import": (
        "importing",
        "import a checkpoint of another program as an encoder",
        ("source", "--name", "--normalise", "--weights", "--padding", "--sha256"),
    ),
    "examples": ("examples", "draw example views, clean and perturbed", _COMPUTES),
    "frame": ("report", "write all results as one tidy CSV", ("--partial",)),
    "metrics": (
        "report",
        "write the cells of all tables, and a few numbers, as JSON",
        ("--partial",),
    ),
    "table": ("report", "write one table as Markdown, CSV and LaTeX", ("--table", "--partial")),
    "figure": ("report", "draw one figure as SVG and PNG", ("--figure", "--partial")),
    "curves": ("report", "draw the training curves as SVG and PNG", ("--partial",)),
    "report": ("report", "write the report as one HTML page", ("--partial",)),
    "summary": (
        "report",
        "print the main table and the path of the report",
        ("--partial", "--strict"),
    ),
    "verify": ("audit", "compare files, records and Snakemake's metadata", ("--stages",)),
    "audit": (
        "audit",
        "trace every cell of every table back to its files",
        ("--cell", "--again", "--device", "--json"),
    ),
    "explain": (
        "provenance",
        "explain how a cell was computed, and how to compute it again",
        ("cell",),
    ),
    "diff": ("provenance", "name the first input in which two records differ", ("first", "second")),
    "prune": ("provenance", "list orphaned files, which no job of the study writes", ("--yes",)),
    "crate": ("export", "export a finished study as an RO-Crate", ("--to", "--agent")),
    "sign": ("export", "sign a list of the audited files and cells", ("--key",)),
    "check-signature": ("export", "check the signature and the files offline", ("--key",)),
}
