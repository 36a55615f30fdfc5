"""What decides each job's result: its spec, plain JSON with the digest of its code."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from robustviews.attacks import ATTACKS
from robustviews.datasets import DATASETS
from robustviews.methods import METHODS
from robustviews.probe import PROBES, NcropProbe
from robustviews.regimes import REGIMES
from robustviews.study import fingerprint
from robustviews.study.fingerprint import SOURCE
from robustviews.study.plan import jobs, label
from robustviews.study.schema import Run, Study

Spec = dict[str, Any]  # plain JSON: equal to what a record says after it was written and read


# What every job with a network calls, whatever its options.
_NETWORK = (
    ("encoder", "build_encoder"),
    ("datasets", "open_split"),
    ("machine.feed", "Resident"),
    ("machine.feed", "Mapped"),
    ("machine.runtime", "configure"),
)


def data_spec(study: Study, dataset: str, *, source: Path = SOURCE) -> Spec:
    """Return what decides a prepared data set, as plain JSON; `source` as in `pretrain_spec`."""
    options = study.datasets[dataset]
    code = fingerprint.digest(("datasets", type(options).__name__), source=source)
    return _plain({"dataset": _tagged(options, DATASETS), "code": code})


def pretrain_spec(study: Study, run: str, *, source: Path = SOURCE) -> Spec:
    """Return what decides an encoder: options, seed, data, code of the package in `source`."""
    job = jobs(study)[run]
    options = study.runs[job.entry]
    code = fingerprint.digest(
        *_NETWORK,
        ("pretrain", "pretrain"),
        ("methods", type(options.method).__name__),
        ("regimes", type(options.regime).__name__),
        source=source,
    )
    return _plain(
        {
            "run": _run_spec(options),
            "seed": job.seed,
            "dataset": data_spec(study, job.dataset, source=source),
            "code": code,
        }
    )


def probe_spec(study: Study, run: str, probe: str, *, source: Path = SOURCE) -> Spec:
    """Return what decides a head given its encoder; `source` as in `pretrain_spec`."""
    options = study.probes[probe]
    job = jobs(study)[run]
    spec = {
        "probe": _tagged(options, PROBES),
        "seed": job.seed,
        "code": fingerprint.digest(*_NETWORK, ("probe", type(options).__name__), source=source),
    }
    if isinstance(options, NcropProbe):
        spec["views"] = dataclasses.asdict(study.runs[job.entry].views)
    return _plain(spec)


def attack_spec(study: Study, run: str, probe: str, attack: str, *, source: Path = SOURCE) -> Spec:
    """Return what decides an evaluation's flags given encoder, head; `source` as before."""
    options, head = study.attacks[attack], study.probes[probe]
    job = jobs(study)[run]
    spec = {
        "attack": _tagged(options, ATTACKS),
        "probe": _tagged(head, PROBES),
        "seed": job.seed,
        "code": fingerprint.digest(
            *_NETWORK,
            ("evaluate", "evaluate"),
            ("evaluate", "Classifier"),
            ("attacks", type(options).__name__),
            ("probe", type(head).__name__),
            source=source,
        ),
        "batch": study.runtime.evaluation_batch,  # decides which random draws an image gets
    }
    if isinstance(head, NcropProbe):
        spec["views"] = dataclasses.asdict(study.runs[job.entry].views)
    return _plain(spec)


def report_spec(study: Study, block: str = "", *, rule: str = "report") -> Spec:
    """Return what decides something that is shown, given the results.

    Args:
        study: whose results.
        block: table or figure; empty for what shows all of them.
        rule: that shows it; only the report tells what the audit found.
    """
    audit = [] if block or rule != "report" else ["study", "provenance", "machine/humanize"]
    code = fingerprint.files("reporting", "pages", *audit)
    wanted = study.tables.get(block) or study.figures.get(block)
    labels = {name: label(study, name) for name in study.runs}
    titles = [study.title, study.demonstration]
    content = dataclasses.asdict(wanted) if wanted else sorted((*study.tables, *study.figures))
    return _plain({"block": content, "labels": labels, "titles": titles, "code": code})


def to_json(spec: Spec) -> str:
    """Write a spec as a line of sorted JSON, so that Snakemake sees equal specs as equal."""
    return json.dumps(spec, sort_keys=True, separators=(",", ":"), allow_nan=False)


def _plain(spec: Spec) -> Spec:
    plain: Spec = json.loads(to_json(spec))
    return plain


def _run_spec(run: Run) -> Spec:
    spec = {
        field.name: getattr(run, field.name)
        for field in dataclasses.fields(run)
        if field.name not in ("label", "seeds", "datasets")
    }
    spec["method"] = _tagged(run.method, METHODS)
    spec["regime"] = _tagged(run.regime, REGIMES)
    for name in ("views", "encoder", "optimizer"):
        spec[name] = dataclasses.asdict(spec[name])
    return spec


def _tagged(options: Any, table: dict[str, Any]) -> Spec:  # of any table
    kind = next(name for name, cls in table.items() if cls is type(options))
    return {"kind": kind, **dataclasses.asdict(options)}
