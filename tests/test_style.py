"""Check the written style of the code: line length, names, docstrings (CONTRIBUTING.md).

Standard library only. Ruff checks the rest (complexity, number of arguments, layout).
"""

import ast
import functools
from collections.abc import Iterator
from pathlib import Path

import pytest

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


@pytest.mark.parametrize("path", CODE, ids=name)
def test_lines_fit_and_functions_fit_on_a_screen(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    long = [i for i, line in enumerate(text.splitlines(), 1) if len(line) > MAX_COLUMNS]
    assert not long, f"lines over {MAX_COLUMNS} columns: {long}"
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.FunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            assert length <= MAX_FUNCTION_LINES, f"{node.name} has {length} lines"


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_names_say_what_they_hold(path: Path) -> None:
    names = assigned_names(tree_of(path))
    empty = [f"line {line}: {word}" for word, line in names if word in EMPTY_NAMES]
    assert not empty, "; ".join(empty)


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_public_docstrings_begin_with_a_sentence(path: Path) -> None:
    """Functions and classes at module level have a docstring; methods may go without."""
    tree = tree_of(path)
    for node in public_definitions(tree):
        docstring = ast.get_docstring(node)
        if docstring is None:
            assert node not in tree.body, f"{node.name} has no docstring"
            continue
        summary = docstring.split("\n\n")[0]
        assert summary.endswith((".", ":", "?")), f"{node.name}: the summary is not a sentence"
        assert len(docstring.split()) >= MIN_DOCSTRING_WORDS, f"{node.name}: {docstring}"


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
