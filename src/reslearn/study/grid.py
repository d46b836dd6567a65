"""What a study runs: models x seeds x switches of one recipe, each a `Job` with its own folder and command line.

A folder is named by what a reader wants to know and by the hash of the resolved recipe, so that a run of another recipe never lands
in it, and a study started again finds exactly the runs that it left.
"""

import itertools
import json
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from reslearn import recipes
from reslearn.recipes import Recipe
from reslearn.runs import RunError, RunFolder

_OWN = {"model.name": "models", "seed": "seeds", "data.name": "data"}


@dataclass(frozen=True, kw_only=True)
class Job:
    """One run to be: where it goes, the arguments of `reslearn` that make it, what it costs (any one unit), cores and GPU share it uses."""

    name: str
    folder: Path
    arguments: tuple[str, ...]
    recipe: Recipe
    cost: float = 1.0
    cores: int = 1
    gpus: float = 0.0

    @property
    def is_complete(self) -> bool:
        """Whether the run ended; asks the folder, every time."""
        return RunFolder(self.folder).is_complete

    def check(self) -> None:
        """RunError where the folder holds a run of another recipe than this one's: copied there, or changed by hand."""
        run = RunFolder(self.folder)
        if run.exists() and (changed := recipes.difference(self.recipe.to_dict(), run.recipe)):
            told = "; ".join(changed[:3]) + f" and {len(changed) - 3} more" * (len(changed) > 3)
            raise RunError(
                f"{run.path / 'recipe.json'} is of another run ({told}): remove the folder, and it is trained anew"
            )

    @property
    def command(self) -> str:
        """The command that makes this run alone, for a shell."""
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
    cores: int | None = None,
    arguments: Sequence[str] = (),
) -> list[Job]:
    """Every model with every seed and every set of overrides, as jobs below `folder`.

    `recipe` is a name or a file, `data` replaces the recipe's. `cost` gives the cost of a resolved recipe (all equal without it):
    runs are started longest first. `cores` a run default to the recipe's resources. `arguments` are further ones of `reslearn train`,
    the same for all, that do not change the recipe.
    Raises ValueError for an empty grid and for runs that are the same; RecipeError for what the recipe does not allow.
    """
    for name, given in (("models", models), ("seeds", seeds), ("overrides", overrides)):
        if not given:
            raise ValueError(f"{name} is empty: a grid needs at least one")
    if cores is not None and cores < 1:
        raise ValueError(f"cores = {cores}: at least 1 is needed")
    for switch in itertools.chain(*overrides):
        if (key := switch.partition("=")[0].strip()) in _OWN:
            raise ValueError(f"{switch}: {key} is given by the grid's {_OWN[key]}")
    common = set(overrides[0]).intersection(*overrides)
    jobs: dict[Path, Job] = {}
    for model, switches, seed in itertools.product(models, overrides, seeds):
        chosen = [] if data is None else [f"data.name={json.dumps(data)}"]
        # In the order in which the command line applies them.
        resolved = recipes.load(
            recipe,
            overrides=[*chosen, f"model.name={json.dumps(model)}", f"seed={seed}", *switches],
        )
        name = _name(model, [switch for switch in switches if switch not in common], seed)
        place = Path(folder) / f"{name}-{recipes.recipe_hash(resolved.to_dict())}"
        if place in jobs:
            raise ValueError(
                f"{name} is in the grid twice: the same model, seed and settings give the same run"
            )
        jobs[place] = Job(
            name=name,
            folder=place,
            arguments=(
                *_arguments(resolved, recipe, switches, place, cores or resolved.resources.cores),
                *arguments,
            ),
            recipe=resolved,
            cost=1.0 if cost is None else cost(resolved),
            cores=cores or resolved.resources.cores,
            gpus=resolved.resources.gpus,
        )
    return list(jobs.values())


def vary(axes: Mapping[str, Sequence[str | float | bool]]) -> list[tuple[str, ...]]:
    """Sets of overrides for `grid`: the product of the axes. {"optimizer.lr": [0.1, 0.2]} -> [("optimizer.lr=0.1",), ...]."""
    return list(
        itertools.product(
            *([f"{key}={json.dumps(value)}" for value in values] for key, values in axes.items())
        )
    )


def _arguments(
    resolved: Recipe, recipe: str, switches: Sequence[str], folder: Path, cores: int
) -> tuple[str, ...]:
    sets = [part for switch in switches for part in ("--set", switch)]
    return (
        "train",
        resolved.data.name,
        "--model",
        resolved.model.name,
        "--recipe",
        recipe,
        "--seed",
        str(resolved.seed),
        *sets,
        "--out",
        str(folder),
        "--resume",
        "--threads",
        str(cores),
    )


def _name(model: str, switches: Sequence[str], seed: int) -> str:
    """plain20-lr0.1-seed3: readable, and safe as the name of a folder."""
    parts = [
        model,
        *(
            switch.partition("=")[0].rpartition(".")[2] + switch.partition("=")[2]
            for switch in switches
        ),
        f"seed{seed}",
    ]
    return "-".join(re.sub(r"[^A-Za-z0-9._]+", "", part) for part in parts)
