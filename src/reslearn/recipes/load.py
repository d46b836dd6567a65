"""From TOML to `Recipe`: shipped recipes, the user's own files, `key=value` overrides, and hashes.

Errors are one line that names the file or flag, the key, the value and what is allowed.
"""

import copy
import difflib
import hashlib
import json
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, TypeAdapter, ValidationError

from reslearn.recipes.schedule import Constant, Cosine, Plateau, Stepwise, Triangular
from reslearn.recipes.schema import Recipe
from reslearn.recipes.sources import RecipeError, names, read_json, read_text, text
from reslearn.recipes.toml import MAX_DEPTH, TomlLimitError, parse_toml
from reslearn.switches import SWITCHES

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

# These keys do not change the run: how the recipe was written, where it runs, what follows from the
# data.
_NOT_HASHED = (
    "overrides",
    "model.num_classes",
    "model.in_channels",
    "resources.cores",
    "resources.gpus",
)
# The switches of the first recipes. Their values are always hashed.
_FIRST_SWITCHES = (
    "shortcut",
    "zero_pad",
    "subsample",
    "stride_in",
    "init",
    "zero_init",
    "normalize",
    "checkpoint_activations",
)
# Keys that are younger than the first committed runs, and the value that stands for the behavior
# before. A key with this value is not hashed, so old runs keep their names.
_ADDED_LATER: dict[str, Any] = {
    "data.jitter": None,
    "data.colour": None,
    "train.sync_batch_norm": False,
    "init": None,
    "data.sampling": "uniform",
    "init.entry": None,
    "init.frozen_stages": 0,
    "init.layer_lr_decay": 1.0,
    "train.class_weights": "none",
    "schedule.warm_up_duration": None,
    "schedule.ends": [],
    "evaluation.train_images": None,
    "evaluation.early_stop": None,
    "evaluation.best": False,
    "data.store": "auto",
    "augment.crop_area": None,
    "augment.policy": "none",
    "augment.erase": 0.0,
    "augment.mixup": None,
    "augment.cutmix": None,
}
for _name, _switch in SWITCHES.items():
    if _name not in _FIRST_SWITCHES:
        _ADDED_LATER[f"model.{_name}"] = _switch.argument_default
# Keys that had a value in the first recipes and may be None today: None is hashed as that value.
_HASHED_AS: dict[str, Any] = {"model.stride_in": "1x1"}
# TOML has no null, so an override writes `none` for these keys. `none` is a text of its own in
# data.mean and data.std.
_MAY_BE_NONE = {
    "data.size_px",
    "data.train_images",
    "optimizer.filter_lr",
    "schedule.warm_up_lr",
    "train.ema",
    *(f"model.{name}" for name, switch in SWITCHES.items() if switch.set_by_name),
    *(key for key, value in _ADDED_LATER.items() if value is None),
}
_OTHER_SPELLINGS = {"data.color": "data.colour"}
_MISSING = ("missing", "union_tag_not_found")
_SCHEDULES: dict[str, type[BaseModel]] = {
    "constant": Constant,
    "step": Stepwise,
    "triangular": Triangular,
    "cosine": Cosine,
    "plateau": Plateau,
}
_KEYS_OF_ALL_SCHEDULES = {
    "kind",
    "duration",
    "warm_up_lr",
    "warm_up_error_pct",
    "warm_up_duration",
    "ends",
}


def load(name_or_path: str, *, overrides: Sequence[str] = ()) -> Recipe:
    """Load a shipped recipe, a TOML file, or the recipe.json of a run.

    Args:
        name_or_path: Name of a shipped recipe, or path of a file.
        overrides: Texts such as "optimizer.lr=0.2", applied in order.

    Raises:
        RecipeError: In one line, for an unknown recipe, an unknown key, a wrong type or a value
            that is not allowed.
    """
    if name_or_path.endswith(".json"):
        return from_dict(read_json(Path(name_or_path)), source=name_or_path, overrides=overrides)
    if name_or_path in names():
        source, content = f"recipe {name_or_path}", text(name_or_path)
    elif name_or_path.endswith(".toml") or Path(name_or_path).is_file():
        source, content = name_or_path, read_text(Path(name_or_path))
    else:
        similar = difflib.get_close_matches(name_or_path, names(), n=1)
        hint = f", did you mean {similar[0]!r}?" if similar else ":"
        raise RecipeError(
            f"no recipe {name_or_path!r}{hint} there are {', '.join(names())}, any .toml "
            "file, or the recipe.json of a run"
        )
    try:
        values = parse_toml(content)
    except tomllib.TOMLDecodeError as error:
        raise RecipeError(f"{source}: not TOML: {error}") from None
    except TomlLimitError as error:
        raise RecipeError(f"{source}: {error}") from None
    values.setdefault("name", Path(name_or_path).stem)
    _use_recipe_spelling(values)
    for override in overrides:
        _apply(values, override)
    values["overrides"] = list(overrides)
    return _validate(values, source=source, overrides=overrides)


