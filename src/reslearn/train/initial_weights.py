"""Start a training from given weights (`--init`).

Switches that decide what the weights compute (shortcut option, position of the stride and others)
override the recipe. So does the preprocessing of the weights, if it is known, or if it can be
guessed and the user sets none. environment.json records both. A warning says where they override
what the user has set, where the preprocessing is a guess, and where more than the output layer is
new.
"""

import hashlib
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from reslearn import data, models, recipes
from reslearn.interop import (
    Identity,
    LoadReport,
    WeightsError,
    identify,
    load_weights,
    preprocess_origin,
    preprocess_with,
)
from reslearn.interop.load import KNOWN_ORIGINS, OUTPUT_SWITCHES, PreprocessOrigin
from reslearn.models import Network
from reslearn.runs import RunError, RunFolder

_PREPROCESS_KEYS = frozenset(("data.mean", "data.std", "data.padding"))
_OUTPUT_LAYER = frozenset(("head.fc.weight", "head.fc.bias"))


@dataclass(frozen=True, kw_only=True)
class InitialWeights:
    """What a network started from.

    Attributes:
        record: The value of "init" in environment.json.
        preprocess: The preprocessing of the weights; None if it is unknown.
    """

    record: dict[str, Any]
    preprocess: data.Preprocess | None

    def note(self) -> str:
        """Return one line if the output layer is new, else an empty text."""
        is_new = not _OUTPUT_LAYER.isdisjoint(self.record["fresh"])
        return f"a new output layer on the weights of {self.record['source']}" if is_new else ""


def adopt_weights_spec(recipe: recipes.Recipe, folder: RunFolder) -> recipes.Recipe:
    """Return the recipe with the network and the switches of its initial weights.

    The user's `model.name` and the user's switches stay where the weights do not determine them. A
    run that has begun keeps its own.

    Raises:
        WeightsError: If the weights belong to another network than the user named.
    """
    assert recipe.init is not None
    if folder.exists() and _recorded_init(folder) == recipe.init:
        recorded = folder.recipe["model"]
        keys = [key for key in ("name", *OUTPUT_SWITCHES) if key in recorded]
        return _with_model(recipe, {key: recorded[key] for key in keys})
    spec = _identify(recipe).spec
    has_name = "model.name" in _set_by_user(recipe)
    if has_name and recipe.model.name != spec["name"] and not recipe.init.partial:
        raise WeightsError(
            f"{recipe.init.source} holds weights of {spec['name']}, not of {recipe.model.name}: "
            "remove --model, or add --partial"
        )
    requested = recipe.model.model_dump()
    defaults = _switches_of(recipe.model.name if has_name else spec["name"])
    adopted: dict[str, Any] = {}
    overridden = []
    for key in OUTPUT_SWITCHES:
        # Defaults stay unset, so that the recipe differs from one without weights only in effects.
        if requested[key] is None and spec[key] == defaults[key]:
            continue
        adopted[key] = spec[key]
        if requested[key] not in (None, spec[key]):
            overridden.append(f"model.{key} = {spec[key]!r}")
    if not has_name:
        adopted["name"] = spec["name"]
    if overridden:
        warnings.warn(
            f"{recipe.init.source}: {', '.join(overridden)} belongs to the weights and overrides "
            "the recipe",
            stacklevel=2,
        )
    return _with_model(recipe, adopted)


def _recorded_init(folder: RunFolder) -> recipes.Init | None:
    """Return the weights that a run began with. Runs of earlier versions have fewer keys."""
    recorded = folder.recipe.get("init")
    return None if recorded is None else recipes.Init.model_validate(recorded)


