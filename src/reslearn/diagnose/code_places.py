"""Places in the user's code: where an attribute, a module or the initial weights are set."""

from __future__ import annotations

import ast
import functools
import inspect
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from reslearn.diagnose.user_code import is_library_file, short_path

if TYPE_CHECKING:
    from reslearn.diagnose.problem import Problem

_INITIALIZERS = {
    *(name for name in dir(nn.init) if name.endswith("_") and not name.startswith("_")),
    *("fill_", "zero_", "normal_", "uniform_", "copy_", "mul_", "div_"),
}
_MAX_PLACES = 3


def attribute_place(owner: object, attribute: str) -> str:
    """Return FILE:LINE at which a class assigns `self.ATTRIBUTE`; empty if it is unknown."""
    for user_class in type(owner).__mro__:
        file = _source_file(user_class)
        if file is None:
            continue
        for node in ast.walk(_parsed(file)):
            if isinstance(node, ast.ClassDef) and node.name == user_class.__name__:
                line = next(_assigned_lines(node, attribute), None)
                if line is not None:
                    return f"{short_path(file)}:{line}"
    return ""


def constructor_place(problem: Problem, net: nn.Module, class_name: str) -> str:
    """Return FILE:LINE at which the user creates a module of a class.

    Returns:
        An empty text if the files that define the network do not create exactly one.
    """
    places = []
    for file in _network_files(problem, net):
        for node in ast.walk(_parsed(file)):
            if isinstance(node, ast.Call) and _called_name(node) == class_name:
                places.append(f"{short_path(file)}:{node.lineno}")
    return places[0] if len(places) == 1 else ""


def build_with_places(problem: Problem, seed: int) -> tuple[nn.Module, list[str]]:
    """Build a network, and return the first places FILE:LINE at which initial weights are set.

    Weights that torch's modules draw by default are not listed.
    """
    recorder = _InitializationRecorder()
    with recorder:
        net = problem.net(seed)
    return net, list(dict.fromkeys(recorder.places))[:_MAX_PLACES]


class _InitializationRecorder(TorchFunctionMode):
    """Record the lines of the user's code that call an initializer."""

    def __init__(self) -> None:
        super().__init__()
        self.places: list[str] = []

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        tensor = args[0] if args else (kwargs or {}).get("tensor")
        if getattr(func, "__name__", "") in _INITIALIZERS and isinstance(tensor, Tensor):
            location = _calling_line()
            if location:
                self.places.append(location)
        return func(*args, **(kwargs or {}))


def _calling_line() -> str:
    """Return the line of the user's code, unless a module of torch makes the call for it."""
    frame = sys._getframe(2)
    while frame.f_back is not None:
        file = frame.f_code.co_filename
        if "/torch/nn/modules/" in file:
            return ""
        if not is_library_file(file):
            return f"{short_path(file)}:{frame.f_lineno}"
        frame = frame.f_back
    return ""


def _network_files(problem: Problem, net: nn.Module) -> list[str]:
    """Return the files of the user that define the network: its build and its classes."""
    build: Any = problem.build
    while isinstance(build, functools.partial):
        build = build.func
    files = [_source_file(inspect.unwrap(build))]
    files += [_source_file(type(module)) for module in net.modules()]
    return [file for file in dict.fromkeys(files) if file is not None]


def _source_file(definition: Any) -> str | None:
    """Return the file of a class or function, if it is a file of the user."""
    try:
        file = inspect.getsourcefile(definition)
    except TypeError:  # a builtin, or an object that is neither a class nor a function
        return None
    is_users = file is not None and not is_library_file(file) and Path(file).is_file()
    return file if is_users else None


@functools.lru_cache(maxsize=32)
def _parsed(file: str) -> ast.Module:
    try:
        return ast.parse(Path(file).read_text(encoding="utf-8"))
    except (SyntaxError, UnicodeDecodeError):  # the file changed after its import
        return ast.Module(body=[], type_ignores=[])


def _assigned_lines(definition: ast.ClassDef, attribute: str) -> Iterator[int]:
    """Yield the lines of a class that assign `self.ATTRIBUTE`."""
    for node in ast.walk(definition):
        is_assigned = isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store)
        if is_assigned and node.attr == attribute:  # type: ignore[attr-defined]
            yield node.lineno  # type: ignore[attr-defined]


def _called_name(node: ast.Call) -> str:
    if isinstance(node.func, ast.Attribute):
        return node.func.attr
    return node.func.id if isinstance(node.func, ast.Name) else ""
