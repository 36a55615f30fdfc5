"""The verb `doctor`: what works here, on one page."""

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
    """Tell what works on this machine and what to type next; exit 2 where it must be typed."""
    study, title = _study(options.study)
    seen = []
    for symptom in (title, *examination.examine(study)):
        seen.append(symptom)
        if not options.json:
            sys.stdout.write(_lines(symptom))
            sys.stdout.flush()
    bad = sum(each.health is Health.BAD for each in seen)
    if options.json:
        rows = [{**asdict(each), "health": each.health.name.lower()} for each in seen]
        sys.stdout.write(json.dumps(rows, indent=1) + "\n")
    elif bad:
        sys.stdout.write(f"Mend what has !! before it, {bad} in all; what has - is not needed.\n")
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
            found = f"{path}: no such file in {Path.cwd()}"
            hint = f"cd {checkout}, or name another: robustviews doctor --study FILE"
        else:
            found = str(error).splitlines()[0]
            hint = shlex.join(["robustviews", "check", path])
        return None, Symptom("study", Health.BAD, found, hint)
    return study, Symptom("study", Health.GOOD, f"{study.study} ({path})")


def _lines(symptom: Symptom) -> str:
    line = f"{symptom.health.value:2}  {symptom.name:18} {symptom.found}\n"
    return line + (f"{_HINT}{symptom.hint}\n" if symptom.hint else "")
