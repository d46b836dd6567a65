"""Choose a complete recipe for a folder of photos and a number of minutes.

`plan_photos` counts the photos, measures this machine for a few seconds, finds weights to start
from, and applies the rule of budget.py. The choices are overrides of the recipe `photos`, so the
run folder holds a complete recipe that can be resumed and repeated anywhere.
"""

import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from reslearn import data, models, recipes
from reslearn.interop import identify
from reslearn.recipes.toml import quoted
from reslearn.train.budget import (
    ENLARGED,
    FEW_PHOTOS,
    LADDER,
    Candidate,
    Choice,
    Photos,
    affordable_epochs,
    choose,
)
from reslearn.train.images import load_images
from reslearn.train.numerics import choose_device
from reslearn.train.probe import measure, read_seconds
from reslearn.train.setup import Machine
from reslearn.train.starting_weights import StartingWeights, find_weights

_PROBE_SHARE, _PROBE_SECONDS = 0.05, 20.0
"""The measurement takes this part of the time, and at most this number of seconds."""
_SIZES = {"cifar": (32, 64), "imagenet": (64, 96, 128, 160, 224), "deep": (64, 96, 128, 160, 224)}
_VALIDATION_SHARE = 10
_MAX_VALIDATION = 2_000


@dataclass(frozen=True, kw_only=True)
class PhotoPlan:
    """What was chosen for a folder of photos.

    Attributes:
        overrides: Of the recipe `photos`, such as "model.name=resnet18".
        machine: The machine, with the number of threads that were the fastest.
        lines: Five lines that say what was chosen and why.
    """

    overrides: tuple[str, ...]
    machine: Machine
    lines: tuple[str, ...]


def plan_photos(
    recipe: recipes.Recipe, machine: Machine, *, minutes: float, end_at: float
) -> PhotoPlan:
    """Choose network, size, epochs, batch size, learning rate and weights for a folder.

    Args:
        recipe: The recipe `photos` with the user's overrides. A model, a size of the images or
            weights that are set there stay.
        minutes: Time for the whole command, as given by the user.
        end_at: The moment of time.monotonic() at which the run must be over.

    Raises:
        DataError: If the folder holds no photos of two classes.
        TooShortError: If the time is too short to load and evaluate the photos.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the training loads the photos again, and warns once
        dataset = data.load(recipe.data.name, data_dir=machine.data_dir, stream=True)
    if not isinstance(dataset.train, data.Files):
        raise data.DataError(
            f"{recipe.data.name} is no folder of image files: name a recipe, as in "
            "--recipe cifar-fast"
        )
    set_by_user = {override.partition("=")[0].strip() for override in recipe.overrides}
    weights = _weights(recipe, set_by_user, minutes)
    candidates = _candidates(recipe, set_by_user, weights)
    photos = _count(dataset, recipe, candidates[0].size_px)
    speed = measure(
        recipe,
        candidates,
        machine,
        num_classes=photos.num_classes,
        seconds=min(_PROBE_SHARE * 60 * minutes, _PROBE_SECONDS),
    )
    seconds = end_at - time.monotonic()
    choice = choose(
        photos,
        speed.seconds_per_image,
        weights.sources,
        seconds=seconds,
        used_seconds=60 * minutes - seconds,
        on_gpu=choose_device(machine.device) != "cpu",
    )
    return PhotoPlan(
        overrides=tuple(_overrides(choice, photos, dataset, recipe)),
        machine=replace(machine, threads=speed.threads),
        lines=_lines(choice, photos, weights, minutes, speed.threads),
    )


def epochs_for_minutes(recipe: recipes.Recipe, machine: Machine, *, end_at: float) -> float:
    """Return the epochs of any recipe that this machine trains until `end_at`.

    Args:
        end_at: A moment of time.monotonic().

    Raises:
        TooShortError: If the time is too short to load and evaluate the images.
    """
    began_at = time.monotonic()
    dataset = load_images(recipe, data_dir=machine.data_dir, download=machine.download)
    photos = Photos(
        num_classes=len(dataset.classes),
        num_train=len(dataset.train),
        num_validation=len(dataset.validation or ()),
        num_test=len(dataset.test),
        read_seconds=0.0,
    )
    photos = replace(photos, read_seconds=(time.monotonic() - began_at) / photos.num_all)
    candidate = Candidate(model=recipe.model.name, size_px=dataset.size_px)
    speed = measure(
        recipe,
        (candidate,),
        replace(machine, threads=machine.threads or torch.get_num_threads()),
        num_classes=photos.num_classes,
        channels=dataset.channels,
        seconds=_PROBE_SHARE * (end_at - began_at),
    )
    closing_images = photos.num_all + photos.num_validation
    closing_images += 2 * min(recipe.evaluation.recompute_images, photos.num_train)
    return affordable_epochs(
        photos,
        speed.seconds_per_image[candidate],
        seconds=end_at - time.monotonic(),
        closing_images=closing_images,
        used_seconds=time.monotonic() - began_at,
    )


def _weights(recipe: recipes.Recipe, set_by_user: set[str], minutes: float) -> StartingWeights:
    """Return the user's weights, or the best that are available."""
    if recipe.init is None and "init" in set_by_user:
        return StartingWeights(sources={}, reason="you asked for new ones")
    if recipe.init is None:
        return find_weights(minutes)
    identity = identify(recipe.init.source, entry=recipe.init.entry)
    name = identity.spec["name"]
    return StartingWeights(sources={name: recipe.init.source}, reason="you named them")


