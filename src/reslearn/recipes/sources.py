"""Where recipes come from: the files of the package, and files of the user."""

import json
from importlib import resources
from pathlib import Path
from typing import Any

from reslearn.recipes.toml import is_too_deep


class RecipeError(ValueError):
    """An invalid recipe. The message names the file or flag, the key and what is allowed."""


def names() -> list[str]:
    """Return the names of the shipped recipes, in alphabetical order."""
    files = [path.name for path in _shipped().iterdir()]
    return sorted(file.removesuffix(".toml") for file in files if file.endswith(".toml"))


def text(name: str) -> str:
    """Return the TOML of a shipped recipe, with its comments."""
    return str((_shipped() / f"{name}.toml").read_text(encoding="utf-8"))


def _shipped() -> Any:
    return resources.files("reslearn.recipes") / "files"


def read_text(path: Path) -> str:
    """Read a file of the user, or raise RecipeError."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path}: cannot be read: {error}") from None


def read_json(path: Path) -> dict[str, Any]:
    """Read the recipe.json of a run, or raise RecipeError."""
    try:
        values = json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        raise RecipeError(f"{path}: not JSON: {error}") from None
    if not isinstance(values, dict) or is_too_deep(values):
        raise RecipeError(f"{path}: a table of keys is needed, as in the recipe.json of a run")
    return values