def load_initial_weights(
    recipe: recipes.Recipe,
    model: Network,
    dataset: data.ImageData,
    environment: dict[str, Any] | None,
    *,
    has_checkpoint: bool,
) -> InitialWeights:
    """Load the recipe's initial weights into `model`.

    A run with a checkpoint does not need the file, which may be gone: the checkpoint holds the
    weights and environment.json holds the preprocessing.

    Args:
        recipe: Names the source of the weights.
        model: Changed in place.
        dataset: Gives size and channels of the images.
        environment: environment.json of a run that has begun. Its weights must be the same file.
        has_checkpoint: Whether that run has a checkpoint.

    Raises:
        WeightsError: If the weights are missing or do not fit.
        DataError: If the source cannot be downloaded.
        RunError: If the file differs from the file of the run, or is missing while it is needed.
    """
    assert recipe.init is not None
    source = recipe.init.source
    if environment is not None and has_checkpoint:
        return _recorded(environment)
    try:
        identity = _identify(recipe)
    except (WeightsError, data.DataError) as error:
        if environment is None:
            raise
        raise RunError(
            f"{error}; the run that began with it has no checkpoint yet: "
            "restore the file, or start again in another folder"
        ) from None
    loaded = load_weights(model, identity, partial=recipe.init.partial)
    sha256 = _sha256(identity, source, environment)
    preprocess = preprocess_with(
        identity, size_px=dataset.size_px, channels=dataset.channels, source=source
    )
    origin = preprocess_origin(identity, source=source) if preprocess is not None else "unknown"
    if origin == "assumed" and {"data.mean", "data.std"} & _set_by_user(recipe):
        preprocess, origin = None, "unknown"  # the user knows better than a guess
    if environment is None:
        if origin not in KNOWN_ORIGINS or _PREPROCESS_KEYS & _set_by_user(recipe):
            warnings.warn(_describe_preprocess(source, identity, preprocess, origin), stacklevel=2)
        if loaded.adapted or not set(loaded.left_initialized) <= _OUTPUT_LAYER:
            warnings.warn(loaded.summary(), stacklevel=2)
    record = {
        "source": source,
        "sha256": sha256,
        **_loading_record(identity, loaded),
        "preprocess": None if preprocess is None else preprocess.to_json(),
        "preprocess_origin": origin,
    }
    return InitialWeights(record=record, preprocess=preprocess)


def _describe_preprocess(
    source: str, identity: Identity, preprocess: data.Preprocess | None, origin: PreprocessOrigin
) -> str:
    """Return one line on the preprocessing. A guess is called a guess."""
    if origin in KNOWN_ORIGINS:
        return f"{source}: its preprocessing overrides data.mean, data.std and data.padding"
    if preprocess is None:
        return (
            f"{source}: its preprocessing is unknown; data.mean and data.std of the recipe are "
            "used, which may not be those that the weights were trained with"
        )
    mean, scale = (
        [round(value, 2) for value in each.tolist()] for each in (preprocess.mean, preprocess.scale)
    )
    return (
        f"{source}: its preprocessing is not recorded. As a guess, the preprocessing of published "
        f"{identity.publisher} weights overrides data.mean and data.std: mean {mean}, scale "
        f"{scale} of 255. If they were trained with other values, set data.mean and data.std"
    )


def _loading_record(identity: Identity, loaded: LoadReport) -> dict[str, Any]:
    return {
        "dialect": identity.dialect.name,
        "fresh": list(loaded.left_initialized),
        "adapted": list(loaded.adapted),
        "unused": list(loaded.unused),
        "notes": list(identity.notes),
    }


def _recorded(environment: dict[str, Any]) -> InitialWeights:
    try:
        preprocess = environment["init"]["preprocess"]
    except KeyError as error:
        raise RunError(
            f"environment.json lacks {error} of a run that began with given weights: "
            "start again in another folder"
        ) from None
    return InitialWeights(
        record=environment["init"],
        preprocess=None if preprocess is None else data.Preprocess.from_json(preprocess),
    )


def _sha256(identity: Identity, source: str, environment: dict[str, Any] | None) -> str:
    """Return the hash of all files with the weights.

    Raises:
        RunError: If the run began with another file.
    """
    sha256 = _file_sha256(identity.checkpoint.path)
    if shards := identity.checkpoint.shards:
        digests = "".join([sha256, *map(_file_sha256, shards)])
        sha256 = hashlib.sha256(digests.encode()).hexdigest()
    recorded = (environment or {}).get("init", {}).get("sha256", sha256)
    if recorded != sha256:
        raise RunError(
            f"{source} differs from the file that the run began with: its sha256 is {sha256[:12]}, "
            f"not {recorded[:12]}: restore the file, or start again in another folder"
        )
    return sha256


def _file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _identify(recipe: recipes.Recipe) -> Identity:
    """Identify the weights, with the user's switches where weights leave them undetermined."""
    assert recipe.init is not None
    identity = identify(recipe.init.source, entry=recipe.init.entry)
    set_by_user = _set_by_user(recipe)
    switches = {
        key: getattr(recipe.model, key)
        for key in identity.undetermined
        if f"model.{key}" in set_by_user
    }
    if "model.name" in set_by_user and recipe.model.name == identity.plain_name:
        switches = {"name": recipe.model.name}
    return identity.with_switches(**switches)


def _set_by_user(recipe: recipes.Recipe) -> set[str]:
    return {override.partition("=")[0].strip() for override in recipe.overrides}


def _switches_of(name: str) -> dict[str, Any]:
    """Return the default switches of a network of the catalog."""
    with torch.device("meta"):
        return models.build(name, num_classes=2).spec


def _with_model(recipe: recipes.Recipe, values: dict[str, Any]) -> recipes.Recipe:
    return recipe.model_copy(update={"model": recipe.model.model_copy(update=values)})
