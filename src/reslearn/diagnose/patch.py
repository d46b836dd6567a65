"""What to change in a stranger's code so that it builds its network with shortcuts (Eq. 1), all parameters keeping their names.

Where the build is a function or a lambda written in a FILE.py, the smallest edit of that file, as a unified diff: what it returns goes
through `add_shortcuts`. A class, a decorated or a composed callable, one of an installed module: a new file with a build around it. Either
is run before it is offered, and must give the network of the condition "shortcuts": the same state_dict, the same outputs.
"""

from __future__ import annotations

import difflib
import importlib.util
import inspect
import os
import shlex
import sys
import sysconfig
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import torch
from torch import nn

from reslearn.diagnose.problem import DiagnosisError, Problem, bound
from reslearn.diagnose.source_edit import with_shortcuts
from reslearn.models import add_shortcuts
from reslearn.runs import write_atomically

MARK = "Made by reslearn diagnose --patch"
"""In the first line of whatever is written: a file with it may be overwritten by the next patch."""
_SEED = 0


@dataclass(frozen=True, kw_only=True)
class _Source:
    """Where a build comes from. `file`: one that may be edited, None for what is installed; `root`: what must be searched to import it."""

    place: str
    name: str
    module: str
    file: Path | None
    root: Path | None


@dataclass(frozen=True, kw_only=True, eq=False)
class Patch:
    """Not yet written. `kind`: "diff" of the user's file, or "file", a new one; `text`: all of it; `use`: the command, or the build."""

    kind: Literal["diff", "file"]
    path: Path
    text: str
    use: str
    around: tuple[str, ...]


def make_patch(
    place: str | Callable[..., nn.Module],
    problem: Problem,
    *,
    depth: int | None = None,
    path: Path | None = None,
    folder: Path = Path(),
) -> Patch:
    """The patch of `place`: FILE.py:BUILD or MODULE:BUILD as given to `load_build`, or a function; `problem` is made of it.

    path: where it is to be written: a name that ends in .py asks for a new file, any other for a diff; None: into `folder`, under a name
    of its own, a diff where one is possible. `write_patch` writes it. Raises DiagnosisError in one line for a build that no file has, for
    a diff that is not possible, for a path that is taken or cannot be written; SurgeryError where no block can be given a shortcut.
    """
    around = add_shortcuts(problem.net(_SEED), problem.example).done
    source = _source(place if isinstance(place, str) else _place_of(place))
    wants_file = path is not None and path.suffix == ".py"
    if path is not None:
        _refuse(path)
    if source.file is not None and not wants_file:
        edited = _edited(source, source.file, problem)
        if edited is not None and _builds_the_same(
            problem, _built(edited, source, source.file, depth)
        ):
            target = path or folder / "shortcuts.patch"
            _refuse(target)
            return _diff(source, source.file, edited, target, around)
    if path is not None and not wants_file:
        why = "what it returns cannot be changed alone"
        raise DiagnosisError(
            f"no diff for {source.place} can be made, {why}: name a new file that ends in .py"
        )
    target = path or folder / f"{source.module.rpartition('.')[2]}_residual.py"
    _refuse(target)
    text = _wrapped(source, target, _example(problem))
    if not _builds_the_same(problem, _built(text, source, target, depth)):
        raise DiagnosisError(
            f"no patch: {source.place} cannot be imported by another file, or gives another network when it is"
        )
    return Patch(kind="file", path=target, text=text, use=f"{target}:{source.name}", around=around)


def write_patch(patch: Patch) -> Path:
    """Write it to its path. DiagnosisError where that cannot be written, or something has come to be there meanwhile."""
    _refuse(patch.path)
    try:
        write_atomically(patch.path, lambda file: file.write(patch.text.encode()))
    except OSError as error:
        raise DiagnosisError(f"{patch.path} cannot be written: {error.strerror or error}") from None
    return patch.path


def _refuse(path: Path) -> None:
    """Before anything is trained: a place that cannot be written to, or holds what is not ours."""
    try:
        if path.exists() and not path.is_file():
            raise DiagnosisError(f"{path}: a file is needed, and this is none")
        if path.exists():
            with path.open(encoding="utf-8", errors="replace") as file:
                if MARK not in file.readline():
                    raise DiagnosisError(
                        f"{path} is there already, and no patch of ours: name another file"
                    )
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DiagnosisError(f"{path} cannot be written: {error.strerror or error}") from None
    if not os.access(path.parent, os.W_OK):
        raise DiagnosisError(f"{path} cannot be written: no permission to write in {path.parent}")


def _place_of(build: Callable[..., nn.Module]) -> str:
    """FILE.py:BUILD or MODULE:BUILD of a function or class that has a name at the top of a file."""
    name, module = getattr(build, "__qualname__", ""), getattr(build, "__module__", "")
    try:
        file = inspect.getsourcefile(build)
    except TypeError:  # a builtin, or something else that is called
        file = None
    if not name.isidentifier() or file is None or not Path(file).is_file():
        raise DiagnosisError(
            f"no patch: {name or type(build).__name__} lives in no file: a function at the top of a FILE.py is needed"
        )
    return f"{module}:{name}" if "." in module or _is_installed(Path(file)) else f"{file}:{name}"


