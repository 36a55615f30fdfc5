"""Reads a study: parses YAML, merges defaults into runs, checks types, then references."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from robustviews.attacks import ATTACKS, Attack
from robustviews.datasets import DATASETS, Dataset
from robustviews.methods import METHODS, Method
from robustviews.probe import OWN_HEAD, PROBES, Probe
from robustviews.regimes import REGIMES, Regime
from robustviews.study import enough
from robustviews.study.build import Builder
from robustviews.study.located import LocatedDict, LocatedList, load_located, merge, show
from robustviews.study.problems import Place, Problems, nearest
from robustviews.study.references import check_references
from robustviews.study.schema import Run, Study

TABLES: Mapping[type, Mapping[str, type[Any]]] = {
    Method: METHODS,
    Regime: REGIMES,
    Dataset: DATASETS,
    Probe: PROBES,
    Attack: ATTACKS,
}
NAMED = ("datasets", "runs", "encoders", "probes", "attacks", "tables", "figures")
SLUG = re.compile(r"(?=.{1,80}$)[a-z0-9]+(-[a-z0-9]+)*")  # 80: a path holds several of them
RESERVED = {
    "clean": "attacks",  # metrics of columns
    "minutes": "attacks",
    "claims": "tables",  # their results stand beside the tables in metrics.json
    "fresh": "probes",  # a value of rle_start
    "own": "probes",  # every study has it: a supervised network's own classifier
}


def load_study(path: Path | str) -> Study:
    """Read, merge and check a study file.

    Args:
        path: YAML file; one file is one whole study.

    Returns:
        The study, every option resolved.

    Raises:
        StudyError: the file has mistakes; the error lists all of them with their lines and keys.
    """
    problems = Problems(str(path))
    tree = load_located(Path(path), problems)
    _check_names(tree, problems)
    builder = Builder(problems, TABLES)
    for _, block, _ in _entries(tree, "defaults"):
        if isinstance(block, LocatedDict):
            builder.check_part(Run, block)  # a later block or the run may replace what is wrong
    _merge_defaults(tree, problems)
    values = builder.fields(Study, tree)
    if all(isinstance(values.get(block, {}), dict) for block in NAMED):
        # References are checked even if other parts of the file have mistakes.
        study = Study(**values, file=str(path))
        study.probes["own"] = OWN_HEAD
        check_references(study, tree, problems)
    problems.raise_if_any()
    for lack in enough.lacks(study, enough.stated(study)):
        entry = tree[lack.block][lack.name]
        place = entry.at.get(lack.key, tree[lack.block].at[lack.name])
        key = f"{lack.block}.{lack.name}.{lack.key}"
        problems.add(Place(place.line, key), lack.message)
    problems.raise_if_any()
    return study


def _check_names(tree: LocatedDict, problems: Problems) -> None:
    """Check names, which become folders and wildcards of rules."""

    def check(name: str, place: Place) -> None:
        if not SLUG.fullmatch(name):
            problems.add(
                place,
                f"{name!r} is not a usable name; expected lower-case letters, digits and single "
                "hyphens, 80 at most, such as emp-crop16-free3",
            )

    if isinstance(tree.get("study"), str):
        check(tree["study"], tree.at["study"])
    tables = {name for name, _, _ in _entries(tree, "tables")}
    for block in NAMED:
        for name, entry, place in _entries(tree, block):
            check(name, place)
            if RESERVED.get(name) == block:
                problems.add(place, f"`{name}` is a reserved name; choose another name")
            if block == "figures" and name in tables:
                problems.add(place, f"a table is also named `{name}`; choose another name")
            if isinstance(entry, LocatedDict):
                for row, _, row_place in _entries(entry, "rows"):
                    check(row, row_place)


def _entries(tree: LocatedDict, block: str) -> list[tuple[str, Any, Place]]:
    """Return name, value and place of all entries of a block; none if it is not a mapping."""
    entries = tree.get(block)
    if not isinstance(entries, LocatedDict):
        return []  # the type check reports it
    return [(name, value, entries.at[name]) for name, value in entries.items()]


def _merge_defaults(tree: LocatedDict, problems: Problems) -> None:
    """Merge the blocks that each run uses, in order, then its own options; drop `defaults`."""
    blocks = {name: block for name, block, _ in _entries(tree, "defaults")}
    used = {"all"}
    for name, run, place in _entries(tree, "runs"):
        if not isinstance(run, LocatedDict):
            continue
        names = ["all"] * ("all" in blocks) + _used(run, blocks, problems)
        used.update(names)
        merged = LocatedDict(place)
        for block in names:
            if isinstance(blocks[block], LocatedDict):
                merged = merge(merged, blocks[block])
            else:
                run.partial = True
        tree["runs"][name] = merge(merged, run)
    for name, block, place in _entries(tree, "defaults"):
        if not isinstance(block, LocatedDict):
            problems.add(place, f"expected a mapping of run options, found {show(block)}")
        elif name not in used and _entries(tree, "runs"):
            problems.add(place, "no run uses this block; remove it, or name it in `use:` of a run")
    defaults = tree.pop("defaults", LocatedDict(tree.place))
    if not isinstance(defaults, LocatedDict):
        shown = show(defaults)
        problems.add(tree.at["defaults"], f"expected blocks of run options, found {shown}")


def _used(run: LocatedDict, blocks: Mapping[str, Any], problems: Problems) -> list[str]:
    """Remove `use` from a run and return those of its blocks that exist."""
    names = run.pop("use", LocatedList(run.place))
    if not isinstance(names, LocatedList):
        example = f"[{names}]" if isinstance(names, str) else "[" + ", ".join(blocks) + "]"
        problems.add(
            run.at["use"], f"expected a list of blocks such as {example}, found {show(names)}"
        )
        run.partial = True
        return []
    for name, place in zip(names, names.at, strict=True):
        if not isinstance(name, str) or name not in blocks:
            near = nearest(name if isinstance(name, str) else "", blocks)
            problems.add(place, f"no block {show(name)} in `defaults`; {near}")
            run.partial = True
    return [name for name in names if isinstance(name, str) and name in blocks]
