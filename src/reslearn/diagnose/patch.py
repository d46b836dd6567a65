"""Patches: the change of the user's code that repairs the network or its data.

There are two kinds of patch:

- A unified diff, if the function is a function or a lambda in a file. Its return value is passed
  through the code of a repair: `add_shortcuts`, for example.
- A new file with a function that calls the user's function. Classes, decorated or composed
  callables and installed modules need this kind.

Each patch is run before it is offered. It must give the network of the variant with the same
change: the same state_dict and the same outputs. Shortcuts keep all parameters under their names.
"""

from __future__ import annotations

import difflib
import importlib.util
import inspect
import os
import shlex
import sys
import sysconfig
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import torch
from torch import nn

from reslearn.diagnose.problem import Problem
from reslearn.diagnose.repairs import Repair, combined
from reslearn.diagnose.source_edit import with_parts, with_repair
from reslearn.diagnose.user_code import Build, DiagnosisError, bind_depth
from reslearn.diagnose.user_data import load_data
from reslearn.runs import write_atomically

MARK = "Made by reslearn diagnose --patch"
"""Stands in the first line of each patch. A file with it may be overwritten by the next patch."""
_SEED = 0


@dataclass(frozen=True, kw_only=True)
class _Source:
    """Where a build is defined.

    Attributes:
        build: FILE.py:BUILD or MODULE:BUILD.
        file: The file to edit. None if the module is installed.
        root: The folder that Python must search to import the module. None if it is installed.
    """

    build: str
    name: str
    module: str
    file: Path | None
    root: Path | None


@dataclass(frozen=True, kw_only=True, eq=False)
class Patch:
    """A patch that is not written yet.

    Attributes:
        kind: "diff" of the user's file, or a new "file".
        text: The content of the patch.
        use: The command that applies a diff, or the FILE.py:BUILD of a new file.
        shortcuts_around: Names of the blocks that get a shortcut.
        repair: The change: a key of REPAIRS.
    """

    kind: Literal["diff", "file"]
    path: Path
    text: str
    use: str
    shortcuts_around: tuple[str, ...]
    repair: str = "shortcuts"


def make_patch(
    location: str | Callable[..., nn.Module],
    problem: Problem,
    *,
    depth: int | None = None,
    path: Path | None = None,
    folder: Path = Path(),
    repair: str | Sequence[str] = "shortcuts",
) -> Patch:
    """Make the patch of a function; `write_patch` writes it.

    Args:
        location: FILE.py:BUILD or MODULE:BUILD, as for `load_function`, or a function. For
            "standardized", it is the function that returns the data.
        problem: The problem that was made of this build.
        path: Where to write it. A name that ends in .py asks for a new file, any other for a diff.
        folder: Used if `path` is None: a diff if possible, under a standard name.
        repair: The change: "shortcuts", "initialized", "bare", "standardized" or "registered".
            Several changes of the build are applied in order.

    Raises:
        DiagnosisError: If no file defines the function, if no diff is possible, or if `path` is
            taken or cannot be written.
        SurgeryError: If no block can be given a shortcut, or if the change has no code.
    """
    change = combined([repair] if isinstance(repair, str) else repair, problem)
    source = _find_source(location if isinstance(location, str) else _location_of(location))
    needs_file = path is not None and path.suffix == ".py"
    if path is not None:
        _check_path(path)
    if source.file is not None and not needs_file:
        for edited in _edits(source, source.file, change):
            function = _run(edited, source, source.file, depth)
            if _gives_the_same(problem, function, change):
                target = path or folder / f"{change.name}.patch"
                _check_path(target)
                return _diff(source, source.file, edited, target, change)
    if path is not None and not needs_file:
        raise DiagnosisError(
            f"no diff can be made for {source.build}, because an edit of its return value is not "
            "enough: give the name of a new file that ends in .py"
        )
    suffix = "residual" if change.name == "shortcuts" else change.name
    target = path or folder / f"{source.module.rpartition('.')[2]}_{suffix}.py"
    _check_path(target)
    text = _wrapper(source, target, change)
    if not _gives_the_same(problem, _run(text, source, target, depth), change):
        raise DiagnosisError(
            f"no patch: another file cannot import {source.build}, or gets another network from it"
        )
    return Patch(
        kind="file",
        path=target,
        text=text,
        use=f"{target}:{source.name}",
        shortcuts_around=change.shortcuts_around,
        repair=change.name,
    )


