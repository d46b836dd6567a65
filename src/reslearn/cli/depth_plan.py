"""Plan a depth study: the ladder, the validation images, and the epochs for its minutes."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from reslearn.recipes import Recipe
    from reslearn.study import Job

_VALIDATION_SHARE = 0.1
_RECORD = "depth.json"
_PHOTO_MINUTES = 60.0
_NUM_RUNGS = 6
"""Networks of an automatic ladder, at most."""
_PROBE_SECONDS = 60.0
_PART_FOR_TRAINING = 0.75
"""Part of the time for training. The rest is for loading, evaluation, and waiting runs."""
_NOT_SHARED = ("model.name", "model.shortcut", "init.source", "schedule.duration")
"""Values that `photos` chooses for one network. They are not shared by the ladder."""
_NAME_KEY = "model.name="
_SMALL_NETWORK = "resnet20"
"""Its family has a CIFAR stem, so it is the ladder for small photos."""


@dataclass(frozen=True, kw_only=True)
class DepthRequest:
    """The options of the command.

    Attributes:
        depth: "auto", or numbers of layers, separated by commas.
        recipe: Name or file of the recipe. None: the recipe for these data.
        minutes: Time for the whole study. None: the duration of the recipe.
        jobs: Number of runs that train at the same time. None: one per core.
    """

    data: str
    depth: str
    seeds: int
    recipe: str | None
    minutes: float | None
    margin_pct: float
    overrides: tuple[str, ...]
    data_dir: Path | None
    jobs: int | None


@dataclass(frozen=True, kw_only=True)
class DepthPlan:
    """The plan of a depth study. depth.json records it, so a continued study repeats it.

    Attributes:
        models: The ladder, from shallow to deep.
        recipe: Name or file of the recipe.
        data: Name or folder of the data.
        overrides: Values of the recipe that are set for all runs.
        seeds: Number of seeds.
        margin_pct: The smallest difference that matters, in points of validation error.
        validation_images: Number of validation images.
        size_px: Side of the images.
        minutes: Time for the whole study; None: no limit.
    """

    models: tuple[str, ...]
    recipe: str
    data: str
    overrides: tuple[str, ...]
    seeds: int
    margin_pct: float
    validation_images: int
    size_px: int
    minutes: float | None = None

    def text(self) -> str:
        """Return the plan as one line of text."""
        settings = ", ".join(self.overrides)
        return (
            f"{', '.join(self.models)} on {self.data} by {self.recipe} ({settings}): "
            f"up to {self.seeds} seeds each, {self.validation_images} validation images"
        )

    def jobs(self, models: Sequence[str], seed: int, out: Path, arguments: list[str]) -> list[Job]:
        """Return the runs of one seed."""
        from reslearn.study import grid, training_macs

        return grid(
            models=models,
            seeds=[seed],
            recipe=self.recipe,
            folder=out,
            data=self.data,
            overrides=[self.overrides],
            cost=training_macs,
            arguments=arguments,
        )


def make_plan(request: DepthRequest) -> DepthPlan:
    """Choose the ladder, the validation images and the epochs.

    Raises:
        ValueError: If the depths or the recipe are wrong, or the minutes are too short.
        DataError: If the data cannot be used.
    """
    from reslearn import recipes
    from reslearn.cli.train_recipe import PHOTOS, default_recipe, sets_duration
    from reslearn.recipes.toml import quoted
    from reslearn.study.depth import ladder
    from reslearn.survey.advice import SMALL_INPUT_PX
    from reslearn.train.images import load_images

    data = request.data
    recipe = request.recipe or default_recipe(data, request.data_dir)
    if request.recipe is None and recipe == "cifar-paper":
        recipe = "cifar-short"  # 64,000 steps per run are too long as a default
    overrides = list(request.overrides)
    data_override = f"data.name={quoted(data)}"
    minutes = request.minutes
    if recipe == PHOTOS and minutes is None and not sets_duration(overrides):
        minutes = _PHOTO_MINUTES
    base = recipes.load(recipe, overrides=[data_override, *overrides])
    model = base.model.name
    is_named = any(text.startswith(_NAME_KEY) for text in overrides)
    if recipe == PHOTOS and minutes is not None:
        chosen, settings = _photo_settings(base, request, minutes)
        model = model if is_named else chosen
        overrides = [*settings, *overrides]
        base = recipes.load(recipe, overrides=[data_override, *overrides])
    elif recipe == PHOTOS and not is_named and (base.data.size_px or 224) <= SMALL_INPUT_PX:
        model = _SMALL_NETWORK
    models = ladder(model, _depths(request.depth))
    overrides = [text for text in overrides if not text.startswith(_NAME_KEY)]
    dataset = load_images(base, data_dir=request.data_dir, download=False)
    num_validation, num_train = len(dataset.validation or ()), len(dataset.train)
    if not num_validation:
        num_validation = max(1, round(_VALIDATION_SHARE * num_train))
        num_train -= num_validation
        overrides.append(f"data.validation_images={num_validation}")
    if minutes is not None:
        seconds_per_image = _seconds_per_image(base, models, dataset.size_px, dataset.channels)
        seconds = _PART_FOR_TRAINING * 60 * minutes * _num_parallel(request) / request.seeds
        epochs = seconds / seconds_per_image / num_train
        overrides.append(f'schedule.duration="{epochs:.3g} epochs"')
    return DepthPlan(
        models=models,
        recipe=recipe,
        data=data,
        overrides=tuple(overrides),
        seeds=request.seeds,
        margin_pct=request.margin_pct,
        validation_images=num_validation,
        size_px=dataset.size_px,
        minutes=minutes,
    )


def _photo_settings(base: Recipe, request: DepthRequest, minutes: float) -> tuple[str, list[str]]:
    """Return a network of the ladder's family, and the settings that all networks share."""
    from reslearn.train import Machine
    from reslearn.train.budget import TooShortError
    from reslearn.train.photo_plan import plan_photos

    num_runs = request.seeds * _NUM_RUNGS
    minutes_per_run = minutes * _num_parallel(request) / num_runs
    machine = Machine(threads=1, data_dir=request.data_dir)
    end_at = time.monotonic() + 60 * minutes_per_run
    try:
        chosen = plan_photos(base, machine, minutes=minutes_per_run, end_at=end_at)
    except TooShortError as error:
        raise ValueError(
            f"--minutes {minutes:g} for {num_runs} runs leaves {minutes_per_run:.2g} minutes for "
            f"each: {error} for each run, or reduce --seeds"
        ) from None
    values = dict(override.split("=", 1) for override in chosen.overrides)
    shared = [f"{key}={value}" for key, value in values.items() if key not in _NOT_SHARED]
    return values["model.name"], shared


