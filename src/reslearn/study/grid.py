"""Grid of a study: models x seeds x overrides of one recipe, each a `Job` with its own folder.

The name of a folder consists of readable parts and the hash of the resolved recipe. A run of
another recipe therefore never uses the same folder, and a continued study finds its runs again.
"""

from __future__ import annotations

import itertools
import json
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from reslearn import recipes
from reslearn.recipes import Recipe
from reslearn.recipes.toml import quoted
from reslearn.runs import RunError, RunFolder

_ARGUMENT_OF_KEY = {"model.name": "models", "seed": "seeds", "data.name": "data"}


@dataclass(frozen=True, kw_only=True)
class Job:
    """One planned run.

    Attributes:
        name: Readable name.
        folder: Its run folder.
        arguments: Arguments of the command `reslearn` that trains it.
        recipe: The resolved recipe.
        cost: Estimated cost in any unit, the same for all jobs of a study.
        cores: Number of cores.
        gpus: Share of a GPU, 0 to 1.
    """

    name: str
    folder: Path
    arguments: tuple[str, ...]
    recipe: Recipe
    cost: float = 1.0
    cores: int = 1
    gpus: float = 0.0

    @property
    def is_complete(self) -> bool:
        """Whether the run has its result. Reads the folder at every access."""
        return RunFolder(self.folder).is_complete

    @property
    def divergence(self) -> str | None:
        """Why the run diverged, or None. Reads the folder at every access."""
        return RunFolder(self.folder).divergence

    @property
    def has_ended(self) -> bool:
        """Whether the run is not trained further: it has its result, or it diverged."""
        return self.is_complete or self.divergence is not None

    def check(self) -> None:
        """Check that the folder is empty or holds this run.

        Raises:
            RunError: If the folder holds a run of another recipe, copied or edited by hand.
        """
        run = RunFolder(self.folder)
        if run.exists() and (changes := recipes.difference(self.recipe.to_dict(), run.recipe)):
            changed = "; ".join(changes[:3])
            if len(changes) > 3:
                changed += f" and {len(changes) - 3} more"
            raise RunError(
                f"{run.path / 'recipe.json'} belongs to another run ({changed}): "
                "remove the folder to train this run again"
            )

    @property
    def command(self) -> str:
        """The shell command that trains this run alone."""
        return shlex.join(["reslearn", *self.arguments])


def grid(
    *,
    models: Sequence[str],
    seeds: Sequence[int],
    recipe: str,
    folder: Path | str,
    data: str | None = None,
    overrides: Sequence[Sequence[str]] = ((),),
    cost: Callable[[Recipe], float] | None = None,
    arguments: Sequence[str] = (),
) -> list[Job]:
    """Return a job for every combination of model, seed and set of overrides.

    Args:
        models: Names of models.
        seeds: Seeds of runs.
        recipe: Name of a recipe, or the path of a .toml file.
        folder: The folder of the study. Each job gets a subfolder.
        data: Name of the data set. Default: the data set of the recipe.
        overrides: Sets of overrides, such as ("optimizer.lr=0.2",).
        cost: Returns the cost of a resolved recipe. Engines start the most expensive runs first.
            By default all runs cost the same.
        arguments: Further arguments of `reslearn train` for all runs, which do not change the
            recipe.

    Raises:
        ValueError: If the grid is empty, or two of its runs are equal.
        RecipeError: If the recipe does not allow a combination.
    """
    for name, values in (("models", models), ("seeds", seeds), ("overrides", overrides)):
        if not values:
            raise ValueError(f"{name} is empty: a grid needs at least one")
    for override in itertools.chain(*overrides):
        if (key := override.partition("=")[0].strip()) in _ARGUMENT_OF_KEY:
            argument = _ARGUMENT_OF_KEY[key]
            raise ValueError(f"{override}: {key} is set by the argument {argument} of the grid")
    common = set(overrides[0]).intersection(*overrides)
    data_override = [] if data is None else [f"data.name={quoted(data)}"]
    jobs: dict[Path, Job] = {}
    for model, switches, seed in itertools.product(models, overrides, seeds):
        # In the order in which the command line applies them.
        grid_overrides = [*data_override, f"model.name={quoted(model)}", f"seed={seed}"]
        resolved = recipes.load(recipe, overrides=[*grid_overrides, *switches])
        name = _name(model, [switch for switch in switches if switch not in common], seed)
        job_folder = Path(folder) / f"{name}-{recipes.recipe_hash(resolved.to_dict())}"
        if job_folder in jobs:
            raise ValueError(
                f"{name} is in the grid twice: the same model, seed and settings give the same run"
            )
        jobs[job_folder] = Job(
            name=name,
            folder=job_folder,
            arguments=(*_train_arguments(resolved, recipe, switches, job_folder), *arguments),
            recipe=resolved,
            cost=1.0 if cost is None else cost(resolved),
            cores=resolved.resources.cores,
            gpus=resolved.resources.gpus,
        )
    return list(jobs.values())


def vary(axes: Mapping[str, Sequence[str | float | bool]]) -> list[tuple[str, ...]]:
    """Return the product of `axes` as sets of overrides for `grid`.

    {"optimizer.lr": [0.1, 0.2]} gives [("optimizer.lr=0.1",), ("optimizer.lr=0.2",)].
    """
    settings: list[list[str]] = []
    for key, values in axes.items():
        settings.append([f"{key}={json.dumps(value)}" for value in values])
    return list(itertools.product(*settings))


def _train_arguments(
    resolved: Recipe, recipe: str, switches: Sequence[str], folder: Path
) -> tuple[str, ...]:
    arguments = ["train", resolved.data.name, "--model", resolved.model.name]
    arguments += ["--recipe", recipe, "--seed", str(resolved.seed)]
    for switch in switches:
        arguments += ["--set", switch]
    arguments += ["--out", str(folder), "--resume", "--threads", str(resolved.resources.cores)]
    return tuple(arguments)


def _name(model: str, switches: Sequence[str], seed: int) -> str:
    """Return a readable name that is a safe folder name, for example plain20-lr0.1-seed3."""
    parts = [model]
    for switch in switches:
        key, _, value = switch.partition("=")
        parts.append(key.rpartition(".")[2] + value)
    parts.append(f"seed{seed}")
    return "-".join(re.sub(r"[^A-Za-z0-9._]+", "", part) for part in parts)