def _source(place: str) -> _Source:
    module, _, name = place.rpartition(":")
    if module.endswith(".py"):
        file = Path(module)
        return _Source(
            place=place, name=name, module=file.stem, file=file, root=file.resolve().parent
        )
    try:
        spec = importlib.util.find_spec(module)
    except ImportError:  # of a package it is said to be in
        spec = None
    if (
        spec is None
        or spec.origin is None
        or not spec.origin.endswith(".py")
        or _is_installed(Path(spec.origin))
    ):
        return _Source(place=place, name=name, module=module, file=None, root=None)
    file = Path(spec.origin)
    below = module.count(".") + (file.name == "__init__.py")
    return _Source(
        place=place, name=name, module=module, file=file, root=file.resolve().parents[below]
    )


def _is_installed(file: Path) -> bool:
    """What pip or Python put there is not to be edited."""
    return any(
        file.resolve().is_relative_to(Path(sysconfig.get_path(kind)).resolve())
        for kind in ("purelib", "platlib", "stdlib")
    )


def _example(problem: Problem) -> str:
    """Python for a batch of the shape that the network takes; `add_shortcuts` looks at shapes, not at values."""
    sizes = ", ".join(str(size) for size in (2, *problem.inputs.shape[1:]))
    kind = "" if problem.inputs.dtype == torch.float32 else f", dtype={problem.inputs.dtype}"
    return f"torch.zeros({sizes}{kind})"


def _edited(source: _Source, file: Path, problem: Problem) -> str | None:
    """The file with shortcuts; None where that needs more than an edit of what the build returns."""
    try:
        return with_shortcuts(file.read_bytes().decode(), source.name, _example(problem))
    except (UnicodeDecodeError, SyntaxError):
        return None


def _diff(source: _Source, file: Path, edited: str, target: Path, around: tuple[str, ...]) -> Patch:
    """A unified diff with names as seen from the folder in which it is to be applied: this one, or the file's own."""
    here = Path.cwd()
    is_below = file.resolve().is_relative_to(here)
    name = file.resolve().relative_to(here).as_posix() if is_below else file.name
    where = [] if is_below else ["-C", str(file.resolve().parent)]
    use = shlex.join(["git", *where, "apply", str(target if is_below else target.resolve())])
    tab = "\t" if " " in name else ""  # says where the name ends
    old, new = (text.splitlines(keepends=True) for text in (file.read_bytes(), edited.encode()))
    found = difflib.diff_bytes(
        difflib.unified_diff, old, new, f"a/{name}{tab}".encode(), f"b/{name}{tab}".encode()
    )
    lines = [
        line if line.endswith(b"\n") else line + b"\n\\ No newline at end of file\n"
        for line in found
    ]
    blocks = f"{len(around)} block{'s' * (len(around) > 1)}"
    head = f"# {MARK}: {source.place} with shortcuts around {blocks}; parameters keep their names.\n# Apply: {use}\n"
    return Patch(
        kind="diff", path=target, text=head + b"".join(lines).decode(), use=use, around=around
    )


def _wrapped(source: _Source, target: Path, example: str) -> str:
    """A new file around a build that is imported; what is not installed it finds from its own place."""
    if not all(part.isidentifier() for part in [*source.module.split("."), source.name]):
        raise DiagnosisError(
            f"no patch: {source.place} has a name by which no other file can import it; rename it"
        )
    find = uses = ""
    if source.root is not None:
        way = Path(os.path.relpath(source.root, target.resolve().parent)).as_posix()
        uses = "import sys\nfrom pathlib import Path\n"
        find = f"sys.path.insert(0, str(Path(__file__).resolve().parent / {way!r}))\n"
    return f'''"""{MARK}: {source.place} with shortcuts around its blocks (Eq. 1 of He et al. 2015).

Parameters keep their names, so that weights of the one load into the other.
"""

import functools
{uses}
import torch
from reslearn.models import add_shortcuts

{find}from {source.module} import {source.name} as plain


@functools.wraps(plain, updated=())
def {source.name}(*arguments, **named):
    return add_shortcuts(plain(*arguments, **named), {example}).network
'''


def _built(
    text: str, source: _Source, file: Path, depth: int | None
) -> Callable[[], nn.Module] | None:
    """The build that a text defines when it is run as `file`; None where it cannot be run."""
    module = ModuleType(source.module)
    module.__file__ = str(file)
    module.__package__ = source.module.rpartition(".")[0]
    searched = list(sys.path)
    try:
        exec(compile(text, str(file), "exec"), vars(module))
        return bound(getattr(module, source.name), depth)
    except Exception:  # what a stranger's file raises is anybody's guess
        return None
    finally:
        sys.path[:] = searched


@torch.no_grad()
def _builds_the_same(problem: Problem, build: Callable[[], nn.Module] | None) -> bool:
    """Whether it gives what `add_shortcuts` gives: keys in order, weights of a seed, outputs."""
    if build is None:
        return False
    expected = add_shortcuts(problem.net(_SEED), problem.example).network.eval()
    try:
        got = replace(problem, build=build).net(_SEED).eval()
        states: list[dict[str, Any]] = [expected.state_dict(), got.state_dict()]
        return (
            list(states[0]) == list(states[1])
            and all(_equal(states[0][key], states[1][key]) for key in states[0])
            and _equal(expected(problem.example), got(problem.example))
        )
    except Exception:  # as above
        return False


def _equal(a: Any, b: Any) -> bool:
    if not (isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor)):
        return bool(a == b)
    return torch.equal(a, b) or (
        a.shape == b.shape
        and a.is_floating_point()
        and torch.allclose(a, b, rtol=0, atol=0, equal_nan=True)
    )
