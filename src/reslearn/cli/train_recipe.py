"""From the options of `reslearn train` to its recipe and to the name of its run folder."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from reslearn.recipes import Recipe
    from reslearn.runs import RunFolder
    from reslearn.train import Machine

PHOTOS = "photos"
DEFAULT_MINUTES = 30.0
_MAX_MINUTES = 1e7


def overrides_of(values: dict[str, Any]) -> list[str]:
    """Return the values that are set as overrides of a recipe."""
    return [f"{key}={value}" for key, value in values.items() if value is not None]


def all_overrides(
    values: dict[str, Any], set_: list[str], *, epochs: float | None, origin: str | RunFolder
) -> list[str]:
    """Return the overrides of all options: of `values`, of --epochs and of --set, in this order."""
    overrides = overrides_of(values)
    # The schedule is that of the whole command line, and --set has the last word.
    schedule_values = epoch_values(epochs, origin=origin, overrides=[*overrides, *set_])
    return [*overrides, *overrides_of(schedule_values), *set_]


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


def default_recipe(data: str | None, data_dir: Path | None) -> str:
    """Return the name of the recipe that the data get if the user names none."""
    from reslearn.data import is_image_folder

    if data == "digits":
        return "digits"
    return PHOTOS if data is not None and is_image_folder(data, data_dir) else "cifar-paper"


def check_duration(minutes: float | None, epochs: float | None, set_: list[str]) -> None:
    """Raise ValueError if epochs or minutes are not above 0, or contradict each other."""
    if epochs is not None and not 0 < epochs < float("inf"):
        raise ValueError(f"--epochs {epochs:g}: a number above 0 is needed")
    if minutes is None:
        return
    if not 0 < minutes <= _MAX_MINUTES:
        raise ValueError(f"--minutes {minutes:g}: a number above 0 is needed, at most 10,000,000")
    if epochs is not None or sets_duration(set_):
        raise ValueError(
            "--minutes chooses the duration: give it alone, or give --epochs or schedule.duration"
        )


def minutes_of(
    minutes: float | None, origin: str | RunFolder, overrides: list[str], *, dry_run: bool
) -> float | None:
    """Return the time limit of a run in minutes: 30 for photos without a given duration.

    Raises:
        ValueError: If --minutes or --dry-run is combined with several processes.
    """
    from reslearn.train.distributed import is_distributed

    if is_distributed():
        if dry_run or minutes is not None:
            option = "--dry-run" if dry_run else "--minutes"
            raise ValueError(f"{option} plans for one process: run it without torchrun")
        return None
    if minutes is None and origin == PHOTOS and not sets_duration(overrides):
        return DEFAULT_MINUTES
    return minutes


def sets_duration(overrides: Iterable[str]) -> bool:
    """Return whether an override sets the length of the training."""
    return any(override.partition("=")[0].strip() == "schedule.duration" for override in overrides)


def fit_to_minutes(
    origin: str, overrides: list[str], machine: Machine, minutes: float, began_at: float
) -> tuple[Recipe, Machine]:
    """Return a recipe that ends in time, and the machine with its number of threads.

    Args:
        origin: For the recipe `photos` everything is chosen, for other recipes only the epochs.
        overrides: Values that the user has set. They are kept.
        machine: Where to train. Its speed is measured.
        minutes: Time for the whole command.
        began_at: The moment of time.monotonic() at which the minutes began.
    """
    import sys

    from reslearn.terminal import print_lines
    from reslearn.train.photo_plan import epochs_for_minutes, plan_photos

    recipe, end_at = load_recipe(origin, overrides), began_at + 60 * minutes
    if origin == PHOTOS:
        chosen = plan_photos(recipe, machine, minutes=minutes, end_at=end_at)
        print_lines(*chosen.lines, file=sys.stderr)
        return load_recipe(origin, [*chosen.overrides, *overrides]), chosen.machine
    epochs = epochs_for_minutes(recipe, machine, end_at=end_at)
    values = epoch_values(epochs, origin=origin, overrides=overrides)
    print_lines(f"{minutes:g} minutes allow {epochs:.5g} epochs here", file=sys.stderr)
    return load_recipe(origin, [*overrides, *overrides_of(values)]), machine


def check_unused(out: Path | None, *, resume: bool) -> None:
    """Raise ValueError if the folder of a new run holds a run, before anything is measured."""
    from reslearn.runs import RunFolder

    if out is not None and not resume and RunFolder(out).exists():
        raise ValueError(
            f"{out} holds a run already: add --resume to continue it, or choose another --out"
        )


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


def init_values(
    init: str | None,
    entry: str | None,
    *,
    partial: bool,
    set_: list[str],
    origin: str | RunFolder,
) -> dict[str, str | None]:
    """Return the options of the weights to start from as values of a recipe.

    Raises:
        ValueError: If --entry or --partial is given without weights to start from.
    """
    has_source = init not in (None, "none") or any(each.startswith("init") for each in set_)
    if (entry is not None or partial) and not has_source and load_recipe(origin, []).init is None:
        option = "--partial" if entry is None else f"--entry {entry}"
        raise ValueError(
            f"{option} needs weights to start from: name them too, as in --init checkpoint.pth"
        )
    return {
        "init" if init == "none" else "init.source": quoted(init),
        "init.entry": quoted(entry),
        "init.partial": "true" if partial else None,
    }


def quoted(text: str | None) -> str | None:
    """Write the text of an option as in TOML. An option that is not given stays None."""
    from reslearn.recipes import toml

    return None if text is None else toml.quoted(text)
