"""What of the code decides no number, and so is left out of its digest."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from typing import TypeVar

_BOUNDS = ("ge", "gt", "le", "lt")  # of an option
_Documented = TypeVar("_Documented", ast.FunctionDef, ast.ClassDef)


def strip(tree: ast.Module) -> ast.Module:
    """Remove docstrings, annotations, messages and `plan_only` members from a module, in place."""
    _Strip().visit(tree)
    return tree


def statements(node: ast.AST) -> Iterator[ast.AST]:
    """Yield all statements in a node, in their order, each before those inside it."""
    for block in _blocks(node):
        for child in block:
            yield child
            yield from statements(child)


def _blocks(node: ast.AST) -> Iterator[list[ast.AST]]:
    """Yield the lists of statements of a node; the body of a lambda is an expression."""
    for name in ("body", "orelse", "finalbody", "handlers", "cases"):
        block = getattr(node, name, None)
        if isinstance(block, list):
            yield block


class _Remover(ast.NodeVisitor):
    """Removes statements, without a look into expressions; a block keeps at least `pass`."""

    def generic_visit(self, node: ast.AST) -> ast.AST:
        for block in _blocks(node):
            visited = [self.visit(child) for child in block]
            block[:] = [child for child in visited if child is not None]
        if getattr(node, "body", None) == []:
            node.body = [ast.Pass()]  # type: ignore[attr-defined]
        return node


class _Strip(_Remover):
    """Removes the parts that decide no number; the docstring of the module lists them."""

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.FunctionDef | None:
        if any(
            isinstance(decorator, ast.Name) and decorator.id == "plan_only"
            for decorator in node.decorator_list
        ):
            return None
        node.returns = None
        for argument in ast.walk(node.args):
            if isinstance(argument, ast.arg):
                argument.annotation = None
        stripped = self._without_docstring(node)
        _UnreadText(stripped).generic_visit(stripped)
        return stripped

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.ClassDef:
        return self._without_docstring(node)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AnnAssign | None:
        # A field's type matters when options are read, not when they are used.
        node.annotation = ast.Constant(None)
        call = node.value
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name):
            if call.func.id == "reporting":  # decides no number
                return None
            if call.func.id == "switch":
                # What paper and code do is a note; the study's own value is in the spec.
                call.keywords = [keyword for keyword in call.keywords if keyword.arg in _BOUNDS]
        return node

    def visit_Raise(self, node: ast.Raise) -> ast.Raise:
        # The type of the error stays: a caller may catch it.
        raised = node.exc.func if isinstance(node.exc, ast.Call) else node.exc
        return ast.copy_location(ast.Raise(exc=raised), node)

    def visit_Expr(self, node: ast.Expr) -> ast.Expr | None:
        return None if _is_report(node.value) else node

    def _without_docstring(self, node: _Documented) -> _Documented:
        if ast.get_docstring(node) is not None:
            node.body = node.body[1:] or [ast.Pass()]
        self.generic_visit(node)
        return node


_LEVELS = ("debug", "info", "warning", "error", "exception", "critical")
_REPORTS = {"warnings.warn"} | {f"{log}.{level}" for log in ("log", "logging") for level in _LEVELS}


def _is_report(node: ast.expr) -> bool:
    """Return whether an expression is a log call or a warning."""
    return (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and isinstance(node.func.value, ast.Name)
        and f"{node.func.value.id}.{node.func.attr}" in _REPORTS
    )


class _UnreadText(_Remover):
    """Removes assignments of text that only removed messages have read."""

    def __init__(self, function: ast.AST) -> None:
        self._read = set()
        for node in ast.walk(function):
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
                self._read.add(node.id)
            elif isinstance(node, ast.Global | ast.Nonlocal):  # names that other functions read
                self._read.update(node.names)

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.ClassDef:
        return node  # its attributes are read by way of the class

    def visit_Assign(self, node: ast.Assign) -> ast.Assign | None:
        target, value = node.targets[0], node.value
        text = isinstance(value, ast.JoinedStr) or (
            isinstance(value, ast.Constant) and isinstance(value.value, str)
        )
        text = text and not any(isinstance(part, ast.Call) for part in ast.walk(value))
        unread = isinstance(target, ast.Name) and target.id not in self._read
        return None if text and unread and len(node.targets) == 1 else node
