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

import ast
import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from robustviews.study.stripping import strip

PACKAGE = "robustviews"
SOURCE = Path(__file__).parents[1]

Symbol = tuple[str, str]  # (module, top-level name)


@dataclass
class _Module:
    """Top-level definitions and imports of a module.

    Attributes:
        definitions: the statements that define each name.
        modules: imported modules of the package, by local name.
        names: definitions imported from other modules, by local name.
        meanings: what each imported name stands for, by local name: `floor` for `math.floor`.
    """

    definitions: dict[str, list[ast.stmt]] = field(default_factory=dict)
    modules: dict[str, str] = field(default_factory=dict)
    names: dict[str, Symbol] = field(default_factory=dict)
    meanings: dict[str, set[str]] = field(default_factory=dict)

    def all(self) -> set[str]:
        """Return every name that the module defines or re-exports."""
        return {*self.definitions, *self.names}


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
        f"{module}.{name} {_fingerprint(module, name, source)}"
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
    module = _parse(module_name, source)
    if name in module.definitions:
        return module_name, name
    if name in module.names:
        return _origin(*module.names[name], source)
    raise LookupError(f"{PACKAGE}.{module_name} defines no {name!r}")


@cache
def _uses(module_name: str, name: str, source: Path) -> frozenset[Symbol]:
    """Return the definitions of the package that one definition names."""
    module = _parse(module_name, source)
    used: set[Symbol] = set()
    followed: set[ast.AST] = set()  # `losses` in `losses.nt_xent`; the attribute comes first
    for node in _names(module.definitions[name]):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            other = module.modules.get(node.value.id)
            if other is not None and node.attr in _parse(other, source).all():
                used.add((other, node.attr))
                followed.add(node.value)
        elif isinstance(node, ast.Name) and node not in followed:
            if node.id in module.modules:
                other = module.modules[node.id]
                used.update((other, name) for name in _parse(other, source).all())
            elif node.id in module.all():
                used.add((module_name, node.id))
    return frozenset(_origin(*symbol, source) for symbol in used)


def _names(nodes: Iterable[ast.AST], local: frozenset[str] = frozenset()) -> Iterator[ast.AST]:
    """Yield names and attributes, an attribute before its parts; skip arguments of functions.

    Where a function has an argument `probe`, `probe.train` is a method of that argument, even if
    the module defines another `probe`.
    """
    for node in nodes:
        if isinstance(node, ast.Name | ast.Attribute):
            first: ast.expr = node
            while isinstance(first, ast.Attribute):
                first = first.value
            if not (isinstance(first, ast.Name) and first.id in local):
                yield node
        if isinstance(node, ast.FunctionDef | ast.Lambda):
            args = node.args
            arguments = (*args.posonlyargs, *args.args, *args.kwonlyargs, args.vararg, args.kwarg)
            inner = local | {argument.arg for argument in arguments if argument is not None}
            body = node.body if isinstance(node.body, list) else [node.body]
            outside = (child for child in ast.iter_child_nodes(node) if child not in body)
            yield from _names(outside, local)  # defaults and decorators
            yield from _names(body, inner)
        else:
            yield from _names(ast.iter_child_nodes(node), local)


def _walk(statements: Sequence[ast.AST]) -> Iterator[ast.AST]:
    for statement in statements:
        yield from ast.walk(statement)


@cache
def _fingerprint(module: str, name: str, source: Path) -> str:
    parsed = _parse(module, source)
    text = _text(parsed.definitions[name])
    used = {node.id for node in _walk(parsed.definitions[name]) if isinstance(node, ast.Name)}
    for local in sorted(used & {*parsed.meanings}):  # `round(x)` says nothing about the import
        text += f" {local}={','.join(sorted(parsed.meanings[local]))}"
    return hashlib.sha256(text.encode()).hexdigest()


