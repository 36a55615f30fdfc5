"""YAML mappings and lists that keep the place of every entry, so that errors can name it.

A plain value is accepted only if YAML 1.1 (Snakemake) and YAML 1.2 (DVC) read it the same way:
`1e-3`, `010`, `1:30` and `on` are refused.
"""

from __future__ import annotations

import datetime
import re
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import yaml

from robustviews.study.problems import Place, Problems

INVALID: Any = object()  # marks a value whose mistake is already reported
_MOST_VALUES = 100_000  # in a file; nested aliases can expand to more than any memory holds
_MOST = 2**63 - 1  # the largest seed, or integer in a tensor
# Plain scalars of YAML 1.2, in the order of the specification (10.3.2, core schema).
_CORE: tuple[tuple[re.Pattern[str], Callable[[str], Any]], ...] = (
    (re.compile(r"null|Null|NULL|~|"), lambda _: None),
    (re.compile(r"true|True|TRUE|false|False|FALSE"), lambda text: text.lower() == "true"),
    (re.compile(r"[-+]?[0-9]+"), int),
    (re.compile(r"0o[0-7]+|0x[0-9a-fA-F]+"), lambda text: int(text, 0)),
    (re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?"), float),
    (
        re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)"),
        lambda text: float(text.replace(".", "")),
    ),
)


class LocatedDict(dict[str, Any]):
    """A mapping with `at[key]`, the place of each key.

    Attributes:
        place: place of the mapping itself.
        partial: whether some of its keys could not be read; then no key is reported as missing.
    """

    def __init__(self, place: Place) -> None:
        super().__init__()
        self.place = place
        self.at: dict[str, Place] = {}
        self.partial = False

    def put(self, key: str, value: Any, place: Place) -> None:
        """Set an entry and its place."""
        self[key] = value
        self.at[key] = place


class LocatedList(list[Any]):
    """A sequence with `at[i]`, the place of each entry."""

    def __init__(self, place: Place) -> None:
        super().__init__()
        self.place = place
        self.at: list[Place] = []


def load_located(path: Path, problems: Problems) -> LocatedDict:
    """Read a YAML file into located mappings and lists.

    Args:
        path: file to read.
        problems: collects values that cannot be read and keys that occur twice.

    Returns:
        The top-level mapping; a value that could not be read is INVALID.

    Raises:
        StudyError: the file cannot be read, is not YAML, or does not hold a mapping.
    """
    text = _read(path, problems)
    try:
        root = yaml.compose(text, Loader=_Loader)
        if not isinstance(root, yaml.MappingNode):
            _refuse(problems, "expected a mapping with keys such as `study:` and `runs:`")
        tree = _Converter(problems).convert(root, Place(1, ""))
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        _refuse(problems, f"not valid YAML: {error.problem or error.context}", line)
    except _TooLongError as error:
        message = f"this file holds more than {_MOST_VALUES} values; divide it into several studies"
        _refuse(problems, message, error.line)
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        _refuse(problems, f"not valid YAML: character U+{error.character:04X} is not allowed", line)
    except RecursionError:
        _refuse(problems, "not a study: mappings or lists nested hundreds of levels deep")
    if not isinstance(tree, LocatedDict):
        problems.raise_if_any()
    return tree  # type: ignore[no-any-return]


def _read(path: Path, problems: Problems) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        _refuse(problems, "there is no such file; expected a study file such as params.yaml")
    except IsADirectoryError:
        _refuse(problems, "this is a folder; name the study file in it")
    except UnicodeDecodeError as error:
        _refuse(problems, f"not UTF-8 text ({error.reason} at byte {error.start})")
    except OSError as error:
        _refuse(problems, f"the file cannot be read: {error.strerror}")


def _refuse(problems: Problems, message: str, line: int = 1) -> NoReturn:
    problems.add(Place(line, ""), message)
    problems.raise_if_any()
    raise AssertionError


class _TooLongError(Exception):
    def __init__(self, line: int) -> None:
        self.line = line


class _Loader(yaml.SafeLoader):
    """Gives up on a file that is too long, as soon as it is."""

    _nodes = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        self._nodes += 1
        if self._nodes > _MOST_VALUES:
            raise _TooLongError(self.line + 1)
        return super().compose_node(parent, index)


