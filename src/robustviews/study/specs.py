"""What decides each job's result: its spec, plain JSON with the digest of its code."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from robustviews.attacks import ATTACKS, WorstOf
from robustviews.datasets import DATASETS
from robustviews.methods import METHODS
from robustviews.options import deciding
from robustviews.probe import PROBES
from robustviews.regimes import REGIMES
from robustviews.sanity.dense import DenseChecks
from robustviews.study import claims, comparable, fingerprint, networks, plan
from robustviews.study.fingerprint import SOURCE
from robustviews.study.schema import Claim, Figure, Run, Study, Table
from robustviews.study.syntax import PACKAGE
from robustviews.tasks.classification import CLASSIFICATION

Spec = dict[str, Any]  # plain JSON: writing and reading a record does not change it

_COMPARED = ("study/claims", "study/comparable", "study/factors", "study/switches", "study/work")

# What every job with a network calls besides the function of its stage.
NETWORK = (
    ("datasets", "open_split"),
    ("machine.feed", "Resident"),
    ("machine.feed", "Mapped"),
    ("machine.runtime", "configure"),
)
# Options that the weights of an encoder imply; the weights are hashed as inputs.
_IMPLIED = ("encoder", "supervised")
_OF_IMPORTS = ("sha256", "normalise", "weights", "padding", "classifier")


def data_spec(study: Study, dataset: str, *, source: Path = SOURCE) -> Spec:
    """Return what decides a prepared data set; `source` as in `spec`."""
    options = study.datasets[dataset]
    parts = [options, *vars(options).values()]
    classes = [_class_of(part) for part in parts if dataclasses.is_dataclass(part)]
    code = fingerprint.digest(("stages", "prepare"), *classes, source=source)
    return _plain({"dataset": options, "code": code})


def spec(study: Study, rule: str, name: str, *, source: Path = SOURCE) -> Spec:
    """Return what decides the result of a job that computes, given its inputs, as plain JSON.

    Args:
        study: study of the job.
        rule: rule of the job.
        name: name of the job.
        source: folder of the package whose code the digest covers.
    """
    if rule == "data":
        return data_spec(study, plan.dataset_of(study, rule, name), source=source)
    options = arguments(study, rule, name)
    if isinstance(options.get("attack"), WorstOf):  # the flags of its parts are inputs
        task = _class_of(options["probe"].task)
        code = fingerprint.digest(("attacks.worst_case", "combine"), task, source=source)
        return _plain({"attack": options["attack"], "code": code})
    if rule == "encoder":
        decides: dict[str, Any] = {"imported": options}
    elif rule == "pretrain":
        dataset = plan.dataset_of(study, rule, name)
        decides = {"seed": options["seed"], "dataset": data_spec(study, dataset, source=source)}
        decides["run"] = {name: value for name, value in options.items() if name != "seed"}
    else:
        decides = _of_heads(rule, options)
    code = _code("bring" if rule == "encoder" else rule, options, source)
    return _plain({**decides, "code": code})


def _of_heads(rule: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """Return the options that decide a probe, attacks on its head, or checks of heads."""
    left_out = set(_IMPLIED)
    if rule == "probe":
        left_out.add("batch")  # decides only rounding, as threads do
    if not arguments["fold"]:
        left_out.add("fold")
    probes = arguments["probes"].values() if "probes" in arguments else [arguments["probe"]]
    if not any(probe.draws_views for probe in probes):
        left_out.add("views")
    return {name: value for name, value in arguments.items() if name not in left_out}


def arguments(study: Study, rule: str, name: str) -> dict[str, Any]:
    """Return the options that the stage of a job is called with, by its rule and its name.

    Those of an imported encoder are known when it is there; `encoder` is then None.
    """
    if rule == "data":
        return {"dataset": study.datasets[plan.dataset_of(study, rule, name)]}
    return _ARGUMENTS[rule](study, *name.split("/"))


def _of_encoder(study: Study, name: str) -> dict[str, Any]:
    options = study.encoders[name]
    return {key: getattr(options, key) for key in _OF_IMPORTS}


def _of_pretraining(study: Study, run: str) -> dict[str, Any]:
    pretraining = plan.pretrainings(study)[run]
    options = study.runs[pretraining.entry]
    arguments = {
        field.name: getattr(options, field.name)
        for field in dataclasses.fields(options)
        if field.name not in ("label", "seeds", "datasets")
    }
    for name in ("encoder", "optimizer"):
        arguments[name] = dataclasses.asdict(arguments[name])
    return {**arguments, "seed": pretraining.seed}


def _of_probe(study: Study, run: str, probe: str) -> dict[str, Any]:
    # A probe that tunes the encoder trains its batch norms, which are folded only for attacks.
    shared = _shared(study, run, probe)
    return {**shared, "fold": shared["fold"] and not networks.tunes(study, probe)}


def _of_attack(study: Study, run: str, probe: str, attack: str) -> dict[str, Any]:
    options = plan.attack_on(study, probe, attack)
    return {**_shared(study, run, probe), "attack": options}


def _of_checks(study: Study, encoder: str) -> dict[str, Any]:
    probes = {name: study.probes[name] for name in plan.attacked(study)[encoder]}
    first = min(probes, key=lambda name: probes[name].trained)  # `own` reads the classifier
    shared = _shared(study, networks.examined(encoder), first)
    del shared["probe"]
    if any(probe.task is not CLASSIFICATION for probe in probes.values()):
        shared["dense"] = DenseChecks()
    return {**shared, "probes": probes, "sanity": study.sanity}


def _shared(study: Study, run: str, probe: str) -> dict[str, Any]:
    """Return the options that a probe, attacks on its head, and checks of them share."""
    network = plan.networks(study)[run]
    options = plan.options_of(study, network.entry)
    if isinstance(options, Run):
        encoder = dataclasses.asdict(options.encoder)
        supervised = options.method.supervised and not study.probes[probe].trained
        if options.method.supervised and not supervised:
            encoder["hidden"] = None  # its backbone alone, without its classifier
    else:
        encoder, supervised = None, options.classifier
    return {
        "probe": study.probes[probe],
        "views": options.views,
        "encoder": encoder,
        "supervised": supervised,
        "seed": network.seed,
        "batch": study.runtime.evaluation_batch,
        "fold": study.runtime.fold_batchnorm,
    }


_ARGUMENTS: dict[str, Callable[..., dict[str, Any]]] = {
    "encoder": _of_encoder,
    "pretrain": _of_pretraining,
    "probe": _of_probe,
    "attack": _of_attack,
    "sanity": _of_checks,
}


def _code(stage: str, arguments: dict[str, Any], source: Path) -> str:
    """Return the digest of a stage's code: its function, and the classes of its options."""
    values = [*arguments.values(), *arguments.get("probes", {}).values()]
    options = [value for value in values if dataclasses.is_dataclass(value)]
    return fingerprint.digest(("stages", stage), *NETWORK, *map(_class_of, options), source=source)