def _text(node: object) -> str:
    """Write syntax as text that, unlike that of `ast.dump`, is the same in all Python versions."""
    if isinstance(node, list):
        return f"[{','.join(map(_text, node))}]"
    if not isinstance(node, ast.AST):
        return repr(node)
    fields = [
        f"{name}={_text(value)}" for name, value in ast.iter_fields(node) if value not in (None, [])
    ]
    return f"{type(node).__name__}({','.join(fields)})"


@cache
def _parse(module_name: str, source: Path) -> _Module:
    path = _path(module_name, source)
    if path is None:
        raise LookupError(f"{source} holds no module {module_name!r}")
    tree = strip(ast.parse(path.read_text(encoding="utf-8"), path))
    module = _Module()
    for statement in tree.body:
        _collect(statement, module, path)
    for node in ast.walk(tree):  # imports inside functions count too
        _import(node, module, path, source)
    return module


def _path(module_name: str, source: Path) -> Path | None:
    folder = source.joinpath(*module_name.split("."))
    paths = (folder.with_suffix(".py"), folder / "__init__.py")
    return next((path for path in paths if path.is_file()), None)


def _collect(statement: ast.stmt, module: _Module, path: Path) -> None:
    """Record what a top-level statement of a module defines."""
    if isinstance(statement, ast.If) and ast.unparse(statement.test) == "TYPE_CHECKING":
        for inner in statement.orelse:
            _collect(inner, module, path)
    elif isinstance(statement, ast.Assign) and "LazyModule" in ast.unparse(statement.value):
        _collect_lazy(statement, module)
    elif isinstance(statement, ast.FunctionDef | ast.ClassDef):
        module.definitions.setdefault(statement.name, []).append(statement)
    elif isinstance(statement, ast.Assign | ast.AnnAssign | ast.AugAssign):
        targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
        for node in _walk(targets):  # `TABLE` also in `TABLE["key"] = ...`
            if isinstance(node, ast.Name):
                module.definitions.setdefault(node.id, []).append(statement)
    elif not isinstance(statement, ast.Import | ast.ImportFrom) and not _is_text(statement):
        raise SyntaxError(f"{path}:{statement.lineno}: runs at import; put it into a function")


def _collect_lazy(statement: ast.Assign, module: _Module) -> None:
    """Record what `torch, losses = LazyModule("torch"), LazyModule("robustviews.losses")` means."""
    names = [node.id for node in _walk(statement.targets) if isinstance(node, ast.Name)]
    calls = [node for node in ast.walk(statement.value) if isinstance(node, ast.Call)]
    for name, call in zip(names, calls, strict=True):
        target = ast.literal_eval(call.args[0])
        module.meanings.setdefault(name, set()).add(target)
        if target.startswith(f"{PACKAGE}."):
            module.modules[name] = target.removeprefix(f"{PACKAGE}.")


def _is_text(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)


def _import(node: ast.AST, module: _Module, path: Path, source: Path) -> None:
    """Record what an import means; refuse one of this package that cannot be followed."""
    if isinstance(node, ast.Import | ast.ImportFrom):
        origin = f"{node.module}." if isinstance(node, ast.ImportFrom) else ""
        for alias in node.names:
            local = alias.asname or alias.name.split(".")[0]
            module.meanings.setdefault(local, set()).add(origin + alias.name)
    if isinstance(node, ast.Import):
        if any(_is_ours(alias.name) for alias in node.names):
            raise SyntaxError(f"{path}:{node.lineno}: write `from {PACKAGE} import ...`")
    elif isinstance(node, ast.ImportFrom) and (node.level or _is_ours(node.module)):
        if node.level or node.names[0].name == "*":
            raise SyntaxError(f"{path}:{node.lineno}: name what is imported from {PACKAGE}")
        origin = str(node.module).removeprefix(PACKAGE).removeprefix(".")
        for alias in node.names:
            here, inner = alias.asname or alias.name, f"{origin}.{alias.name}".removeprefix(".")
            if _path(inner, source) is not None:
                module.modules[here] = inner
            else:
                module.names[here] = (origin or "__init__", alias.name)


def _is_ours(module: str | None) -> bool:
    return str(module).split(".")[0] == PACKAGE