def _candidates(
    recipe: recipes.Recipe, set_by_user: set[str], weights: StartingWeights
) -> tuple[Candidate, ...]:
    """Return the candidates that keep what the user has set."""
    name = recipe.model.name if "model.name" in set_by_user else None
    if recipe.init is not None:
        (name,) = weights.sources
    candidates: Sequence[Candidate] = LADDER
    if ENLARGED.model in weights.sources:
        candidates = (LADDER[0], ENLARGED, *LADDER[1:])
    if name is not None:
        with torch.device("meta"):
            stem = models.build(name, num_classes=2).spec["stem"]
        candidates = [Candidate(model=name, size_px=size) for size in _SIZES[stem]]
    if "data.size_px" in set_by_user and recipe.data.size_px is not None:
        size = recipe.data.size_px
        names = dict.fromkeys(candidate.model for candidate in candidates)
        candidates = [Candidate(model=model, size_px=size) for model in names]
    return tuple(candidates)


def _count(dataset: data.ImageData, recipe: recipes.Recipe, size_px: int) -> Photos:
    """Count the photos as the recipe will divide them, and time the reading of some."""
    assert isinstance(dataset.train, data.Files)
    num_train, num_validation = len(dataset.train), len(dataset.validation or ())
    if dataset.validation is None:
        num_validation = recipe.data.validation_images or _held_out(num_train)
        num_train -= num_validation
    return Photos(
        num_classes=len(dataset.classes),
        num_train=min(num_train, recipe.data.train_images or num_train),
        num_validation=num_validation,
        num_test=len(dataset.test),
        read_seconds=read_seconds(dataset.train, size_px=size_px),
    )


def _held_out(num_train: int) -> int:
    return min(num_train // _VALIDATION_SHARE, _MAX_VALIDATION)


def _overrides(
    choice: Choice, photos: Photos, dataset: data.ImageData, recipe: recipes.Recipe
) -> list[str]:
    """Return the choices as overrides of the recipe."""
    overrides = [
        f"model.name={choice.candidate.model}",
        f"data.size_px={choice.candidate.size_px}",
        f'schedule.duration="{choice.epochs:g} epochs"',
        f"train.batch_size={choice.batch_size}",
        f"train.ema={choice.ema}",
        f"optimizer.lr={choice.lr:g}",
        f'evaluation.every="{choice.evaluate_every_epochs} epochs"',
        f"evaluation.train_images={choice.train_images_evaluated}",
    ]
    if dataset.validation is None and photos.num_validation:
        overrides.append(f"data.validation_images={photos.num_validation}")
    if choice.weights is not None and recipe.init is None:
        overrides.append(f"init.source={quoted(choice.weights)}")
        shortcut = identify(choice.weights).spec["shortcut"]
        overrides.append(f"model.shortcut={shortcut}")
    return overrides


def _lines(
    choice: Choice, photos: Photos, weights: StartingWeights, minutes: float, threads: int
) -> tuple[str, ...]:
    """Return five lines that say what was chosen, and why."""
    candidate = choice.candidate
    cores = "one thread" if threads == 1 else f"{threads} threads"
    why = "the largest that sees each photo often enough in this time"
    if choice.weights is not None and photos.num_train < FEW_PHOTOS:
        why = "the largest with weights that sees each photo often enough in this time"
    if not choice.is_enough:
        why = "the smallest; more minutes allow a better network"
    source = f"new, since {weights.reason}" if choice.weights is None else choice.weights
    if choice.weights is not None and choice.weights.startswith("torchvision:"):
        source += f": {weights.reason}"
    return (
        f"photos    {photos.num_train:,} for training, {photos.num_validation:,} for validation, "
        f"{photos.num_test:,} for one test at the end; {photos.num_classes} classes",
        f"network   {candidate.model} at {candidate.size_px} px, {why}: "
        f"{choice.images_per_second:,.0f} photos a second here, with {cores}",
        f"weights   {source}",
        f"schedule  {choice.epochs:g} epochs in batches of {choice.batch_size}, learning rate "
        f"{choice.lr:g}, rising at first, then falling to zero",
        f"time      {minutes:g} min: {choice.load_seconds:.0f} s to load, "
        f"{choice.train_seconds / 60:.1f} min to train, {choice.close_seconds:.0f} s to "
        "evaluate",
    )
