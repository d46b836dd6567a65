"""Load functions from the user's files, and report their errors in one line."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import inspect
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import Tensor, nn

Build = Callable[[], nn.Module]

_LIBRARY_PATHS = ("/reslearn/diagnose/", "/reslearn/models/", "/torch/", "<")


class DiagnosisError(ValueError):
    """A network, its data or an option cannot be diagnosed.

    The message names the value, what is allowed, and the line of the user's code, if any.
    """


def load_function(location: str) -> tuple[Callable[..., Any], str]:
    """Load `path/to/file.py:function` or `package.module:function`.

    Returns:
        The callable (a build, data, loss or optimizer function), and a short name of it.

    Raises:
        DiagnosisError: If `location` has another form, or the function cannot be imported.
    """
    module_name, _, attribute = location.rpartition(":")
    if not module_name or not attribute:
        raise DiagnosisError(
            f"{location} names no function: give FILE.py:FUNCTION or MODULE:FUNCTION, "
            "as in net.py:build"
        )
    is_file = module_name.endswith(".py")
    if is_file and not Path(module_name).is_file():
        raise DiagnosisError(f"{module_name} does not exist: give the path of a Python file")
    try:
        module = _import_file(Path(module_name)) if is_file else _import_module(module_name)
    except (Exception, SystemExit) as error:  # the user's file may raise anything
        raise DiagnosisError(f"{module_name} cannot be imported: {describe(error)}") from None
    function = getattr(module, attribute, None)
    if not callable(function):
        names = ", ".join(_callables(module)) or "no function"
        raise DiagnosisError(f"{module_name} has no callable {attribute!r}: it defines {names}")
    return function, f"{Path(module_name).stem}:{attribute}"


def _import_file(path: Path) -> ModuleType:
    _search_first(path.resolve().parent)
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules.setdefault(path.stem, module)
    spec.loader.exec_module(module)
    return module


def _import_module(name: str) -> ModuleType:
    _search_first(Path.cwd())
    return importlib.import_module(name)


def _search_first(folder: Path) -> None:
    """Let the user's file import the files beside it, as `python FILE.py` does."""
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))


def _callables(module: ModuleType) -> list[str]:
    """Return the names of the callables that a module defines, else of those that it imports."""
    public = {
        name: value
        for name, value in vars(module).items()
        if callable(value) and not name.startswith("_")
    }
    defined_here = [
        name
        for name, value in public.items()
        if getattr(value, "__module__", None) == module.__name__
    ]
    return defined_here or list(public)


def bind_depth(build: Callable[..., nn.Module], depth: int | None) -> Build:
    """Return `build` as a callable without arguments, with `depth` bound if one is given.

    Raises:
        DiagnosisError: If `build` needs other arguments, or takes no depth.
    """
    try:
        parameters = list(inspect.signature(build).parameters.values())
    except (TypeError, ValueError):  # a builtin has no signature
        parameters = []
    variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    required = [
        parameter.name
        for parameter in parameters
        if parameter.default is parameter.empty and parameter.kind not in variadic
    ]
    if depth is None:
        if required:
            hint = "give defaults, or a function without arguments"
            if required == ["depth"]:
                hint = "give --depth N"
            plural = "s" * (len(required) > 1)
            raise DiagnosisError(f"build needs the argument{plural} {', '.join(required)}: {hint}")
        return build
    if not any(parameter.name == "depth" for parameter in parameters):
        raise DiagnosisError(f"depth is {depth}, but build takes no argument of this name")
    return functools.partial(build, depth=depth)


def describe(error: BaseException) -> str:
    """Return the error and its line in the user's code, in one line."""
    text = str(error).splitlines()[0] if str(error) else type(error).__name__
    if isinstance(error, SyntaxError) and error.filename:
        return f"{text} ({error.filename}:{error.lineno})"
    text = f"{type(error).__name__}: {text}"
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if not is_library_file(frame.filename):
            return f"{text} ({frame.filename}:{frame.lineno})"
    return text


def describe_type(value: object) -> str:
    """Return the type of `value` with its article, and the shape of a tensor."""
    if isinstance(value, Tensor):
        return f"a tensor of shape {tuple(value.shape)}"
    return f"a {type(value).__name__}"


def is_library_file(file: str) -> bool:
    """Return whether a file belongs to torch, to this package or to Python's import system."""
    return any(path in file for path in _LIBRARY_PATHS)


def short_path(file: str) -> str:
    """Return a path relative to the working directory if the file is below it."""
    path = Path(file)
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else file
