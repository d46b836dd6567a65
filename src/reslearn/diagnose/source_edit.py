"""Edit a Python file so that a function returns its network with shortcuts.

Return values are passed through `add_shortcuts`. Text is inserted at positions that Python's parser
reports, so all other lines and comments stay unchanged.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

_Insertion = tuple[int, int, str]
_Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
_Import = ast.Import | ast.ImportFrom


def with_shortcuts(source: str, name: str, example: str) -> str | None:
    """Return the file with every return value of `name` passed through `add_shortcuts`.

    Args:
        source: The text of the file.
        example: Python code for a batch that the network takes, as "torch.zeros(2, 3, 32, 32)".

    Returns:
        None if the file does not define `name` exactly once, as a function or a lambda.
    """
    tree = ast.parse(source)
    definitions = [statement for statement in tree.body if name in _defined_names(statement)]
    values = list(_returned_values(definitions[0])) if len(definitions) == 1 else []
    if not values:
        return None
    newline = "\r\n" if "\r\n" in source else "\n"
    insertions: list[_Insertion] = []
    for value in values:
        assert value.end_lineno is not None and value.end_col_offset is not None
        insertions.append((value.lineno, value.col_offset, "add_shortcuts("))
        insertions.append((value.end_lineno, value.end_col_offset, f", {example}).network"))
    imports = ""
    for line in ("import torch", "from reslearn.models import add_shortcuts"):
        if not _has_import(tree, line):
            imports += line + newline
    if imports:
        insertions.append((_line_after_imports(tree, definitions[0].lineno), 0, imports))
    return _insert(source, insertions)


def _defined_names(statement: ast.stmt) -> set[str]:
    """Return the names that a statement defines or assigns."""
    if isinstance(statement, _Definition):
        return {statement.name}
    names = set()
    for node in ast.walk(statement):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
    return names


def _returned_values(statement: ast.stmt) -> Iterator[ast.expr]:
    """Yield the return values of a function, but not of functions inside it.

    For a lambda that is assigned to a name, yield its body.
    """
    if isinstance(statement, ast.Assign) and isinstance(statement.value, ast.Lambda):
        yield statement.value.body
    if not isinstance(statement, ast.FunctionDef):
        return
    pending: list[ast.AST] = list(statement.body)
    while pending:
        node = pending.pop()
        if isinstance(node, ast.Return) and node.value is not None and not _is_none(node.value):
            yield node.value
        if not isinstance(node, _Definition | ast.Lambda):
            pending += ast.iter_child_nodes(node)


def _is_none(value: ast.expr) -> bool:
    """Return whether a value is the constant None, which a build without a network may return."""
    return isinstance(value, ast.Constant) and value.value is None


def _has_import(tree: ast.Module, line: str) -> bool:
    """Return whether the top level has an import that contains `line`."""
    expected = ast.dump(ast.parse(line).body[0])
    for statement in tree.body:
        if not isinstance(statement, _Import):
            continue
        for alias in statement.names:
            single = type(statement)(**{**vars(statement), "names": [alias]})
            if ast.dump(single) == expected:
                return True
    return False


def _line_after_imports(tree: ast.Module, before: int) -> int:
    """Return the line, counted from 1, after the last import above line `before`.

    Without such an import: the line after the docstring, or line 1.
    """
    last: ast.stmt | None = tree.body[0] if ast.get_docstring(tree) is not None else None
    for statement in tree.body:
        if isinstance(statement, _Import) and statement.lineno < before:
            last = statement
    return 1 if last is None else (last.end_lineno or last.lineno) + 1


def _insert(source: str, insertions: list[_Insertion]) -> str:
    r"""Insert texts at (line from 1, byte in the line).

    These are the positions of the parser: bytes of UTF-8, and lines that end in \n, \r or both.
    """
    lines = source.encode().splitlines(keepends=True)
    for line, column, text in sorted(insertions, key=lambda item: item[:2], reverse=True):
        old = lines[line - 1]
        lines[line - 1] = old[:column] + text.encode() + old[column:]
    return b"".join(lines).decode()
