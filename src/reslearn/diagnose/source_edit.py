"""Edit a Python file so that values pass through another function.

These are what a function returns, or what a class assigns to an attribute.

Text is inserted at positions that Python's parser reports, so all other lines and comments stay
unchanged.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence

from reslearn.diagnose.registration import Registration
from reslearn.diagnose.repairs import Repair

_Insertion = tuple[int, int, str]
_Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
_Import = ast.Import | ast.ImportFrom


def with_repair(source: str, name: str, repair: Repair) -> str | None:
    """Return the file with every return value of `name` passed through the code of a repair.

    Args:
        source: The text of the file.

    Returns:
        None if the file does not define `name` exactly once, as a function or a lambda.
    """
    tree = ast.parse(source)
    definitions = [statement for statement in tree.body if name in _defined_names(statement)]
    values = list(_returned_values(definitions[0])) if len(definitions) == 1 else []
    if not values:
        return None
    insertions: list[_Insertion] = []
    for value in values:
        insertions += _around(source, value, repair.before, repair.after)
    added = _missing_imports(tree, repair.imports)
    line_number = _line_after_imports(tree, definitions[0].lineno)
    if repair.helper:
        following = source.splitlines()[line_number - 1 :]
        is_blank = not following or not following[0].strip()
        added += f"\n\n{repair.helper}\n" + "\n\n" * (not is_blank)
    return _insert(source, insertions, added, line_number)


def with_parts(source: str, name: str, repair: Repair) -> str | None:
    """Return the file with the repairs that `repair` combines, one after another.

    Attributes are registered where a class assigns them, and not where the build returns.

    Returns:
        None if one of the edits is not possible.
    """
    text: str | None = source
    for part in repair.parts or (repair,):
        if text is None:
            return None
        if part.registrations:
            text = with_registrations(text, part.registrations)
        else:
            text = with_repair(text, name, part)
    return text


def with_registrations(source: str, changes: Sequence[Registration]) -> str | None:
    """Return the file with every value that a class assigns to an attribute passed through nn.

    Args:
        source: The text of the file.

    Returns:
        None if the file does not define one of the classes, or if a class does not assign the
        attribute.
    """
    tree = ast.parse(source)
    classes = {node.name: node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)}
    insertions: dict[_Insertion, None] = {}  # several modules may have one class
    for change in changes:
        definition = classes.get(change.owner)
        values = [] if definition is None else _assigned_values(definition, change.attribute)
        if not values:
            return None
        for value in values:
            insertions |= dict.fromkeys(_around(source, value, f"nn.{change.wrapper}(", ")"))
    first_line = min(definition.lineno for definition in classes.values())
    added = _missing_imports(tree, ("from torch import nn",))
    return _insert(source, list(insertions), added, _line_after_imports(tree, first_line))


def _assigned_values(definition: ast.ClassDef, attribute: str) -> list[ast.expr]:
    """Return what a class assigns to `self.ATTRIBUTE`."""
    values = []
    for node in ast.walk(definition):
        targets = node.targets if isinstance(node, ast.Assign) else []
        if isinstance(node, ast.AnnAssign):
            targets = [node.target]
        names = [target.attr for target in targets if isinstance(target, ast.Attribute)]
        if attribute in names and node.value is not None:  # type: ignore[attr-defined]
            values.append(node.value)  # type: ignore[attr-defined]
    return values


def _around(source: str, value: ast.expr, before: str, after: str) -> list[_Insertion]:
    assert value.end_lineno is not None and value.end_col_offset is not None
    if isinstance(value, ast.Tuple) and not _has_parentheses(source, value):
        before, after = f"{before}(", f"){after}"  # else each element would be an argument
    return [
        (value.lineno, value.col_offset, before),
        (value.end_lineno, value.end_col_offset, after),
    ]


def _has_parentheses(source: str, value: ast.Tuple) -> bool:
    """Return whether a tuple stands in parentheses of its own, unlike `(a), (b)`."""
    text = ast.get_source_segment(source, value) or ""
    if not (text.startswith("(") and text.endswith(")")):
        return False
    try:
        call = ast.parse(f"f({text[1:-1]}\n)", mode="eval").body
    except SyntaxError:
        return False
    if not isinstance(call, ast.Call):
        return False
    return [ast.dump(part) for part in call.args] == [ast.dump(part) for part in value.elts]


def _missing_imports(tree: ast.Module, lines: Sequence[str]) -> str:
    """Return the lines of imports that a file lacks."""
    return "".join(f"{line}\n" for line in lines if not _has_import(tree, line))


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


def _insert(source: str, insertions: list[_Insertion], added: str, line_number: int) -> str:
    r"""Insert texts at (line from 1, byte in the line), and lines before a line.

    These are the positions of the parser: bytes of UTF-8, and lines that end in \n, \r or both.
    """
    if added:
        newline = "\r\n" if "\r\n" in source else "\n"
        insertions = [*insertions, (line_number, 0, added.replace("\n", newline))]
    lines = source.encode().splitlines(keepends=True)
    for line, column, text in sorted(insertions, key=lambda item: item[:2], reverse=True):
        old = lines[line - 1]
        lines[line - 1] = old[:column] + text.encode() + old[column:]
    return b"".join(lines).decode()
