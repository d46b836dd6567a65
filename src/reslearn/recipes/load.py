"""TOML to `Recipe`: the recipes that ship, files of the user's own, `key=value` overrides, and errors that say what is allowed."""

import difflib
import hashlib
import json
import tomllib
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, TypeAdapter, ValidationError

from reslearn.recipes.schema import Constant, Cosine, Plateau, Recipe, Stepwise, Triangular
from reslearn.recipes.wording import needed, show

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

# What does not change the run that a recipe stands for: how it was written down, where it runs, and what follows from the data.
_NOT_HASHED = (
    "overrides",
    "model.num_classes",
    "model.in_channels",
    "resources.cores",
    "resources.gpus",
)
# Keys that came after runs had been kept: at this value they mean what a recipe without them meant, so those runs keep their names.
_CAME_LATER: dict[str, Any] = {
    "data.jitter": None,
    "data.colour": None,
    "train.sync_batch_norm": False,
    "model.stem": None,
    "model.groups": None,
    "model.base_width": None,
    "model.width": None,
    "model.shortcut_pool": None,
    "model.preactivation": None,
    "init": None,
    "init.entry": None,
    "schedule.warm_up_duration": None,
}
# What nothing means where runs were kept when the key had a value at all times.
_NOTHING_MEANS: dict[str, Any] = {"model.stride_in": "1x1"}
# TOML has no word for nothing; data.mean and data.std have a "none" of their own.
_MAY_BE_NONE = (
    "data.size_px",
    "data.train_images",
    "model.shortcut",
    "optimizer.filter_lr",
    "schedule.warm_up_lr",
    "train.ema",
    *_NOTHING_MEANS,
    *(key for key, value in _CAME_LATER.items() if value is None),
)
_MISSING = ("missing", "union_tag_not_found")
_SCHEDULES: dict[str, type[BaseModel]] = {
    "constant": Constant,
    "step": Stepwise,
    "triangular": Triangular,
    "cosine": Cosine,
    "plateau": Plateau,
}
_OF_EVERY_SCHEDULE = {"kind", "duration", "warm_up_lr", "warm_up_error_pct", "warm_up_duration"}


class RecipeError(ValueError):
    """A recipe that cannot be: names the file or flag, the key, the value and what is allowed."""


def names() -> list[str]:
    """The recipes that ship, in alphabetical order."""
    return sorted(
        path.name.removesuffix(".toml")
        for path in _shipped().iterdir()
        if path.name.endswith(".toml")
    )


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
        hint = f", did you mean {near[0]!r}?" if near else ":"
        raise RecipeError(
            f"no recipe {name_or_path!r}{hint} there are {', '.join(names())}, or any .toml file"
        )
    try:
        values = tomllib.loads(content)
    except tomllib.TOMLDecodeError as error:
        raise RecipeError(f"{source}: not TOML: {error}") from None
    values.setdefault("name", Path(name_or_path).stem)
    for override in overrides:
        _apply(values, override)
    values["overrides"] = list(overrides)
    return _validate(values, source=source, overrides=overrides)


def from_dict(values: Mapping[str, Any], *, source: str) -> Recipe:
    """Validate plain values; `source` opens the line of a RecipeError.

    As JSON, and strictly: a text is no number and a number no truth value, while a list may stand for a tuple.
    """
    return _validate(values, source=source, overrides=())


def wrong_in(text: bytes) -> list[str]:
    """What no recipe holds in the JSON `text` of one, a line each; what is missing may be, since not every reader needs it."""
    try:
        Recipe.model_validate_json(text, strict=True)
    except ValidationError as error:
        return [
            _explain(problem, ())
            for problem in error.errors(include_url=False)
            if problem["type"] not in _MISSING
        ]
    return []


def json_schema() -> dict[str, Any]:
    """The JSON schema of a recipe, for editors."""
    return TypeAdapter(Recipe).json_schema()


def recipe_hash(values: Mapping[str, Any], *, without: Sequence[str] = ()) -> str:
    """Twelve hex digits that name what a resolved recipe (`Recipe.to_dict()`) computes; `without` leaves further dotted keys out."""
    flat = {key: value for key, value in _computes(values).items() if key not in without}
    return hashlib.sha256(json.dumps(flat, sort_keys=True).encode()).hexdigest()[:12]


