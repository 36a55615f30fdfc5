"""Builds frozen dataclasses from located YAML; checks the key, type and range of each value."""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from collections.abc import Mapping
from typing import Any, Literal

from robustviews.options import broken_bound
from robustviews.study.located import INVALID, LocatedDict, LocatedList, part, show, tagged
from robustviews.study.problems import Place, Problems, closest, nearest

_NAMES = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "text",
    types.NoneType: "null",
}


class Builder:
    """Builds dataclasses and collects every mistake; a value with a mistake becomes INVALID."""

    def __init__(self, problems: Problems, tables: Mapping[type, Mapping[str, type[Any]]]) -> None:
        """Create a builder.

        Args:
            problems: collects the mistakes.
            tables: for each field type with a `kind`, the table `{kind: dataclass}` to choose from.
        """
        self._problems = problems
        self._tables = tables

    def build(self, cls: type[Any], node: LocatedDict) -> Any:
        """Build a dataclass whose field types and `option` bounds are the schema of a mapping."""
        values = self.fields(cls, node)
        if node.partial or any(value is INVALID for value in values.values()):
            return INVALID
        try:
            return cls(**values)
        except ValueError as error:  # a rule between fields, stated in __post_init__
            field, _, _ = str(error).partition(":")
            self._problems.add(node.at.get(field, node.place), str(error))
            return INVALID

    def check_part(self, cls: type[Any], node: LocatedDict) -> None:
        """Check what a part of a mapping has; the other part may have the missing keys."""
        self.fields(cls, part(node))

    def fields(self, cls: type[Any], node: LocatedDict) -> dict[str, Any]:
        """Return the values of a dataclass's fields; wrong or missing ones are INVALID."""
        kinds = typing.get_type_hints(cls)
        fields = {
            field.name: field
            for field in dataclasses.fields(cls)
            if field.metadata.get("key", True)
        }
        values: dict[str, Any] = {}
        for name, value in node.items():
            if name not in fields:
                self._problems.add(node.at[name], f"unknown key; {nearest(name, fields)}")
                continue
            bounds = fields[name].metadata.get("bounds", {})
            values[name] = self._value(kinds[name], value, bounds, node.at[name])
        for name, field in fields.items():
            if name in values or not _is_required(field):
                continue
            values[name] = INVALID
            if not node.partial:
                line, key = node.place
                place = Place(line, f"{key}.{name}" if key else name)
                expected = self._expected(kinds[name])
                self._problems.add(place, f"this key is missing; expected {expected}")
        return values

    def _value(self, kind: Any, value: Any, bounds: Mapping[str, float], place: Place) -> Any:
        """Check one value against a type hint."""
        if value is INVALID:
            return INVALID
        if typing.get_origin(kind) in (typing.Union, types.UnionType):
            matching = [inner for inner in typing.get_args(kind) if self._accepts(inner, value)]
            if matching:
                return self._value(matching[0], value, bounds, place)
        if not self._accepts(kind, value):
            shown = f"{show(value)}{_hint(kind, value)}"
            self._problems.add(place, f"expected {self._expected(kind)}, found {shown}")
            return INVALID
        if kind in self._tables:
            return self._choose(self._tables[kind], value, place)
        if dataclasses.is_dataclass(kind):
            return self.build(typing.cast("type[Any]", kind), value)
        if isinstance(value, LocatedList):
            return self._tuple(typing.get_args(kind), value, bounds)
        if isinstance(value, LocatedDict):
            return self._mapping(typing.get_args(kind)[1], value)
        return self._number(kind, value, bounds, place) if kind in (int, float) else value

    def _choose(self, table: Mapping[str, type[Any]], node: Any, place: Place) -> Any:
        """Build the dataclass that `kind` names; a bare name stands for `{kind: name}`."""
        if isinstance(node, str):
            node = tagged(node, place)
        kind = node.get("kind")
        if kind is INVALID or (node.partial and "kind" not in node):
            return INVALID
        if not isinstance(kind, str) or kind not in table:
            kind_place = node.at.get("kind", Place(node.place.line, f"{node.place.key}.kind"))
            mistake = f"unknown kind {show(kind)}" if "kind" in node else "this key is missing"
            self._problems.add(kind_place, f"{mistake}; {nearest(str(kind), table)}")
            return INVALID
        rest = LocatedDict(node.place)
        rest.partial = node.partial
        for name, value in node.items():
            if name != "kind":
                rest.put(name, value, node.at[name])
        return self.build(table[kind], rest)

    def _tuple(
        self, kinds: tuple[Any, ...], value: LocatedList, bounds: Mapping[str, float]
    ) -> Any:
        if kinds[-1] is Ellipsis:
            kinds = kinds[:1] * len(value)
        if len(kinds) != len(value):
            self._problems.add(value.place, f"expected {len(kinds)} entries, found {len(value)}")
            return INVALID
        entries = [
            self._value(kind, entry, bounds, place)
            for kind, entry, place in zip(kinds, value, value.at, strict=True)
        ]
        return INVALID if any(entry is INVALID for entry in entries) else tuple(entries)

    def _mapping(self, kind: Any, value: LocatedDict) -> dict[str, Any]:
        """Return the entries without mistakes, so that references to them can still be checked."""
        entries = {
            name: self._value(kind, entry, {}, value.at[name]) for name, entry in value.items()
        }
        return {name: entry for name, entry in entries.items() if entry is not INVALID}

    def _number(
        self, kind: type[float], value: float, bounds: Mapping[str, float], place: Place
    ) -> Any:
        number = kind(value)
        broken = broken_bound(number, bounds)
        if broken:
            self._problems.add(place, f"must be {broken}, found {value}")
            return INVALID
        return number

    def _accepts(self, kind: Any, value: Any) -> bool:
        """Return whether a value has a type; its range and entries are checked elsewhere."""
        origin, arguments = typing.get_origin(kind), typing.get_args(kind)
        if kind in self._tables:
            return isinstance(value, LocatedDict | str)
        if dataclasses.is_dataclass(kind) or origin in (dict, Mapping):
            return isinstance(value, LocatedDict)
        if origin is tuple:
            return isinstance(value, LocatedList)
        if origin is Literal:
            return any(value == choice and type(value) is type(choice) for choice in arguments)
        if origin in (typing.Union, types.UnionType):
            return any(self._accepts(inner, value) for inner in arguments)
        if isinstance(value, bool):
            return kind is bool
        return isinstance(value, int | float if kind is float else kind)

    def _expected(self, kind: Any) -> str:
        """Describe the values that a type accepts."""
        origin, arguments = typing.get_origin(kind), typing.get_args(kind)
        if kind in self._tables:
            return "a mapping with `kind:` " + _either(list(self._tables[kind]))
        if dataclasses.is_dataclass(kind) or origin in (dict, Mapping):
            return "a mapping"
        if origin is tuple:
            return "a list such as [..., ...]"
        if origin is Literal:
            return _either([show(choice).strip("'") for choice in arguments])
        if origin in (typing.Union, types.UnionType):
            return _either([self._expected(inner) for inner in arguments])
        return _NAMES[kind]


def _is_required(field: dataclasses.Field[Any]) -> bool:
    missing = dataclasses.MISSING
    return field.default is missing and field.default_factory is missing


def _either(words: list[str]) -> str:
    return " or ".join([", ".join(words[:-1]), words[-1]] if words[1:] else words)


def _hint(kind: Any, value: Any) -> str:
    """Return what to write instead, if that is obvious, as the end of a message."""
    if typing.get_origin(kind) is Literal and isinstance(value, str):
        close = closest(value, map(str, typing.get_args(kind)))
        return f"; did you mean `{close}`?" if close else ""
    if kind is str and isinstance(value, int | float):
        return f'; put it in quotes: "{show(value)}"'
    if typing.get_origin(kind) is tuple and isinstance(value, str | int | float):
        return f"; write [{show(value)}]"
    if kind in (int, float) and isinstance(value, str | float):
        try:
            number = float(value)
        except ValueError:
            return ""
        if math.isfinite(number) and (kind is float or number.is_integer()):
            return f"; write {kind(number)!r}"
    return ""