def from_dict(values: Mapping[str, Any], *, source: str, overrides: Sequence[str] = ()) -> Recipe:
    """Validate plain JSON values. `source` is the beginning of the message of a RecipeError.

    Types are strict: a text is not a number, and a number is not a truth value. A list may stand
    for a tuple. `overrides` are applied in order, as in `load`.
    """
    if overrides:
        changed = copy.deepcopy(dict(values))
        for override in overrides:
            _apply(changed, override)
        changed["overrides"] = [*changed.get("overrides", ()), *overrides]
        values = changed
    return _validate(values, source=source, overrides=overrides)


def wrong_in(text: bytes) -> list[str]:
    """Return one line for each error in the JSON `text` of a recipe. Missing keys are allowed."""
    try:
        Recipe.model_validate_json(text, strict=True)
    except ValidationError as error:
        problems = error.errors(include_url=False)
        return [_explain(problem, ()) for problem in problems if problem["type"] not in _MISSING]
    return []


def json_schema() -> dict[str, Any]:
    """Return the JSON schema of a recipe, for editors and documentation."""
    return TypeAdapter(Recipe).json_schema()


def recipe_hash(values: Mapping[str, Any], *, without: Sequence[str] = ()) -> str:
    """Return twelve hex digits that identify what a recipe computes.

    Args:
        values: A resolved recipe (`Recipe.to_dict()`).
        without: Further dotted keys to leave out.
    """
    flat = {key: value for key, value in _hashed(values).items() if key not in without}
    return hashlib.sha256(json.dumps(flat, sort_keys=True).encode()).hexdigest()[:12]