def _num_parallel(request: DepthRequest) -> int:
    from reslearn.study import available_cores

    return request.jobs or available_cores()


def _seconds_per_image(base: Recipe, models: Sequence[str], size_px: int, channels: int) -> float:
    """Return the time that one image takes in all networks together, on one thread."""
    from reslearn.train import Machine
    from reslearn.train.budget import Candidate
    from reslearn.train.probe import measure

    candidates = tuple(Candidate(model=model, size_px=size_px) for model in models)
    speed = measure(
        base,
        candidates,
        Machine(threads=1),
        num_classes=base.model.num_classes or 10,
        channels=channels,
        seconds=_PROBE_SECONDS,
    )
    return sum(speed.seconds_per_image.values())


def _depths(text: str) -> list[int] | None:
    if text == "auto":
        return None
    try:
        return [int(number) for number in text.split(",")]
    except ValueError:
        raise ValueError(f"--depth {text}: give auto or numbers of layers, as in 8,20,56") from None


def recorded_plan(out: Path) -> DepthPlan | None:
    """Return the plan of a study that has begun in `out`, or None.

    Raises:
        ValueError: If the record is damaged. The message names it.
    """
    path = out / _RECORD
    if not path.exists():
        return None
    try:
        values = json.loads(path.read_text(encoding="utf-8"))["plan"]
        for key in ("models", "overrides"):
            values[key] = tuple(values[key])
        return DepthPlan(**values)
    except (ValueError, KeyError, TypeError):
        raise ValueError(
            f"{path} is damaged: choose another --out, or delete the file to plan anew"
        ) from None


def write_record(out: Path, plan: DepthPlan, **content: Any) -> None:
    """Write depth.json: the plan, and at the end the numbers and the verdict."""
    from reslearn.runs import make_folder, write_atomically

    make_folder(out)
    text = json.dumps({"plan": asdict(plan), **content}, indent=2) + "\n"
    write_atomically(out / _RECORD, lambda file: file.write(text.encode()))
