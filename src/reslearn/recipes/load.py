"""TOML to `Recipe`: the recipes that ship, files of the user's own, `key=value` overrides, and errors that say what is allowed."""

import difflib
import hashlib
import json
import tomllib
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from reslearn.recipes.schema import Recipe

# What does not change the run that a recipe stands for: how it was written down, and what follows from the data.
_NOT_HASHED = ("overrides", "model.num_classes", "model.in_channels")
_OF_EVERY_SCHEDULE = {"kind", "duration", "warm_up_lr", "warm_up_error_pct"}


class RecipeError(ValueError):
    """A recipe that cannot be: names the file or flag, the key, the value and what is allowed."""


def names() -> list[str]:
    """The recipes that ship, in alphabetical order."""
    return sorted(path.name.removesuffix(".toml") for path in _shipped().iterdir() if path.name.endswith(".toml"))


def text(name: str) -> str:
    """The TOML of a shipped recipe, comments and all."""
    return str((_shipped() / f"{name}.toml").read_text(encoding="utf-8"))


def load(name_or_path: str, *, overrides: Sequence[str] = ()) -> Recipe:
    """The recipe of that name or file, with `overrides` such as "optimizer.lr=0.2" applied in order.

    Raises RecipeError in one line for an unknown recipe, unknown keys, wrong types and impossible values.
    """
    if name_or_path in names():
        source, content = f"recipe {name_or_path}", text(name_or_path)
    elif name_or_path.endswith(".toml") or Path(name_or_path).is_file():
        source, content = name_or_path, _read(Path(name_or_path))
    else:
        near = difflib.get_close_matches(name_or_path, names(), n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise RecipeError(f"no recipe {name_or_path!r}{hint} There are {', '.join(names())}, or give a .toml file")
    try:
        values = tomllib.loads(content)
    except tomllib.TOMLDecodeError as error:
        raise RecipeError(f"{source}: not TOML: {error}") from None
    values.setdefault("name", Path(name_or_path).stem)
    for override in overrides:
        _apply(values, override)
    values["overrides"] = list(overrides)
    return from_dict(values, source=source)


def from_dict(values: Mapping[str, Any], *, source: str) -> Recipe:
    """Validate plain values; `source` opens the line of a RecipeError."""
    try:
        return Recipe.model_validate(dict(values))
    except ValidationError as error:
        raise RecipeError(f"{source}: {_explain(error)}") from None


def json_schema() -> dict[str, Any]:
    """The JSON schema of a recipe, for editors."""
    return TypeAdapter(Recipe).json_schema()


def recipe_hash(values: Mapping[str, Any], *, without: Sequence[str] = ()) -> str:
    """Twelve hex digits that name what a resolved recipe (`Recipe.to_dict()`) computes; `without` leaves further dotted keys out."""
    flat = {key: value for key, value in flatten(values).items() if key not in (*_NOT_HASHED, *without)}
    return hashlib.sha256(json.dumps(flat, sort_keys=True).encode()).hexdigest()[:12]


def difference(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> list[str]:
    """Where two resolved recipes differ in what they compute, as "optimizer.lr: 0.1 -> 0.2"."""
    a, b = flatten(ours), flatten(theirs)
    keys = sorted(key for key in a.keys() | b.keys() if key not in _NOT_HASHED and a.get(key) != b.get(key))
    return [f"{key}: {_show(a.get(key))} -> {_show(b.get(key))}" for key in keys]


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested tables to dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat.update(flatten(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {prefix + key: value})
    return flat


def _shipped() -> Any:
    return resources.files("reslearn.recipes") / "files"


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path}: cannot be read: {error}") from None


def _apply(values: dict[str, Any], override: str) -> None:
    key, equals, written = override.partition("=")
    if not equals or not key.strip():
        raise RecipeError(f"--set {override}: key=value is needed, as in --set optimizer.lr=0.2")
    try:
        value: Any = tomllib.loads(f"value = {written.strip()}")["value"]
    except tomllib.TOMLDecodeError:
        value = written.strip()  # bare words are texts, so that --set model.name=resnet56 needs no quotes
    if value == "none" and key.strip() in ("data.size_px", "data.train_images", "train.ema", "model.shortcut", "schedule.warm_up_lr"):
        value = None
    *tables, last = key.strip().split(".")
    table = values
    for name in tables:
        table = table.setdefault(name, {})
        if not isinstance(table, dict):
            raise RecipeError(f"--set {override}: {name} is no table")
    if key.strip() == "schedule.kind" and table.get("kind") != value:  # the old kind's own keys have no meaning in the new one
        for foreign in set(table) - _OF_EVERY_SCHEDULE:
            del table[foreign]
    table[last] = value


def _explain(error: ValidationError) -> str:
    lines = []
    for problem in error.errors(include_url=False):
        # pydantic puts the tag of a union into the path: schedule.step.factor is schedule.factor to the user
        path = [str(part) for part in problem["loc"]]
        if path[:1] == ["schedule"] and len(path) > 1 and path[1] in ("constant", "step", "triangular", "cosine"):
            del path[1]
        key = ".".join(path)
        if problem["type"] == "extra_forbidden":
            near = difflib.get_close_matches(path[-1], _keys_beside(path), n=1)
            hint = f"; did you mean {near[0]}?" if near else f"; allowed here: {', '.join(_keys_beside(path))}"
            lines.append(f"unknown key {key} = {_show(problem['input'])}{hint}")
        elif problem["type"] == "missing":
            lines.append(f"{key} is missing")
        elif problem["type"] == "union_tag_invalid":
            lines.append(f"{key}.kind = {_show(problem['ctx']['tag'])}: allowed are {problem['ctx']['expected_tags']}")
        elif problem["type"] == "union_tag_not_found":
            lines.append(f"{key}.kind is missing: constant, step, triangular or cosine")
        elif problem["type"] == "value_error":
            shown = f" = {_show(problem['input'])}" if not isinstance(problem["input"], Mapping) else ""
            lines.append(f"{key}{shown}: {problem['ctx']['error']}")
        else:
            lines.append(f"{key} = {_show(problem['input'])}: {problem['msg'][0].lower()}{problem['msg'][1:]}")
    return "; ".join(lines)


def _keys_beside(path: Sequence[str]) -> list[str]:
    """The keys that the schema allows in the table in which `path` ends."""
    if len(path) == 1:
        return sorted(Recipe.model_fields)
    annotation = Recipe.model_fields[path[0]].annotation
    fields = getattr(annotation, "model_fields", None)
    if fields is None:  # the union of schedules
        fields = {key for kind in getattr(annotation, "__args__", ()) for key in kind.model_fields}
    return sorted(fields)


def _show(value: Any) -> str:
    return json.dumps(value, default=str)