def difference(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[str]:
    """Return the differences of two resolved recipes, such as "optimizer.lr: 0.1 -> 0.2".

    Keys that do not change the run are left out.
    """
    a, b = _hashed(first), _hashed(second)
    lines = []
    for key in sorted(a.keys() | b.keys()):
        if a.get(key) != b.get(key):
            default = _ADDED_LATER.get(key)
            lines.append(f"{key}: {as_json(a.get(key, default))} -> {as_json(b.get(key, default))}")
    return lines


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return the values of nested tables by dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat.update(flatten(value, f"{prefix}{key}."))
        else:
            flat[prefix + key] = value
    return flat


def _hashed(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values that decide what a resolved recipe computes, by dotted keys."""
    hashed = {}
    for key, value in flatten(values).items():
        if key in _NOT_HASHED:
            continue
        if key not in _ADDED_LATER or value != _ADDED_LATER[key]:
            hashed[key] = value
    for key, value in _HASHED_AS.items():
        if hashed.get(key) is None:
            hashed[key] = value
    return hashed


def _use_recipe_spelling(values: dict[str, Any]) -> None:
    """Rename keys of a file that are written in another accepted spelling."""
    for spelling, key in _OTHER_SPELLINGS.items():
        table_name, _, name = spelling.partition(".")
        table = values.get(table_name)
        recipe_name = key.partition(".")[2]
        if isinstance(table, dict) and name in table and recipe_name not in table:
            table[recipe_name] = table.pop(name)


def _apply(values: dict[str, Any], override: str) -> None:
    """Set one value in the nested tables `values`."""
    key_text, equals, value_text = override.partition("=")
    if not equals or not key_text.strip():
        raise RecipeError(
            f"{flag_text(override)}: key=value is needed, as in --set optimizer.lr=0.2"
        )
    key = _recipe_key(key_text)
    value = parse_value(value_text, override=override)
    if value == "none" and key in _MAY_BE_NONE:
        value = None
    *tables, last = key.split(".")
    if len(tables) > MAX_DEPTH:
        raise RecipeError(f"{flag_text(override)}: a key has at most {MAX_DEPTH} dots")
    table = values
    for name in tables:
        if table.get(name) is None:  # missing, or null in a recipe.json
            table[name] = {}
        table = table[name]
        if not isinstance(table, dict):
            raise RecipeError(f"{flag_text(override)}: {name} is no table")
    if key == "schedule.kind" and table.get("kind") != value:
        # The other keys of the old kind have no meaning in the new kind.
        for name in set(table) - _KEYS_OF_ALL_SCHEDULES:
            del table[name]
    table[last] = value


def _recipe_key(text: str) -> str:
    key = text.strip()
    return _OTHER_SPELLINGS.get(key, key)


def parse_value(text: str, *, override: str) -> Any:
    """Return the TOML value of an override, `key=text`.

    Bare words are texts, so `--set model.name=resnet56` needs no quotes.

    Raises:
        RecipeError: If the value is nested too deeply, or a number is too long.
    """
    text = text.strip()
    try:
        return parse_toml(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        truth_values = {"true": True, "false": False}  # as Python writes them
        return truth_values.get(text.lower(), text)
    except TomlLimitError as error:
        raise RecipeError(f"{flag_text(override)}: {error}") from None


def flag_text(override: str) -> str:
    """Return the flag of an override for a message, cut if it is long."""
    return f"--set {_cut(override)}"


def _validate(values: Mapping[str, Any], *, source: str, overrides: Sequence[str]) -> Recipe:
    try:
        return Recipe.model_validate_json(json.dumps(dict(values), default=str), strict=True)
    except ValidationError as error:
        problems = error.errors(include_url=False)
        lines = "; ".join(_explain(problem, overrides) for problem in problems)
        raise RecipeError(f"{source}: {lines}") from None


def _explain(problem: "ErrorDetails", overrides: Sequence[str]) -> str:
    """Return key = value, what is allowed, and the flag that the value came from."""
    path = [str(part) for part in problem["loc"]]
    if path[:1] == ["schedule"] and len(path) > 1 and path[1] in _SCHEDULES:
        # pydantic reports schedule.step.factor; the user wrote schedule.factor.
        del path[1]
    key, value = ".".join(path), problem["input"]
    origin = _origin(key, overrides)
    equation = f"{key} = {as_json(value)}"
    match problem["type"]:
        case "extra_forbidden":
            return f"unknown key {equation}; {_key_hint(problem['loc'])}{origin}"
        case "missing":
            return f"{key} is missing"
        case _ if not path:
            return requirement(problem)
        case "union_tag_invalid":
            tag = as_json(problem["ctx"]["tag"])
            return f"{key}.kind = {tag}: allowed are {', '.join(_SCHEDULES)}{origin}"
        case "union_tag_not_found":
            return f"{key}.kind is missing: allowed are {', '.join(_SCHEDULES)}"
        case "value_error" if isinstance(value, Mapping):  # the content of a table would distract
            return f"{key}: {problem['ctx']['error']}{origin}"
        case "value_error":
            return f"{equation}: {problem['ctx']['error']}{origin}"
        case _:
            return f"{equation}: {requirement(problem)}{origin}"


def _origin(key: str, overrides: Sequence[str]) -> str:
    """Return the last override that set `key` or a table above it."""
    flags = [
        text
        for text in overrides
        if f"{key}.".startswith(f"{_recipe_key(text.partition('=')[0])}.")
    ]
    return f" (from {flag_text(flags[-1])})" if flags else ""


def _key_hint(location: Sequence[str | int]) -> str:
    """Return the keys that are allowed in the place of an unknown one."""
    match location:
        case (_,):
            keys = sorted(Recipe.model_fields)
        case ("schedule", str(kind), _):
            keys = sorted(_SCHEDULES[kind].model_fields)
        case (str(table), _):
            keys = sorted(getattr(Recipe.model_fields[table].annotation, "model_fields", ()))
        case _:
            keys = []
    similar = difflib.get_close_matches(str(location[-1]), keys, n=1)
    return f"did you mean {similar[0]}?" if similar else f"allowed here: {', '.join(keys)}"


_NEEDED = {
    "bool_type": "true or false is needed",
    "float_type": "a number is needed",
    "int_type": "a whole number is needed",
    "int_from_float": "a whole number is needed",
    "dict_type": "a table of keys is needed",
    "model_type": "a table of keys is needed",
    "model_attributes_type": "a table of keys is needed",
    "string_type": "a text is needed",
    "string_too_short": "a text is needed",
    "tuple_type": "a list is needed",
    "list_type": "a list is needed",
    "too_short": "at least one is needed",
}


def requirement(problem: "ErrorDetails") -> str:
    """Return what pydantic would accept, in the terms of TOML and JSON instead of Python's."""
    return _NEEDED.get(problem["type"]) or problem["msg"][0].lower() + problem["msg"][1:]


def as_json(value: Any) -> str:
    """Return a value as JSON writes it, cut if it is long."""
    return _cut(json.dumps(value, default=str))


def _cut(text: str, max_characters: int = 200) -> str:
    return text if len(text) <= max_characters else f"{text[:max_characters]}..."
