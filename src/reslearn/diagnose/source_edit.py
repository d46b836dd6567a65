"""The least edit of a Python file that gives a network shortcuts: what a function returns is put through `add_shortcuts`.

Texts are put in at places that Python's own parser tells; nothing else of the file is touched, neither its lines nor its comments.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

_Insertion = tuple[int, int, str]


def with_shortcuts(source: str, name: str, example: str) -> str | None:
    """A file in which every value that `name` returns goes through `add_shortcuts`; None where that is not a function that stands there once.

    example: Python for a batch that the network takes, as in "torch.zeros(2, 3, 32, 32)".
    """
    tree = ast.parse(source)
    found = [statement for statement in tree.body if name in _names(statement)]
    values = list(_returned(found[0])) if len(found) == 1 else []
    if not values:
        return None
    ending = "\r\n" if "\r\n" in source else "\n"
    insertions: list[_Insertion] = []
    for value in values:
        assert value.end_lineno is not None and value.end_col_offset is not None
        insertions.append((value.lineno, value.col_offset, "add_shortcuts("))
        insertions.append((value.end_lineno, value.end_col_offset, f", {example}).network"))
    missing = [
        line
        for line in ("import torch", "from reslearn.models import add_shortcuts")
        if not _imports(tree, line)
    ]
    if missing:
        insertions.append(
            (_after_imports(tree, found[0].lineno), 0, "".join(line + ending for line in missing))
        )
    return _with(source, insertions)


def _names(statement: ast.stmt) -> set[str]:
    """Those that a statement gives a value to."""
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return {statement.name}
    return {
        node.id
        for node in ast.walk(statement)
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
    }


def _returned(statement: ast.stmt) -> Iterator[ast.expr]:
    """What a function returns, in its own body and not in those within it; the body of a lambda that is given a name."""
    if isinstance(statement, ast.Assign) and isinstance(statement.value, ast.Lambda):
        yield statement.value.body
    if not isinstance(statement, ast.FunctionDef):
        return
    waiting: list[ast.AST] = list(statement.body)
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Return) and node.value is not None and not _is_none(node.value):
            yield node.value
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Lambda):
            waiting += ast.iter_child_nodes(node)


def _is_none(value: ast.expr) -> bool:
    """No network: a build that gives up by `return None` still does."""
    return isinstance(value, ast.Constant) and value.value is None


def _imports(tree: ast.Module, line: str) -> bool:
    """Whether an import like `line` stands at the top level."""
    wanted = ast.dump(ast.parse(line).body[0])
    return any(
        ast.dump(type(one)(**{**vars(one), "names": [alias]})) == wanted
        for one in tree.body
        if isinstance(one, ast.Import | ast.ImportFrom)
        for alias in one.names
    )


def _after_imports(tree: ast.Module, before: int) -> int:
    """The line, counted from 1, behind the last import above line `before`; behind the docstring where there is none."""
    docstring = 1 if ast.get_docstring(tree) is not None else 0
    above = [
        one
        for one in tree.body
        if isinstance(one, ast.Import | ast.ImportFrom) and one.lineno < before
    ]
    last = above[-1] if above else tree.body[0] if docstring else None
    return 1 if last is None else (last.end_lineno or last.lineno) + 1


def _with(source: str, insertions: list[_Insertion]) -> str:
    """Texts put in at (line from 1, byte in the line), as the parser counts: bytes of UTF-8, lines that end in \\n, \\r or both."""
    lines = source.encode().splitlines(keepends=True)
    for line, column, text in sorted(insertions, key=lambda one: one[:2], reverse=True):
        old = lines[line - 1]
        lines[line - 1] = old[:column] + text.encode() + old[column:]
    return b"".join(lines).decode()
