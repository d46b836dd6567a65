"""A training that starts from weights (`--init`): what belongs to them comes along, and the network gets them before its first step.

Switches that decide what the weights compute (shortcut option, where a bottleneck strides, ...) override the recipe's, and so does the
preprocessing that they were trained with, where that is known. Either is said in one line and recorded.
"""

import hashlib
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from reslearn import data, models, recipes
from reslearn.interop import Identity, WeightsError, identify, load_weights, preprocess_with
from reslearn.interop.load import SWITCHES
from reslearn.models import Network
from reslearn.runs import RunError, RunFolder


@dataclass(frozen=True, kw_only=True)
class Start:
    """What a network started from. `record` goes into environment.json; preprocess is None where the weights come without one."""

    record: dict[str, Any]
    preprocess: data.Preprocess | None


def adopt(recipe: recipes.Recipe, folder: RunFolder) -> recipes.Recipe:
    """The recipe with the network that its weights are of, named as they say unless `model.name` was set by hand.

    A switch that was set by hand stands where the weights cannot tell. A run that has begun keeps what it began with.
    Raises WeightsError where the network that was named is another one.
    """
    if recipe.init is None:
        return recipe
    if folder.exists() and folder.recipe.get("init") == recipe.init.model_dump(mode="json"):
        own = folder.recipe["model"]
        return _with_model(recipe, {key: own[key] for key in ("name", *SWITCHES) if key in own})
    identity = _look_at(recipe)
    named = "model.name" in _set_by_hand(recipe)
    if named and recipe.model.name != identity.spec["name"] and not recipe.init.partial:
        raise WeightsError(
            f"{recipe.init.source} holds weights of {identity.spec['name']}, not of {recipe.model.name}: leave --model out, or --partial"
        )
    given = recipe.model.model_dump()
    usual = _switches_of(recipe.model.name if named else identity.spec["name"])
    # What the name stands for anyhow stays unsaid, so that this recipe differs from one without weights only where it does.
    taken = {
        key: identity.spec[key]
        for key in SWITCHES
        if given[key] is not None or identity.spec[key] != usual[key]
    }
    changed = {key: value for key, value in taken.items() if given[key] not in (None, value)}
    if not named:
        taken["name"] = identity.spec["name"]
    if changed:
        told = ", ".join(f"model.{key} = {value!r}" for key, value in changed.items())
        warnings.warn(
            f"{recipe.init.source}: {told} belongs to the weights and overrides the recipe",
            stacklevel=2,
        )
    return _with_model(recipe, taken)


def begin_from(
    recipe: recipes.Recipe,
    model: Network,
    dataset: data.ImageData,
    record: dict[str, Any] | None,
    *,
    has_checkpoint: bool,
) -> Start | None:
    """Load the recipe's weights into `model`; None where it has none. With the `record` of a run that began, they must be the same file.

    A run with a checkpoint needs the file no more, and it may be gone: weights are in the checkpoint, the preprocessing is in the record.
    Raises WeightsError, DataError, and RunError where the file is another one by now, or gone while it is still needed.
    """
    if recipe.init is None:
        return None
    if record is not None and has_checkpoint:
        return _as_begun(record)
    try:
        identity = _look_at(recipe)
    except (WeightsError, data.DataError) as error:
        if record is None:
            raise
        raise RunError(
            f"{error}; the run that began with it has no checkpoint yet: put it back, or start anew in another folder"
        ) from None
    loaded = load_weights(model, identity, partial=recipe.init.partial)
    ill = next(
        (
            name
            for name, one in model.state_dict().items()
            if one.is_floating_point() and not torch.isfinite(one).all()
        ),
        None,
    )
    if ill is not None:
        raise WeightsError(
            f"{recipe.init.source}: not a finite number in what {ill} is made of; nothing can be trained from it"
        )
    with Path(identity.checkpoint.path).open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    began_with = (record or {}).get("init", {}).get("sha256", sha256)
    if began_with != sha256:
        raise RunError(
            f"{recipe.init.source} is another file than the run began with: sha256 {sha256[:12]}, then {began_with[:12]}"
        )
    own = preprocess_with(
        identity, size_px=dataset.size_px, channels=dataset.channels, source=recipe.init.source
    )
    if own is not None and record is None:
        warnings.warn(
            f"{recipe.init.source}: its preprocessing overrides data.mean, data.std and data.padding",
            stacklevel=2,
        )
    if loaded.fresh and record is None:
        warnings.warn(loaded.line(), stacklevel=2)
    told = {
        "source": recipe.init.source,
        "sha256": sha256,
        "dialect": identity.dialect.name,
        "fresh": list(loaded.fresh),
        "adapted": list(loaded.adapted),
        "unused": list(loaded.unused),
        "notes": list(identity.notes),
        "preprocess": None if own is None else own.to_json(),
    }
    return Start(record=told, preprocess=own)


def _as_begun(record: dict[str, Any]) -> Start:
    try:
        own = record["init"]["preprocess"]
    except KeyError as error:
        raise RunError(
            f"environment.json lacks {error} of a run that started from weights: start anew in another folder"
        ) from None
    return Start(
        record=record["init"], preprocess=None if own is None else data.Preprocess.from_json(own)
    )


def _look_at(recipe: recipes.Recipe) -> Identity:
    assert recipe.init is not None
    identity = identify(recipe.init.source, entry=recipe.init.entry)
    by_hand = _set_by_hand(recipe)
    return identity.with_switches(
        **{
            key: getattr(recipe.model, key)
            for key in identity.undetermined
            if f"model.{key}" in by_hand
        }
    )


def _set_by_hand(recipe: recipes.Recipe) -> set[str]:
    return {text.partition("=")[0].strip() for text in recipe.overrides}


def _switches_of(name: str) -> dict[str, Any]:
    """What a name of the catalogue stands for."""
    with torch.device("meta"):
        return models.build(name, num_classes=2).spec


def _with_model(recipe: recipes.Recipe, values: dict[str, Any]) -> recipes.Recipe:
    return recipe.model_copy(update={"model": recipe.model.model_copy(update=values)})