def write_patch(patch: Patch) -> Path:
    """Write a patch to its path.

    Raises:
        DiagnosisError: If the path cannot be written, or was taken in the meantime.
    """
    _check_path(patch.path)
    try:
        patch.path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(patch.path, lambda file: file.write(patch.text.encode()))
    except OSError as error:
        raise _unwritable(patch.path, error) from None
    return patch.path


def _check_path(path: Path) -> None:
    """Refuse a path that cannot be written, or holds a file that is not a patch."""
    try:
        if path.exists() and not path.is_file():
            raise DiagnosisError(f"{path} is not a file: give the name of a file")
        if path.exists():
            with path.open(encoding="utf-8", errors="replace") as file:
                if MARK not in file.readline():
                    raise DiagnosisError(
                        f"{path} exists already and is not a patch: give another name"
                    )
    except OSError as error:
        raise _unwritable(path, error) from None
    # The folder is created with the patch, so that a refused diagnosis leaves none.
    folder = next(parent for parent in path.absolute().parents if parent.exists())
    if not folder.is_dir():
        raise DiagnosisError(f"{path} cannot be written: {folder} is a file")
    if not os.access(folder, os.W_OK):
        raise DiagnosisError(f"{path} cannot be written: no permission to write in {folder}")


def _unwritable(path: Path, error: OSError) -> DiagnosisError:
    return DiagnosisError(f"{path} cannot be written: {error.strerror or error}")


def _location_of(build: Callable[..., nn.Module]) -> str:
    """Return FILE.py:BUILD or MODULE:BUILD of a function or class at the top level of a file."""
    name, module = getattr(build, "__qualname__", ""), getattr(build, "__module__", "")
    try:
        file = inspect.getsourcefile(build)
    except TypeError:  # a builtin or another callable
        file = None
    if not name.isidentifier() or file is None or not Path(file).is_file():
        raise DiagnosisError(
            f"no patch: no file defines {name or type(build).__name__} at its top level; move it "
            "to a FILE.py"
        )
    if "." in module or _is_installed(Path(file)):
        return f"{module}:{name}"
    return f"{file}:{name}"


def _find_source(location: str) -> _Source:
    module, _, name = location.rpartition(":")
    if module.endswith(".py"):
        file = Path(module)
        root = file.resolve().parent
        return _Source(build=location, name=name, module=file.stem, file=file, root=root)
    try:
        spec = importlib.util.find_spec(module)
    except ImportError:  # a parent package is missing
        spec = None
    origin = spec.origin if spec is not None else None
    if origin is None or not origin.endswith(".py") or _is_installed(Path(origin)):
        return _Source(build=location, name=name, module=module, file=None, root=None)
    file = Path(origin)
    levels = module.count(".") + (file.name == "__init__.py")
    root = file.resolve().parents[levels]
    return _Source(build=location, name=name, module=module, file=file, root=root)


def _is_installed(file: Path) -> bool:
    """Return whether pip or Python installed a file, so that it must not be edited."""
    folders = [Path(sysconfig.get_path(kind)) for kind in ("purelib", "platlib", "stdlib")]
    return any(file.resolve().is_relative_to(folder.resolve()) for folder in folders)


def _edits(source: _Source, file: Path, change: Repair) -> list[str]:
    """Return the changed file, the best change first; empty if only a new file is possible."""
    try:
        text = file.read_bytes().decode()
        edits = [with_parts(text, source.name, change), with_repair(text, source.name, change)]
    except (UnicodeDecodeError, SyntaxError):
        return []
    return [edited for edited in edits if edited is not None]


