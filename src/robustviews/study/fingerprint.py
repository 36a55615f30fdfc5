"""A digest of the code that decides a result, definition by definition.

A job depends on the functions and classes that it can reach, not on the files that define them. A
changed line of a loss reruns the trainings that use the loss. A new attack, another table or a
better comment reruns nothing.

The digest starts at given definitions, the roots. It follows the names in their bodies, within a
module and through imports of this package, to all definitions that they use. Each of these is
hashed as syntax, without the parts that decide no number: comments, docstrings, annotations,
messages of `raise`, log calls and warnings, and members of options marked `plan_only`. What an
imported name stands for is hashed with the definitions that use the name. An object
that is passed as an argument is not followed: its class must be a root. Only the command line reads
the tables of all methods or attacks (METHODS, ATTACKS, ...) and passes one entry on.

No used definition may be missed. A module that is used as a whole, as in `getattr(losses, name)`,
counts with all its definitions. Code that cannot be followed is refused: star imports, relative
imports, `import robustviews.losses`, and statements that run at import.
"""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path
from typing import NamedTuple

from robustviews.study.syntax import PACKAGE, Text, analyse

SOURCE = Path(__file__).parents[1]

Symbol = tuple[str, str]  # (module, top-level name)


def digest(*roots: Symbol, source: Path = SOURCE) -> str:
    """Hash all code that some definitions use.

    Args:
        roots: pairs (module, name) such as ("losses", "nt_xent").
        source: folder of the package.

    Returns:
        16 hexadecimal digits, the same in every Python version.

    Raises:
        LookupError: a root does not exist.
        SyntaxError: code cannot be followed.
    """
    return _digest(frozenset(roots), source)


@cache
def _digest(roots: frozenset[Symbol], source: Path) -> str:
    lines = [
        f"{module}.{name} {_read(module, source).text.fingerprint(name)}"
        for module, name in sorted(reach(*roots, source=source))
    ]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


@cache
def files(*names: str, source: Path = SOURCE) -> str:
    """Hash whole modules and folders of the package, for stages that are quick to rerun.

    Args:
        names: such as "tables"; a folder includes all files in it.
        source: folder of the package.

    Returns:
        16 hexadecimal digits.

    Raises:
        LookupError: a module or folder does not exist.
    """
    hasher = hashlib.sha256()
    for name in sorted(names):
        paths = [source / f"{name}.py", *sorted((source / name).glob("**/*"))]
        paths = [path for path in paths if path.is_file() and path.suffix != ".pyc"]
        if not paths:
            raise LookupError(f"{source} holds no module or folder {name!r}")
        for path in paths:
            hasher.update(path.relative_to(source).as_posix().encode() + b"\n")
            hasher.update(path.read_bytes())
    return hasher.hexdigest()[:16]


def reach(*roots: Symbol, source: Path = SOURCE) -> frozenset[Symbol]:
    """Return all definitions that the roots use, including the roots."""
    reached: set[Symbol] = set()
    pending = [_origin(module, name, source) for module, name in roots]
    while pending:
        symbol = pending.pop()
        if symbol not in reached:
            reached.add(symbol)
            pending.extend(_uses(*symbol, source))
    return frozenset(reached)


def _origin(module_name: str, name: str, source: Path) -> Symbol:
    """Return where a name is defined; the module may only re-export it."""
    module = _read(module_name, source)
    if name in module.text.definitions:
        return module_name, name
    if name in module.names:
        return _origin(*module.names[name], source)
    raise LookupError(f"{PACKAGE}.{module_name} defines no {name!r}")


@cache
def _uses(module_name: str, name: str, source: Path) -> frozenset[Symbol]:
    """Return the definitions of the package that one definition names."""
    module = _read(module_name, source)
    used: set[Symbol] = set()
    for local, attribute in module.text.mentions(name):
        other = module.modules.get(local)
        if other is None:
            used.update([(module_name, local)] if local in module.all() else [])
        elif attribute in _read(other, source).all():  # `losses.nt_xent`
            used.add((other, attribute))
        else:
            used.update((other, each) for each in _read(other, source).all())
    return frozenset(_origin(*symbol, source) for symbol in used)


class _Module(NamedTuple):
    """A module among the others of a package.

    Attributes:
        text: what its own text says.
        modules: imported modules of the package, by local name.
        names: definitions imported from other modules, by local name.
    """

    text: Text
    modules: dict[str, str]
    names: dict[str, Symbol]

    def all(self) -> set[str]:
        """Return every name that the module defines or re-exports."""
        return {*self.text.definitions, *self.names}


@cache
def _read(module_name: str, source: Path) -> _Module:
    path = _path(module_name, source)
    if path is None:
        raise LookupError(f"{source} holds no module {module_name!r}")
    try:
        text = analyse(path.read_text(encoding="utf-8"))
    except SyntaxError as error:
        raise SyntaxError(f"{path}:{error.lineno}: {error.msg}") from None
    module = _Module(text, dict(text.lazy), {})
    for local, (origin, name) in text.imports.items():
        inner = f"{origin}.{name}".removeprefix(".")
        if _path(inner, source) is not None:
            module.modules[local] = inner
        else:
            module.names[local] = (origin or "__init__", name)
    return module


@cache
def _path(module_name: str, source: Path) -> Path | None:
    folder = source.joinpath(*module_name.split("."))
    paths = (folder.with_suffix(".py"), folder / "__init__.py")
    return next((path for path in paths if path.is_file()), None)
