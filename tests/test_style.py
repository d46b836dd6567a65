"""Check the written style of the code: line length, names, docstrings (CONTRIBUTING.md).

Standard library only. Ruff checks the rest (complexity, number of arguments, layout).
"""

import ast
import functools
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
SOURCES = sorted((ROOT / "src" / "reslearn").rglob("*.py"))
CODE = [
    *SOURCES,
    *sorted((ROOT / "tests").rglob("*.py")),
    *sorted((ROOT / "benchmarks").rglob("*.py")),
    *sorted((ROOT / "examples").rglob("*.py")),
]
MAX_COLUMNS = 100
MAX_FUNCTION_LINES = 60
MAX_FORMAT_EXCEPTIONS = 5  # tables of numbers only
FORMAT_EXCEPTION = "# fmt: " + "skip"
# Participles, pronouns and adverbs: they do not say what a variable holds.
EMPTY_NAMES = frozenset(
    [
        "found",
        "one",
        "told",
        "said",
        "made",
        "own",
        "left",
        "kept",
        "place",
        "around",
        "given",
        "done",
        "held",
        "begun",
        "meant",
        "taken",
        "shown",
        "wanted",
        "looked",
        "asked",
        "tried",
        "ours",
        "mine",
        "theirs",
        "written",
        "seen",
        "known",
        "least",
        "most",
        "some",
        "other",
        "others",
        "rest",
        "whole",
        "again",
        "anew",
        "besides",
        "spent",
        "waited",
        "moved",
        "joined",
        "carried",
        "allowed",
        "passed",
        "stopped",
        "ended",
        "started",
    ]
)
MIN_DOCSTRING_WORDS = 5

Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


@functools.cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def public_definitions(tree: ast.Module) -> Iterator[Definition]:
    """Yield the public functions and classes of a module, and the public methods of the classes."""
    for node in tree.body:
        if isinstance(node, Definition) and not node.name.startswith("_"):
            yield node
            if isinstance(node, ast.ClassDef):
                methods = (child for child in node.body if isinstance(child, ast.FunctionDef))
                yield from (method for method in methods if not method.name.startswith("_"))


def assigned_names(tree: ast.Module) -> Iterator[tuple[str, int]]:
    """Yield every name that is assigned or is an argument, with its line."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id, node.lineno
        elif isinstance(node, ast.arg):
            yield node.arg, node.lineno


def test_lines_fit_and_functions_fit_on_a_screen() -> None:
    faults = []
    for path in CODE:
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            if len(line) > MAX_COLUMNS:
                faults.append(f"{name(path)}:{number} has {len(line)} columns")
        for node in ast.walk(tree_of(path)):
            if isinstance(node, ast.FunctionDef):
                length = (node.end_lineno or node.lineno) - node.lineno + 1
                if length > MAX_FUNCTION_LINES:
                    faults.append(f"{name(path)}:{node.lineno} {node.name} has {length} lines")
    assert not faults, "\n".join(faults)


def test_names_say_what_they_hold() -> None:
    faults = [
        f"{name(path)}:{line} {word}"
        for path in SOURCES
        for word, line in assigned_names(tree_of(path))
        if word in EMPTY_NAMES
    ]
    assert not faults, "\n".join(faults)


def test_public_docstrings_begin_with_a_sentence() -> None:
    """Functions and classes at module level have a docstring; methods may go without."""
    faults = []
    for path in SOURCES:
        tree = tree_of(path)
        for node in public_definitions(tree):
            docstring = ast.get_docstring(node)
            place = f"{name(path)}:{node.lineno} {node.name}"
            if docstring is None:
                if node in tree.body:
                    faults.append(f"{place} has no docstring")
                continue
            if not docstring.split("\n\n")[0].endswith((".", ":", "?")):
                faults.append(f"{place}: the summary is not a sentence")
            if len(docstring.split()) < MIN_DOCSTRING_WORDS:
                faults.append(f"{place}: {docstring}")
    assert not faults, "\n".join(faults)


def test_no_two_classes_share_a_name() -> None:
    places: dict[str, list[str]] = {}
    for path in SOURCES:
        for node in tree_of(path).body:
            if isinstance(node, ast.ClassDef):
                places.setdefault(node.name, []).append(name(path))
    shared = {word: files for word, files in places.items() if len(files) > 1}
    assert not shared


def test_the_formatter_decides_the_layout() -> None:
    exceptions = sum(path.read_text(encoding="utf-8").count(FORMAT_EXCEPTION) for path in CODE)
    assert exceptions <= MAX_FORMAT_EXCEPTIONS
