"""What the text of one module says: its definitions, what they mention, what it imports.

Nothing here depends on other files, so each text is analysed once, in whatever folder it lies: the
audit compares the package with its copy at a commit, of which most files are the same.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache

from robustviews.study.stripping import statements, strip

PACKAGE = "robustviews"


@dataclass(eq=False)
class Text:
    """Top-level definitions and imports of a module, without what decides no number.

    Attributes:
        definitions: the statements that define each name.
        imports: module and name of what is imported from this package, by local name.
        lazy: modules of this package that are imported at first use, by local name.
        meanings: what each imported name stands for, by local name: `floor` for `math.floor`.
    """

    definitions: dict[str, list[ast.stmt]] = field(default_factory=dict)
    imports: dict[str, tuple[str, str]] = field(default_factory=dict)
    lazy: dict[str, str] = field(default_factory=dict)
    meanings: dict[str, set[str]] = field(default_factory=dict)
    _mentions: dict[str, frozenset[tuple[str, str]]] = field(default_factory=dict)
    _fingerprints: dict[str, str] = field(default_factory=dict)

    def mentions(self, name: str) -> frozenset[tuple[str, str]]:
        """Return pairs (name, attribute) of a definition; the attribute of a bare name is ""."""
        if name not in self._mentions:
            self._mentions[name] = frozenset(_mentions(self.definitions[name]))
        return self._mentions[name]

    def fingerprint(self, name: str) -> str:
        """Return a hash of a definition, the same in every Python version."""
        if name not in self._fingerprints:
            text = _written(self.definitions[name])
            used = {node.id for node in _walk(self.definitions[name]) if isinstance(node, ast.Name)}
            for local in sorted(used & {*self.meanings}):  # `round(x)` says nothing of the import
                text += f" {local}={','.join(sorted(self.meanings[local]))}"
            self._fingerprints[name] = hashlib.sha256(text.encode()).hexdigest()
        return self._fingerprints[name]


@cache
def analyse(text: str) -> Text:
    """Return what a module says.

    Raises:
        SyntaxError: with its line, where code cannot be parsed or followed.
    """
    tree = strip(ast.parse(text))
    module = Text()
    for statement in tree.body:
        _collect(statement, module)
    for node in statements(tree):  # imports inside functions count too
        _import(node, module)
    return module


def _mentions(
    nodes: Iterable[ast.AST], local: frozenset[str] = frozenset()
) -> Iterator[tuple[str, str]]:
    """Yield names and their attributes; skip arguments of functions.

    Where a function has an argument `probe`, `probe.train` is a method of that argument, even if
    the module defines another `probe`.
    """
    for node in nodes:
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            if node.value.id not in local:
                yield node.value.id, node.attr
        elif isinstance(node, ast.Name):
            if node.id not in local:
                yield node.id, ""
        elif isinstance(node, ast.FunctionDef | ast.Lambda):
            args = node.args
            arguments = (*args.posonlyargs, *args.args, *args.kwonlyargs, args.vararg, args.kwarg)
            inner = local | {argument.arg for argument in arguments if argument is not None}
            body = node.body if isinstance(node.body, list) else [node.body]
            outside = (child for child in ast.iter_child_nodes(node) if child not in body)
            yield from _mentions(outside, local)  # defaults and decorators
            yield from _mentions(body, inner)
        else:
            yield from _mentions(ast.iter_child_nodes(node), local)


def _walk(nodes: Sequence[ast.AST]) -> Iterator[ast.AST]:
    for node in nodes:
        yield from ast.walk(node)


def _written(node: object) -> str:
    """Write syntax as text that, unlike that of `ast.dump`, is the same in all Python versions."""
    if isinstance(node, list):
        return f"[{','.join(map(_written, node))}]"
    if not isinstance(node, ast.AST):
        return repr(node)
    fields = [
        f"{name}={_written(value)}"
        for name, value in ast.iter_fields(node)
        if value not in (None, [])
    ]
    return f"{type(node).__name__}({','.join(fields)})"


def _collect(statement: ast.stmt, module: Text) -> None:
    """Record what a top-level statement of a module defines."""
    if isinstance(statement, ast.If) and ast.unparse(statement.test) == "TYPE_CHECKING":
        for inner in statement.orelse:
            _collect(inner, module)
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
        raise _refused("runs at import; put it into a function", statement)


def _collect_lazy(statement: ast.Assign, module: Text) -> None:
    """Record what `torch, losses = LazyModule("torch"), LazyModule("robustviews.losses")` means."""
    names = [node.id for node in _walk(statement.targets) if isinstance(node, ast.Name)]
    calls = [node for node in ast.walk(statement.value) if isinstance(node, ast.Call)]
    for name, call in zip(names, calls, strict=True):
        target = ast.literal_eval(call.args[0])
        module.meanings.setdefault(name, set()).add(target)
        if target.startswith(f"{PACKAGE}."):
            module.lazy[name] = target.removeprefix(f"{PACKAGE}.")


def _is_text(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)


def _import(node: ast.AST, module: Text) -> None:
    """Record what an import means; refuse one of this package that cannot be followed."""
    if isinstance(node, ast.Import | ast.ImportFrom):
        origin = f"{node.module}." if isinstance(node, ast.ImportFrom) else ""
        for alias in node.names:
            local = alias.asname or alias.name.split(".")[0]
            module.meanings.setdefault(local, set()).add(origin + alias.name)
    if isinstance(node, ast.Import):
        if any(_is_ours(alias.name) for alias in node.names):
            raise _refused(f"write `from {PACKAGE} import ...`", node)
    elif isinstance(node, ast.ImportFrom) and (node.level or _is_ours(node.module)):
        if node.level or node.names[0].name == "*":
            raise _refused(f"name what is imported from {PACKAGE}", node)
        origin = str(node.module).removeprefix(PACKAGE).removeprefix(".")
        for alias in node.names:
            local, meant = alias.asname or alias.name, (origin, alias.name)
            if module.imports.setdefault(local, meant) != meant:
                raise _refused(f"{local} is imported from two modules", node)


def _is_ours(module: str | None) -> bool:
    return str(module).split(".")[0] == PACKAGE


def _refused(text: str, node: ast.stmt) -> SyntaxError:
    return SyntaxError(text, (None, node.lineno, None, None))