def _diff(source: _Source, file: Path, edited: str, target: Path, change: Repair) -> Patch:
    """Return a unified diff, to be applied in this folder, or in the folder of the file.

    The latter is used if the file is not below this folder.
    """
    here = Path.cwd()
    is_below = file.resolve().is_relative_to(here)
    name = file.resolve().relative_to(here).as_posix() if is_below else file.name
    folder = [] if is_below else ["-C", str(file.resolve().parent)]
    use = shlex.join(["git", *folder, "apply", str(target if is_below else target.resolve())])
    tab = "\t" if " " in name else ""  # marks the end of a name that has spaces
    old_lines = file.read_bytes().splitlines(keepends=True)
    new_lines = edited.encode().splitlines(keepends=True)
    old_name, new_name = f"a/{name}{tab}".encode(), f"b/{name}{tab}".encode()
    lines = difflib.diff_bytes(difflib.unified_diff, old_lines, new_lines, old_name, new_name)
    text = f"# {MARK}: {source.build} {change.summary}.\n# Apply: {use}\n".encode()
    for line in lines:
        text += line if line.endswith(b"\n") else line + b"\n\\ No newline at end of file\n"
    return Patch(
        kind="diff",
        path=target,
        text=text.decode(),
        use=use,
        shortcuts_around=change.shortcuts_around,
        repair=change.name,
    )


def _wrapper(source: _Source, target: Path, change: Repair) -> str:
    """Return a new file that imports the user's function and changes what it returns."""
    names = [*source.module.split("."), source.name]
    if not all(name.isidentifier() for name in names):
        raise DiagnosisError(
            f"no patch: no other file can import {source.build} by this name; rename it"
        )
    search = imports = ""
    if source.root is not None:
        path = Path(os.path.relpath(source.root, target.resolve().parent)).as_posix()
        imports = "import sys\nfrom pathlib import Path\n"
        search = f"sys.path.insert(0, str(Path(__file__).resolve().parent / {path!r}))\n"
    further = "\n".join(change.imports)
    helper = f"\n\n{change.helper}\n" if change.helper else ""
    return f'''"""{MARK}: {source.build} {change.summary}."""

import functools
{imports}
{further}

{search}from {source.module} import {source.name} as original
{helper}

@functools.wraps(original, updated=())
def {source.name}(*arguments, **named):
    return {change.before}original(*arguments, **named){change.after}
'''


def _run(text: str, source: _Source, file: Path, depth: int | None) -> Build | None:
    """Run a text as `file` and return the build that it defines; None if it fails."""
    module = ModuleType(source.module)
    module.__file__ = str(file)
    module.__package__ = source.module.rpartition(".")[0]
    search_path = list(sys.path)
    try:
        exec(compile(text, str(file), "exec"), vars(module))
        return bind_depth(getattr(module, source.name), depth)
    except Exception:  # the user's file may raise anything
        return None
    finally:
        sys.path[:] = search_path


def _gives_the_same(problem: Problem, function: Build | None, change: Repair) -> bool:
    """Return whether a changed function gives what the repair promises."""
    if function is None:
        return False
    if change.expected is None:
        return _gives_standardized_inputs(function)
    return _builds_the_same(problem, function, change.expected(_SEED).eval())


def _gives_standardized_inputs(data: Build) -> bool:
    try:
        inputs, _ = load_data(data)
    except DiagnosisError:
        return False
    return abs(float(inputs.mean())) < 0.01 and float(inputs.std()) < 1.01


@torch.no_grad()
def _builds_the_same(problem: Problem, build: Build, expected: nn.Module) -> bool:
    """Return whether `build` gives the expected network: keys, weights and outputs."""
    try:
        net = replace(problem, build=build).net(_SEED).eval()
        expected_state: dict[str, Any] = expected.state_dict()
        state: dict[str, Any] = net.state_dict()
        return (
            sorted(state) == sorted(expected_state)
            and all(_equal(state[key], expected_state[key]) for key in state)
            and _equal(net(problem.example), expected(problem.example))
        )
    except Exception:  # the user's network may raise anything
        return False


def _equal(first: Any, second: Any) -> bool:
    if not (isinstance(first, torch.Tensor) and isinstance(second, torch.Tensor)):
        return bool(first == second)
    if torch.equal(first, second):
        return True
    if first.shape != second.shape or not first.is_floating_point():
        return False
    return torch.allclose(first, second, rtol=0, atol=0, equal_nan=True)
