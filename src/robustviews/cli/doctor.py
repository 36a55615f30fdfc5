"""The verb `doctor`: a page on what works on this machine."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from dataclasses import asdict
from pathlib import Path

from robustviews import artifacts, commands
from robustviews import doctor as examination
from robustviews.doctor import Health, Symptom
from robustviews.study import Study, StudyError, load_study

_HINT = "        -> "


def doctor(options: argparse.Namespace) -> int:
    """Report what works on this machine, with suggested commands; exit 2 if one is needed."""
    study, title = _study(options.study)
    symptoms = []
    for symptom in (title, *examination.examine(study)):
        symptoms.append(symptom)
        if not options.json:
            sys.stdout.write(_lines(symptom))
            sys.stdout.flush()
    bad = sum(symptom.health is Health.BAD for symptom in symptoms)
    if options.json:
        rows = [{**asdict(symptom), "health": symptom.health.name.lower()} for symptom in symptoms]
        sys.stdout.write(json.dumps(rows, indent=1) + "\n")
    elif bad:
        sys.stdout.write(
            f"Fix the lines marked !!, {bad} in total; those marked - are not needed.\n"
        )
    else:
        sys.stdout.write(f"Next: {commands.snakemake(options.study, '--dry-run')}\n")
    return 2 * bool(bad)


def _study(path: str) -> tuple[Study | None, Symptom]:
    try:
        study = load_study(path)
    except StudyError as error:
        lock = artifacts.lock_file()
        if not Path(path).exists() and lock is not None:
            checkout = shlex.quote(str(lock.parent))
            finding = f"{path}: no such file in {Path.cwd()}"
            hint = f"cd {checkout}, or name another: robustviews doctor --study FILE"
        else:
            finding = str(error).splitlines()[0]
            hint = shlex.join(["robustviews", "check", path])
        return None, Symptom("study", Health.BAD, finding, hint)
    return study, Symptom("study", Health.GOOD, f"{study.study} ({path})")


def _lines(symptom: Symptom) -> str:
    line = f"{symptom.health.value:2}  {symptom.name:18} {symptom.found}\n"
    return line + (f"{_HINT}{symptom.hint}\n" if symptom.hint else "")
