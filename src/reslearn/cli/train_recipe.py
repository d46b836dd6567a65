"""From the options of `reslearn train` to its recipe and to the name of its run folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from reslearn.recipes import Recipe
    from reslearn.runs import RunFolder


def overrides_of(values: dict[str, Any]) -> list[str]:
    """Return the values that are set as overrides of a recipe."""
    return [f"{key}={value}" for key, value in values.items() if value is not None]


def recorded_recipe(out: Path | None, *, resume: bool) -> RunFolder | None:
    """Return the run folder whose recipe is the start with --resume, if there is one."""
    from reslearn.runs import RunFolder

    if not resume or out is None:
        return None
    folder = RunFolder(out)
    return folder if folder.exists() else None


def load_recipe(origin: str | RunFolder, overrides: list[str]) -> Recipe:
    """Return the recipe of a name, a file or a run folder, with `overrides` applied."""
    from reslearn import recipes

    if isinstance(origin, str):
        return recipes.load(origin, overrides=overrides)
    source = str(origin.path / "recipe.json")
    return recipes.from_dict(origin.recipe, source=source, overrides=overrides)


def check_resumable(out: Path | None) -> None:
    """Raise ValueError unless a run folder is given, as --resume without a recipe needs it."""
    from reslearn.runs import RunFolder

    if out is None:
        raise ValueError(
            "--resume needs a run folder, as in: reslearn train --resume --out runs/digits"
        )
    if not RunFolder(out).exists():
        raise ValueError(
            f"{out} holds nothing to resume: name the data to start with, as in: "
            f"reslearn train digits --resume --out {out}"
        )


def default_recipe(data: str | None) -> str:
    """Return the recipe for data without a recipe of the user."""
    return "digits" if data == "digits" else "cifar-paper"


def default_folder(recipe: Recipe, *, init: str | None) -> Path:
    """Name the run after its model, data and recipe.

    With `init` the network is known only once its weights are read, so they give the name.
    """
    from reslearn.recipes import recipe_hash

    network = recipe.model.name
    if init is not None:
        network = f"from-{Path(init.rpartition(':')[2]).stem}"
    return Path("runs") / f"{network}-{Path(recipe.data.name).name}-{recipe_hash(recipe.to_dict())}"


def epoch_values(
    epochs: float | None, *, origin: str | RunFolder, overrides: list[str]
) -> dict[str, str | None]:
    """Return the recipe values that `--epochs` sets.

    Milestones keep their fraction of the duration if both have the same unit.
    """
    import json

    from reslearn import recipes

    if epochs is None:
        return {}
    values: dict[str, str | None] = {"schedule.duration": json.dumps(f"{epochs:.10g} epochs")}
    schedule = load_recipe(origin, overrides).schedule
    if not isinstance(schedule, recipes.Stepwise):
        return values
    duration = schedule.duration
    if all(milestone.unit == duration.unit for milestone in schedule.milestones):
        milestones = []
        for milestone in schedule.milestones:
            milestones.append(f"{epochs * milestone.amount / duration.amount:.10g} epochs")
        values["schedule.milestones"] = json.dumps(milestones)
    return values


def quoted(text: str | None) -> str | None:
    """Write a text as in TOML, so that a folder called 2015 is not a number."""
    import json

    if text is None:
        return None
    # TOML wants the escape of DEL, which JSON does not write, and refuses surrogate pairs.
    return json.dumps(text, ensure_ascii=False).replace("\x7f", r"\u007f")
