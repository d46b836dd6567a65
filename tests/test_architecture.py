"""Holds the code to the table of rooms in ARCHITECTURE.md. Standard library only.

Also checks that files are short, have a docstring, and have names that say what is in them.
"""

import ast
import functools
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "reslearn"
MODULES = sorted(PACKAGE.rglob("*.py"))
SAYS_NOTHING = {"utils", "util", "common", "helpers", "helper", "misc"}
MAX_LINES = 400
# The rooms study and paper receive an engine that runs recipes; they do not import train.
MAY_TRAIN = {"cli", "diagnose"}
# Every room may import these, at the top of a command file too: they import nothing heavy.
FOR_EVERY_ROOM = {"progress", "terminal"}


@dataclass(frozen=True)
class Room:
    """A row of the table. `torch` is "yes", "late" (imported inside functions only) or "no"."""

    name: str
    may_import: frozenset[str]
    torch: str


@dataclass(frozen=True)
class Import:
    """One imported module. `late` imports are inside functions; `for_types` ones are never run."""

    module: str
    line: int
    late: bool
    for_types: bool


@functools.cache
def rooms() -> dict[str, Room]:
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \|[^|]*\|([^|]*)\| *(\w+) *\|$", text, flags=re.MULTILINE)
    names = [name for name, _, _ in rows]
    table = {}
    for name, allowed, torch in rows:
        words = set(re.findall(r"\w+", allowed))
        may_import = set(names) - {name} if words == {"all"} else words
        assert may_import <= set(names), (
            f"ARCHITECTURE.md: {name} may import {may_import - set(names)}, which are not rooms"
        )
        assert torch in {"yes", "late", "no"}, (
            f"ARCHITECTURE.md: {name}: torch is {torch!r}; allowed are yes, late, no"
        )
        table[name] = Room(name, frozenset(may_import), torch)
    return table


@functools.cache
def imports_of(path: Path) -> tuple[Import, ...]:
    return tuple(
        _walk(ast.parse(path.read_text(encoding="utf-8")), path, late=False, for_types=False)
    )


def _walk(node: ast.AST, path: Path, *, late: bool, for_types: bool) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            yield from (Import(alias.name, child.lineno, late, for_types) for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            assert child.level == 0, (
                f"{path}:{child.lineno}: use an absolute import, which names the room"
            )
            # `from reslearn import models` imports a room too.
            named = (
                [f"reslearn.{alias.name}" for alias in child.names]
                if child.module == "reslearn"
                else [child.module or ""]
            )
            yield from (Import(module, child.lineno, late, for_types) for module in named)
        else:
            in_function = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            type_checking = isinstance(child, ast.If) and ast.unparse(child.test) in {
                "TYPE_CHECKING",
                "typing.TYPE_CHECKING",
            }
            yield from _walk(
                child, path, late=late or in_function, for_types=for_types or type_checking
            )


def room_of(path: Path) -> str | None:
    """Return the room of a file, or None for reslearn/__init__.py and __main__.py."""
    parts = path.relative_to(PACKAGE).parts
    return parts[0].removesuffix(".py") if len(parts) > 1 or not parts[0].startswith("__") else None


def imported_room(imported: Import) -> str | None:
    package, _, rest = imported.module.partition(".")
    room = rest.split(".")[0]
    return room if package == "reslearn" and room in rooms() else None


def where(path: Path, imported: Import) -> str:
    return f"{path.relative_to(ROOT)}:{imported.line} imports {imported.module}"


def test_the_table_was_found() -> None:
    assert {"models", "data", "runs", "train", "cli"} <= set(rooms())
    assert rooms()["recipes"] == Room("recipes", frozenset({"switches"}), "no")
    assert "models" not in rooms()["data"].may_import
    assert "data" not in rooms()["models"].may_import


def test_the_table_has_no_cycle() -> None:
    graph = {room.name: room.may_import for room in rooms().values()}
    order = TopologicalSorter(graph).static_order()  # raises CycleError with the names
    assert set(order) == set(graph)


def test_every_folder_is_a_room() -> None:
    folders = {room_of(path) for path in MODULES} - {None}
    assert folders <= set(rooms()), f"not in ARCHITECTURE.md: {folders - set(rooms())}"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_keep_to_the_table(path: Path) -> None:
    name = room_of(path)
    wrong = []
    for imported in imports_of(path):
        other = imported_room(imported)
        if imported.for_types and name is None:
            continue
        if name is None and other not in {None, "cli"}:
            wrong.append(where(path, imported) + ": reslearn/__init__.py may import cli only")
        elif (
            name is not None
            and other not in {None, name} | FOR_EVERY_ROOM | rooms()[name].may_import
        ):
            wrong.append(
                f"{where(path, imported)}: {name} may import "
                f"{', '.join(sorted(rooms()[name].may_import)) or 'no other room'}"
            )
        elif other == "train" and name not in MAY_TRAIN | {"train"}:
            wrong.append(where(path, imported) + ": only cli and diagnose may import train")
    assert not wrong, "\n".join(wrong)


def brings_torch(imported: Import) -> bool:
    """Return whether an import loads torch, directly or through a room."""
    other = imported_room(imported)
    if other is not None:
        return rooms()[other].torch == "yes"
    return imported.module.split(".")[0] == "torch" or imported.module == "safetensors.torch"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_torch_only_where_the_table_says(path: Path) -> None:
    name = room_of(path)
    torch = rooms()[name].torch if name else "no"
    wrong = [
        where(path, imported)
        for imported in imports_of(path)
        if brings_torch(imported)
        and not imported.for_types
        and (torch == "no" or (torch == "late" and not imported.late))
    ]
    assert not wrong, f"torch in {name}: {torch}\n" + "\n".join(wrong)


def test_command_files_import_only_inside_functions() -> None:
    """Keep `reslearn --help` fast. tests/cli/test_commands.py checks the same at run time."""
    wrong = [
        where(path, imported)
        for path in MODULES
        if room_of(path) == "cli"
        for imported in imports_of(path)
        if not (imported.late or imported.for_types)
        and imported_room(imported) not in {None, "cli"} | FOR_EVERY_ROOM
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_house_rules(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert path.stem not in SAYS_NOTHING, "the file name must say what is in the file"
    assert text.count("\n") <= MAX_LINES, f"{text.count(chr(10))} lines; the limit is {MAX_LINES}"
    assert ast.get_docstring(ast.parse(text)), (
        "a module begins with a docstring: its purpose and its place in the paper"
    )


def test_names_of_test_files_are_unique() -> None:
    names = [path.name for path in (ROOT / "tests").rglob("test_*.py")]
    assert sorted(names) == sorted(set(names))


def test_rooms_without_torch_work_where_there_is_none() -> None:
    """Run the imports, since a library may load torch too. Reports are made without torch."""
    free = [room.name for room in rooms().values() if room.torch != "yes"]
    code = "import sys; sys.modules['torch'] = None\n" + "\n".join(
        f"import reslearn.{name}" for name in free
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert result.returncode == 0, result.stderr


def test_the_top_level_api_is_lazy() -> None:
    """`import reslearn` must not load torch; every public name must load when it is used."""
    code = (
        "import sys, reslearn; assert 'torch' not in sys.modules;"
        "assert all(callable(getattr(reslearn, name)) for name in reslearn.__all__);"
        "assert 'torch' in sys.modules and set(reslearn.__all__) <= set(dir(reslearn))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert result.returncode == 0, result.stderr
