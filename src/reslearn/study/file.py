"""Study files: a study as a small TOML file, for `reslearn study FILE`. See `StudyFile`."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from reslearn.recipes import Recipe
from reslearn.recipes.load import as_json, requirement
from reslearn.recipes.toml import TomlLimitError, parse_toml
from reslearn.study.grid import Job, grid, vary


class StudyError(ValueError):
    """A study file is wrong. The message names the file, the key, the value and what is allowed."""


_MAX_SEEDS = 10_000


def _seeds(value: Any) -> Any:
    if isinstance(value, int) and not isinstance(value, bool):
        if value < 1:
            raise ValueError("at least one seed is needed")
        if value > _MAX_SEEDS:
            raise ValueError(f"at most {_MAX_SEEDS:,} seeds are allowed")
        return tuple(range(value))
    return value


Text = Annotated[str, Field(min_length=1)]
Setting = Annotated[str, Field(pattern=r"^[^=\s]+=.+$")]
Value = bool | int | float | str


class StudyFile(BaseModel):
    """The keys of a study file. Unknown keys are refused.

    ```toml
    models = ["plain20", "plain56", "resnet20", "resnet56"]
    seeds = [0, 1, 2]                     # a list, or a number of seeds; default: one seed
    recipe = "cifar-fast"                 # a name, or a .toml file in the folder of this file
    data = "cifar10"                      # optional: replaces the data set of the recipe
    set = ["schedule.duration=8 epochs"]  # optional: overrides for all runs
    [vary]                                # optional: every combination is run
    "optimizer.lr" = [0.1, 0.05]
    ```
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    models: Annotated[tuple[Text, ...], Field(min_length=1, strict=False)]
    seeds: Annotated[
        tuple[Annotated[int, Field(ge=0)], ...],
        Field(min_length=1, strict=False),
        BeforeValidator(_seeds),
    ] = (0,)
    recipe: Text
    data: Text | None = None
    overrides: Annotated[tuple[Setting, ...], Field(alias="set", strict=False)] = ()
    vary: dict[Text, Annotated[tuple[Value, ...], Field(min_length=1, strict=False)]] = {}

    def jobs(
        self,
        folder: Path | str,
        *,
        cost: Callable[[Recipe], float] | None = None,
        arguments: Sequence[str] = (),
    ) -> list[Job]:
        """Return the jobs of this study below `folder`. See `grid` for `cost` and `arguments`."""
        overrides = [(*self.overrides, *varied) for varied in vary(self.vary)]
        return grid(
            models=self.models,
            seeds=self.seeds,
            recipe=self.recipe,
            folder=folder,
            data=self.data,
            overrides=overrides,
            cost=cost,
            arguments=arguments,
        )


def load_study(path: Path | str) -> StudyFile:
    """Read a study file. The path of a recipe file is relative to the study file.

    Raises:
        StudyError: If the file cannot be read, or has unknown keys, wrong types or wrong values.
    """
    path = Path(path)
    try:
        values = parse_toml(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise StudyError(f"{path}: cannot be read: {error}") from None
    except tomllib.TOMLDecodeError as error:
        raise StudyError(f"{path}: not TOML: {error}") from None
    except TomlLimitError as error:
        raise StudyError(f"{path}: {error}") from None
    recipe = values.get("recipe")
    if isinstance(recipe, str) and recipe.endswith(".toml"):
        values["recipe"] = str(path.parent / recipe)
    return study_from(values, source=str(path))


def study_from(values: Mapping[str, Any], *, source: str) -> StudyFile:
    """Validate the keys of a study.

    Args:
        values: Values by key, for example from command-line options.
        source: Where the values come from. Error messages begin with it.

    Raises:
        StudyError: If there are unknown keys, wrong types or wrong values.
    """
    try:
        return StudyFile.model_validate(dict(values))
    except ValidationError as error:
        problems = error.errors(include_url=False)
        lines = [_explain(problem) for problem in problems if not _is_implied(problem, problems)]
        raise StudyError(f"{source}: {'; '.join(dict.fromkeys(lines))}") from None


def _is_implied(problem: Any, problems: Sequence[Any]) -> bool:
    """Return whether a list is too short only because one of its elements is wrong."""
    if problem["type"] != "too_short":
        return False
    key = problem["loc"][:1]
    return any(peer is not problem and peer["loc"][:1] == key for peer in problems)


_NEEDED = {
    "string_pattern_mismatch": 'key=value is needed, as in "optimizer.lr=0.2"',
    "dict_type": "a table of lists is needed",
}


def _explain(problem: Any) -> str:
    # Inside a union, pydantic appends the type that it tried. The user knows only keys and
    # positions.
    path = [str(part) for part in problem["loc"] if part not in ("bool", "int", "float", "str")]
    key, kind, value = ".".join(path), problem["type"], as_json(problem["input"])
    if kind == "extra_forbidden":
        keys = sorted(field.alias or name for name, field in StudyFile.model_fields.items())
        return f"unknown key {key} = {value}; allowed are {', '.join(keys)}"
    if kind == "missing":
        return f"{key} is missing"
    if path == ["seeds"] and kind == "tuple_type":
        advice = "a number of seeds or a list of seeds is needed"
    elif path[0] == "vary" and len(path) == 3:
        advice = "a number, a text or true/false is needed"
    elif kind == "value_error":
        advice = str(problem["ctx"]["error"])
    else:
        advice = _NEEDED.get(kind) or requirement(problem)
    return f"{key} = {value}: {advice}"
