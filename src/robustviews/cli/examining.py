"""The verb `doctor`: what works here, on one page."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict

from robustviews import doctor as examination
from robustviews.config import StudyError, load_study
from robustviews.doctor import Health, Symptom

_HINT = "        -> "


def doctor(options: argparse.Namespace) -> int:
    """Tell what works on this machine and what to type next; exit 2 where it must be typed."""
    try:
        study = load_study(options.study)
        title = Symptom("study", Health.GOOD, f"{study.study} ({options.study})")
    except StudyError as error:
        study, said = None, str(error).splitlines()[0]
        title = Symptom("study", Health.BAD, said, f"robustviews check {options.study}")
    seen = []
    for symptom in (title, *examination.examine(study)):
        seen.append(symptom)
        if not options.json:
            sys.stdout.write(_lines(symptom))
            sys.stdout.flush()
    if options.json:
        rows = [{**asdict(each), "health": each.health.name.lower()} for each in seen]
        sys.stdout.write(json.dumps(rows, indent=1) + "\n")
    return 2 * any(each.health is Health.BAD for each in seen)


def _lines(symptom: Symptom) -> str:
    line = f"{symptom.health.value:2}  {symptom.name:16}{symptom.found}\n"
    return line + (f"{_HINT}{symptom.hint}\n" if symptom.hint else "")