def _class_of(options: object) -> fingerprint.Symbol:
    """Return where the class of some options is defined."""
    cls = type(options)
    return cls.__module__.removeprefix(f"{PACKAGE}."), cls.__name__


def report_spec(study: Study, block: str = "", *, rule: str = "report") -> Spec:
    """Return what decides a table, figure or page, given the results.

    Args:
        study: study of the results.
        block: table or figure; empty for rules that read all of them.
        rule: rule of the job; only the report shows findings of the audit.
    """
    audit = [] if block or rule != "report" else ["study", "provenance", "machine/humanize"]
    code = fingerprint.files("reporting", "pages", "sanity", "tasks", *(audit or _COMPARED))
    shown = plan.blocks(study).get(block)
    labels = {name: plan.label(study, name) for name in (*study.runs, *study.encoders)}
    titles = [study.title, study.demonstration]
    content: Any = sorted((*study.tables, *study.figures))
    if shown:
        content = dataclasses.asdict(shown)
    elif rule == "metrics":  # numbers by row and column
        content = {
            name: [table.columns, {row: [of.run, of.probe] for row, of in table.rows.items()}]
            for name, table in study.tables.items()
        }
    elif rule == "examples":
        pictured = plan.examples(study).values()
        content = [_example(study, cell) for shown in pictured for cell in shown]
    decides = {"block": content, "labels": labels, "titles": titles, "code": code}
    if shown or rule == "report":
        blocks = [shown] if shown else []
        decides["protocol"] = _protocol(study, *blocks)
        decides["verdicts"] = [study.verdicts, _incomparable(study, *blocks)]
    by_class = [name for name, one in study.datasets.items() if one.accuracy != "top1"]
    if by_class:
        decides["mean_per_class"] = by_class
    if rule in ("metrics", "report"):
        decides["claims"] = [study.claims, *(_claimed(study, one) for one in study.claims.values())]
    return _plain(decides)


def _example(study: Study, cell: plan.Cell) -> list[Any]:
    """Return what decides the adversarial images of a cell, given encoder, head and data."""
    assert cell.attack is not None
    attack = spec(study, "attack", f"{cell.runs[0]}/{cell.probe}/{cell.attack}")
    return [cell.label, cell.column, attack, study.attacks[cell.attack].describe()]


def _protocol(study: Study, *blocks: Table | Figure) -> dict[str, list[str]]:
    """Return how probes and attacks of some blocks, or of all, are described; no digest has it."""
    cells = list(plan.cells_of(study, *blocks))
    probes = {cell.probe: [study.probes[cell.probe].describe()] for cell in cells}
    shown = {cell.attack for cell in cells if cell.attack}
    names = sorted({*shown, *(part for name in shown for part in plan.parts(study, name))})
    attacks = {name: study.attacks[name] for name in names}
    described = {name: [one.describe(), one.comparable()] for name, one in attacks.items()}
    return probes | described


def _claimed(study: Study, claim: Claim) -> list[Any]:
    """Return what a claim compares, without the texts of its tables."""
    found: list[Any] = []
    for table in claims.compared(study, claim):
        rows = {
            name: [row.run, row.probe, row.published, row.level, row.group]
            for name, row in table.rows.items()
        }
        found += [table.columns, rows]
    return found


def _incomparable(study: Study, *blocks: Table | Figure) -> list[str]:
    """Return why cells of some blocks, or of all, are not comparable with published values."""
    cells = [cell for cell in plan.cells_of(study, *blocks) if cell.published is not None]
    return [comparable.incomparable(study, cell) for cell in cells]


def to_json(spec: Spec) -> str:
    """Write a spec as one line of sorted JSON: equal specs are equal text for Snakemake."""
    return json.dumps(spec, sort_keys=True, separators=(",", ":"), allow_nan=False)


def _plain(value: dict[str, Any]) -> Spec:
    """Return plain JSON in which options have their `kind`."""
    return {name: _json(value[name]) for name in sorted(value)}


def _json(value: Any) -> Any:
    if isinstance(value, dict):
        return _plain(value)
    if isinstance(value, tuple | list):
        return [_json(item) for item in value]
    if not dataclasses.is_dataclass(value):
        return value
    fields = {name: _json(getattr(value, name)) for name in deciding(value)}
    kind = _KINDS.get(type(value))
    return {"kind": kind, **fields} if kind else fields


_KINDS: dict[type, str] = {
    cls: kind
    for table in (ATTACKS, DATASETS, METHODS, PROBES, REGIMES)
    for kind, cls in table.items()
}