def difference(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> list[str]:
    """Where two resolved recipes differ in what they compute, as "optimizer.lr: 0.1 -> 0.2"."""
    a, b = _computes(ours), _computes(theirs)
    keys = sorted(key for key in a.keys() | b.keys() if a.get(key) != b.get(key))
    return [
        f"{key}: {show(a.get(key, _CAME_LATER.get(key)))} -> {show(b.get(key, _CAME_LATER.get(key)))}"
        for key in keys
    ]


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested tables to dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat.update(
            flatten(value, f"{prefix}{key}.")
            if isinstance(value, Mapping)
            else {prefix + key: value}
        )
    return flat


def _computes(values: Mapping[str, Any]) -> dict[str, Any]:
    """What of a resolved recipe decides what is computed, by dotted keys."""
    flat = {key: value for key, value in flatten(values).items() if key not in _NOT_HASHED}
    flat |= {key: meant for key, meant in _NOTHING_MEANS.items() if flat.get(key) is None}
    return {
        key: value
        for key, value in flat.items()
        if key not in _CAME_LATER or value != _CAME_LATER[key]
    }


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
        value = (
            written.strip()
        )  # bare words are texts, so that --set model.name=resnet56 needs no quotes
        value = {"true": True, "false": False}.get(value.lower(), value)  # as Python writes them
    if value == "none" and key.strip() in _MAY_BE_NONE:
        value = None
    *tables, last = key.strip().split(".")
    table = values
    for name in tables:
        table = table.setdefault(name, {})
        if not isinstance(table, dict):
            raise RecipeError(f"--set {override}: {name} is no table")
    if (
        key.strip() == "schedule.kind" and table.get("kind") != value
    ):  # the old kind's own keys have no meaning in the new one
        for foreign in set(table) - _OF_EVERY_SCHEDULE:
            del table[foreign]
    table[last] = value


def _validate(values: Mapping[str, Any], *, source: str, overrides: Sequence[str]) -> Recipe:
    try:
        return Recipe.model_validate_json(json.dumps(dict(values), default=str), strict=True)
    except ValidationError as error:
        problems = "; ".join(
            _explain(problem, overrides) for problem in error.errors(include_url=False)
        )
        raise RecipeError(f"{source}: {problems}") from None


def _explain(problem: "ErrorDetails", overrides: Sequence[str]) -> str:
    """key = value, what is allowed, and the flag it came from if it did."""
    path, allowed = [str(part) for part in problem["loc"]], _keys_beside(problem["loc"])
    if path[:1] == ["schedule"] and len(path) > 1 and path[1] in _SCHEDULES:
        del path[
            1
        ]  # pydantic puts the tag of a union into the path: schedule.step.factor is schedule.factor to the user
    key, given = ".".join(path), problem["input"]
    flags = [
        text for text in overrides if f"{key}.".startswith(f"{text.partition('=')[0].strip()}.")
    ]
    origin = f" (from --set {flags[-1]})" if flags else ""
    equation = f"{key} = {show(given)}"
    match problem["type"]:
        case "extra_forbidden":
            near = difflib.get_close_matches(path[-1], allowed, n=1)
            hint = f"did you mean {near[0]}?" if near else f"allowed here: {', '.join(allowed)}"
            return f"unknown key {equation}; {hint}{origin}"
        case "missing":
            return f"{key} is missing"
        case _ if not path:
            return needed(problem)
        case "union_tag_invalid":
            return f"{key}.kind = {show(problem['ctx']['tag'])}: allowed are {', '.join(_SCHEDULES)}{origin}"
        case "union_tag_not_found":
            return f"{key}.kind is missing: {', '.join(_SCHEDULES)}"
        case "value_error":
            # of a whole table, whose content would only distract
            opening = (
                "" if not key else f"{key}: " if isinstance(given, Mapping) else f"{equation}: "
            )
            return f"{opening}{problem['ctx']['error']}{origin}"
        case _:
            return f"{equation}: {needed(problem)}{origin}"


def _keys_beside(location: Sequence[str | int]) -> list[str]:
    """The keys that the schema allows in the table in which a location of pydantic's ends."""
    match location:
        case (_,):
            return sorted(Recipe.model_fields)
        case ("schedule", str(kind), _):
            return sorted(_SCHEDULES[kind].model_fields)
        case (str(table), _):
            return sorted(getattr(Recipe.model_fields[table].annotation, "model_fields", ()))
        case _:
            return []
