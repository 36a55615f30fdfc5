"""Every option of every dataclass that a study can hold: a wrong value is reported at its line.

Wrong values are injected into a copy of the default study, each into its own entry, all at once.
"""

from __future__ import annotations

import copy
import dataclasses
import math
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from robustviews.attacks import ATTACKS
from robustviews.augment import Views
from robustviews.datasets import DATASETS
from robustviews.methods import METHODS
from robustviews.probe import PROBES
from robustviews.regimes import REGIMES
from robustviews.study import (
    Encoder,
    Figure,
    Optimizer,
    Row,
    Run,
    Runtime,
    Study,
    StudyError,
    Table,
    load_study,
)

STUDY = Path(__file__).parents[3] / "params.yaml"
ROW = {"run": "planted", "probe": "planted"}
TABLE = {"title": "planted", "columns": ["planted/minutes"], "rows": {"planted": ROW}}
RUN = {"method": "emp_ssl", "regime": "standard", "datasets": ["planted"], "epochs": 1}
REQUIRED = {"eps": [8], "root": "planted", "classes": [0, 1], "num_classes": 2}
OF = {"worst_case": ["planted", "other"], "subset": "digits"}


@dataclasses.dataclass(frozen=True)
class Option:
    """One field of a study.

    Attributes:
        path: keys that lead to the field.
        content: content of the entry at the first two keys, without other mistakes; None if the
            option belongs to no entry of a block.
        type: type hint of the field.
        bounds: bounds of its numbers.
    """

    path: tuple[str, ...]
    content: dict[str, Any] | None
    type: Any
    bounds: dict[str, float]

    @property
    def kinds(self) -> set[Any]:
        """The allowed types, without generic arguments."""
        union = typing.get_origin(self.type) in (typing.Union, types.UnionType)
        kinds = typing.get_args(self.type) if union else (self.type,)
        return {dict if _is_mapping(kind) else typing.get_origin(kind) or kind for kind in kinds}

    @property
    def length(self) -> int:
        """The number of entries, if the field is a list."""
        [entries] = [
            typing.get_args(kind)
            for kind in (self.type, *typing.get_args(self.type))
            if typing.get_origin(kind) is tuple
        ]
        return 1 if entries[-1] is Ellipsis else len(entries)


def _is_mapping(kind: Any) -> bool:
    return dataclasses.is_dataclass(kind) or getattr(kind, "_is_protocol", False)


def _options() -> Iterator[Option]:
    yield from _fields(Study, (), None)
    yield from _fields(Runtime, ("runtime",), None)
    yield from _fields(Run, ("runs", "*"), RUN)
    for name, part in (("views", Views), ("encoder", Encoder), ("optimizer", Optimizer)):
        yield from _fields(part, ("runs", "*", name), {**RUN, name: {}})
    for name, table in (("method", METHODS), ("regime", REGIMES)):
        for kind, cls in table.items():
            yield from _fields(cls, ("runs", "*", name), {**RUN, name: {"kind": kind}})
    for block, table in (("datasets", DATASETS), ("probes", PROBES), ("attacks", ATTACKS)):
        for kind, cls in table.items():
            required = {
                field.name: OF[kind] if field.name == "of" else REQUIRED[field.name]
                for field in dataclasses.fields(cls)
                if field.default is dataclasses.MISSING
            }
            yield from _fields(cls, (block, "*"), {"kind": kind, **required})
    yield from _fields(Table, ("tables", "*"), TABLE)
    yield from _fields(Figure, ("figures", "*"), TABLE)
    yield from _fields(Row, ("tables", "*", "rows", "planted"), TABLE)


def _fields(cls: Any, path: tuple[str, ...], content: dict[str, Any] | None) -> Iterator[Option]:
    hints = typing.get_type_hints(cls)
    for field in dataclasses.fields(cls):
        option = Option(
            (*path, field.name), content, hints[field.name], field.metadata.get("bounds", {})
        )
        if not path and dict in option.kinds:
            continue  # a whole block
        yield option


OPTIONS = list(_options())
MISTAKES = {
    "text": lambda option: [] if str in option.kinds else ["nonsense"],
    "number": lambda option: [] if {int, float} & option.kinds else [7],
    "true": lambda option: [] if bool in option.kinds else [True],
    "null": lambda option: [] if type(None) in option.kinds else [None],
    "list": lambda option: [] if tuple in option.kinds else [[1]],
    "mapping": lambda option: [] if dict in option.kinds else [{"nonsense": 1}],
    "fraction": lambda option: [1.5] if int in option.kinds else [],
    "not a number": lambda option: [math.nan] if float in option.kinds else [],
    "infinite": lambda option: [math.inf, -math.inf] if float in option.kinds else [],
    "out of range": lambda option: [] if tuple in option.kinds else _outside(option),
    "entry": lambda option: [[{}] * option.length] if tuple in option.kinds else [],
    "entry out of range": lambda option: (
        [[wrong] * option.length for wrong in _outside(option)] if tuple in option.kinds else []
    ),
}


def _outside(option: Option) -> list[float]:
    """Return a value just outside each bound of a range."""
    by = 1 if int in option.kinds else 1e-6
    beyond = {"ge": -by, "gt": 0, "le": by, "lt": 0}
    return [bound + beyond[name] for name, bound in option.bounds.items()]


def plant(study: dict[str, Any], mistake: str) -> set[tuple[str, ...]]:
    """Inject a mistake into every option that can have it; return the places of the mistakes."""
    planted: set[tuple[str, ...]] = set()
    for option in OPTIONS:
        for value in MISTAKES[mistake](option):
            path = tuple(f"planted{len(planted)}" if key == "*" else key for key in option.path)
            if option.content is not None:
                study.setdefault(path[0], {})[path[1]] = copy.deepcopy(option.content)
            inner = study
            for key in path[:-1]:
                inner = inner.setdefault(key, {})
            inner[path[-1]] = value
            if mistake.startswith("entry"):
                planted |= {(*path, f"[{number}]") for number in range(option.length)}
            else:
                planted.add(path)
    return planted


def line_of(root: yaml.Node, path: tuple[str, ...]) -> int:
    """Return the line of a key or entry, counted from 1."""
    line = 0
    for name in path:
        if name.startswith("["):
            root = root.value[int(name[1:-1])]
            line = root.start_mark.line + 1
        else:
            [(line, root)] = [
                (key.start_mark.line + 1, value) for key, value in root.value if key.value == name
            ]
    return line


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_wrong_value_of_any_option_is_reported_at_its_line_and_key(mistake, tmp_path):
    study = yaml.safe_load(STUDY.read_text(encoding="utf-8"))
    study["datasets"]["planted"] = "digits"
    for name in OF["worst_case"]:
        study["attacks"][name] = {"kind": "pgd", "eps": [8]}
    planted = plant(study, mistake)
    text = yaml.safe_dump(study, sort_keys=False)
    path = tmp_path / "study.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(StudyError) as caught:
        load_study(path)
    reported = {(problem.line, problem.key): problem.message for problem in caught.value.problems}
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    expected = {(line_of(root, place), ".".join(place).replace(".[", "[")) for place in planted}
    assert expected
    assert reported.keys() == expected
    assert all("found" in message or "unknown" in message for message in reported.values())


def test_every_option_has_an_injected_mistake():
    assert len(OPTIONS) > 100
    assert all(any(wrong(option) for wrong in MISTAKES.values()) for option in OPTIONS)