class _Converter:
    """Turns YAML nodes into located values and reports mistakes in them."""

    def __init__(self, problems: Problems) -> None:
        self._problems = problems
        self._loader = yaml.SafeLoader("")
        self._above: list[yaml.Node] = []
        self._count = 0

    def convert(self, node: yaml.Node, place: Place) -> Any:
        """Return a node's value, or INVALID."""
        self._count += 1
        if self._count > _MOST_VALUES:
            self._problems.add(place, f"aliases make this file longer than {_MOST_VALUES} values")
            self._problems.raise_if_any()
        if any(node is parent for parent in self._above):
            return self._invalid(place, "an alias that contains itself")
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node, place)
        if node.tag not in ("tag:yaml.org,2002:map", "tag:yaml.org,2002:seq"):
            return self._invalid(place, f"tags are not used here; remove {_short(node.tag)}")
        self._above.append(node)
        if isinstance(node, yaml.MappingNode):
            value: Any = self._mapping(node, place)
        else:
            value = self._list(node, place)
        self._above.pop()
        return value

    def _mapping(self, node: yaml.MappingNode, place: Place) -> LocatedDict:
        mapping = LocatedDict(place)
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            if not isinstance(key_node, yaml.ScalarNode):
                self._problems.add(Place(line, place.key), "a key must be plain text")
                mapping.partial = True
                continue
            # A key is its text as written: `no:` and `1:` stay text.
            name = key_node.value
            child = Place(line, f"{place.key}.{name}" if place.key else name)
            if name == "<<":
                self._problems.add(
                    child,
                    "merge keys are not used here; put the block under `defaults:` and name it "
                    "in `use:`",
                )
                mapping.partial = True
                continue
            if name in mapping:
                self._problems.add(
                    child,
                    f"this key occurs twice (first on line {mapping.at[name].line}); remove one "
                    "of them",
                )
            mapping.put(name, self.convert(value_node, child), child)
        return mapping

    def _list(self, node: yaml.Node, place: Place) -> LocatedList:
        entries = LocatedList(place)
        for number, entry in enumerate(node.value):
            entries.at.append(Place(entry.start_mark.line + 1, f"{place.key}[{number}]"))
            entries.append(self.convert(entry, entries.at[-1]))
        return entries

    def _scalar(self, node: yaml.ScalarNode, place: Place) -> Any:
        text, plain = node.value, node.style is None
        tag = self._loader.resolve(yaml.ScalarNode, text, (plain, not plain))  # type: ignore[no-untyped-call]
        if node.tag != tag:
            return self._invalid(place, f"tags are not used here; remove {_short(node.tag)}")
        if not plain:
            if any(unicodedata.category(char) in ("Cc", "Cs") for char in set(text) - {"\n", "\t"}):
                return self._invalid(place, "expected text, found control characters in it")
            return text
        return self._plain(node, place)

    def _plain(self, node: yaml.ScalarNode, place: Place) -> Any:
        text = node.value
        try:
            value = next((read(text) for form, read in _CORE if form.fullmatch(text)), text)
        except ValueError:  # Python limits the number of digits
            value = _MOST + 1
        if isinstance(value, int) and abs(value) > _MOST:
            return self._invalid(place, f"whole numbers end at {_MOST}, found {text[:24]}...")
        try:
            old = self._loader.construct_object(node)
        except (yaml.YAMLError, ValueError):
            old = INVALID
        if repr(old) == repr(value):
            return value
        both = (old, value)
        numbers = dict.fromkeys(number for number in both if isinstance(number, int | float))
        choices = [*(show(number) for number in numbers), f'"{text}"']
        return self._invalid(
            place,
            f"YAML 1.1 reads {text} as {show(old)}, YAML 1.2 as {show(value)}; write "
            + " or ".join(choices),
        )

    def _invalid(self, place: Place, message: str) -> Any:
        self._problems.add(place, message)
        return INVALID


def show(value: Any) -> str:
    """Return a value as a study file writes it."""
    if isinstance(value, LocatedDict):
        return "a mapping"
    if isinstance(value, LocatedList):
        return "a list"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, datetime.date):
        return "a date"
    if value is INVALID:
        return "an invalid value"
    return "nothing" if value is None else repr(value)


def _short(tag: str) -> str:
    return tag.replace("tag:yaml.org,2002:", "!!")


def merge(base: LocatedDict, over: LocatedDict) -> LocatedDict:
    """Merge two mappings, key by key and level by level; `over` wins.

    A mapping of another `kind` replaces the whole mapping in `base`, since its options differ. A
    bare name stands for the mapping `{kind: name}`, here too.

    Args:
        base: mapping whose entries are kept if `over` lacks them.
        over: mapping that wins.

    Returns:
        A new mapping; each entry keeps its place.
    """
    if "kind" in over and over["kind"] != base.get("kind", over["kind"]):
        return over
    merged = LocatedDict(over.place)
    merged.partial = base.partial or over.partial
    for key, value in base.items():
        merged.put(key, value, base.at[key])
    for key, value in over.items():
        below, above = merged.get(key), value
        if isinstance(above, str) and isinstance(below, LocatedDict) and "kind" in below:
            above = tagged(above, over.at[key])
        if isinstance(below, str) and isinstance(above, LocatedDict):
            below = tagged(below, base.at[key])
        if isinstance(above, LocatedDict) and isinstance(below, LocatedDict):
            above = merge(below, above)
        merged.put(key, above, over.at[key])
    return merged


def part(whole: LocatedDict) -> LocatedDict:
    """Return a copy of a mapping that is partial on every level."""
    copy = LocatedDict(whole.place)
    copy.partial = True
    for key, value in whole.items():
        copy.put(key, part(value) if isinstance(value, LocatedDict) else value, whole.at[key])
    return copy


def tagged(kind: str, place: Place) -> LocatedDict:
    """Return the mapping `{kind: name}` that a bare name stands for."""
    mapping = LocatedDict(place)
    mapping.put("kind", kind, place)
    return mapping
