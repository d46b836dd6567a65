"""A study as a small TOML file, for `reslearn study FILE`; `StudyFile` shows its keys. Errors name file, key, value and what is allowed."""

import tomllib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from reslearn.recipes import Recipe
from reslearn.recipes.wording import needed, show
from reslearn.study.grid import Job, grid, vary


class StudyError(ValueError):
    """A study file that cannot be: names the file, the key, the value and what is allowed."""


_MOST_SEEDS = 10_000


def _seeds(value: Any) -> Any:
    if isinstance(value, int) and not isinstance(value, bool):
        if value < 1:
            raise ValueError("at least one seed is needed")
        if value > _MOST_SEEDS:
            raise ValueError(f"at most {_MOST_SEEDS:,} seeds are allowed")
        return tuple(range(value))
    return value


Text = Annotated[str, Field(min_length=1)]
Setting = Annotated[str, Field(pattern=r"^[^=\s]+=.+$")]
Value = bool | int | float | str


class StudyFile(BaseModel):
    """The keys of a study file. Frozen; unknown keys are refused.

    ```toml
    models = ["plain20", "plain56", "resnet20", "resnet56"]
    seeds = [0, 1, 2]                     # or a number of seeds; one without it
    recipe = "cifar-fast"                 # a name, or a .toml beside this file
    data = "cifar10"                      # optional: in place of the recipe's
    set = ["schedule.duration=8 epochs"]  # optional: for all runs
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
        """The grid below `folder`; `cost` and `arguments` as in `grid`."""
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
    """Read a study file. Raises StudyError in one line for a file that cannot be read, unknown keys, wrong types, impossible values."""
    path = Path(path)
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise StudyError(f"{path}: cannot be read: {error}") from None
    except tomllib.TOMLDecodeError as error:
        raise StudyError(f"{path}: not TOML: {error}") from None
    recipe = values.get("recipe")
    if isinstance(recipe, str) and recipe.endswith(".toml"):
        values["recipe"] = str(
            path.parent / recipe
        )  # beside the study file, wherever the command is typed
    return study_from(values, source=str(path))


def study_from(values: Mapping[str, Any], *, source: str) -> StudyFile:
    """Validate plain values, as flags give them; `source` opens the line of a StudyError."""
    try:
        return StudyFile.model_validate(dict(values))
    except ValidationError as error:
        problems = error.errors(include_url=False)
        # A list that is short because of a wrong element is told by the element.
        told = [
            p
            for p in problems
            if p["type"] != "too_short"
            or not any(q is not p and q["loc"][:1] == p["loc"][:1] for q in problems)
        ]
        raise StudyError(f"{source}: {'; '.join(dict.fromkeys(map(_explain, told)))}") from None


_NEEDED = {
    "string_pattern_mismatch": 'key=value is needed, as in "optimizer.lr=0.2"',
    "dict_type": "a table of lists is needed",
}


def _explain(problem: Any) -> str:
    # A place within a union ends in the name of a member that pydantic tried; the user knows only keys and positions.
    path = [str(part) for part in problem["loc"] if part not in ("bool", "int", "float", "str")]
    key, kind, value = ".".join(path), problem["type"], show(problem["input"])
    if kind == "extra_forbidden":
        allowed = sorted(field.alias or name for name, field in StudyFile.model_fields.items())
        return f"unknown key {key} = {value}; allowed are {', '.join(allowed)}"
    if kind == "missing":
        return f"{key} is missing"
    if path == ["seeds"] and kind == "tuple_type":
        told = "a number of seeds or a list of seeds is needed"
    elif path[0] == "vary" and len(path) == 3:
        told = "a number, a text or true/false is needed"
    elif kind == "value_error":
        told = str(problem["ctx"]["error"])
    else:
        told = _NEEDED.get(kind) or needed(problem)
    return f"{key} = {value}: {told}"
