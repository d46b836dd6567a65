"""The bundle: one safetensors file with a network and what is needed to use it. Loading never runs code.

Its metadata holds, as JSON texts, the model's spec (arguments of `models.build`), class names, preprocessing, metrics and the
hash of the recipe.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from reslearn import models
from reslearn.data import Preprocess

BUNDLE_FORMAT = "reslearn-bundle-1"
SPEC_KEY = "reslearn.model"


class BundleError(ValueError):
    """A file that is no bundle, or does not hold the network that it names."""


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """A network in evaluation mode, with its class names, preprocessing, metrics and recipe hash."""

    network: models.Network
    classes: tuple[str, ...]
    preprocess: Preprocess
    metrics: Mapping[str, Any]
    recipe_hash: str


def to_bytes(
    network: nn.Module,
    *,
    spec: Mapping[str, Any],
    classes: Sequence[str],
    preprocess: Preprocess,
    metrics: Mapping[str, Any],
    recipe_hash: str,
) -> bytes:
    """The bundle as bytes; tensors are written as they are, contiguous."""
    metadata = {
        "format": BUNDLE_FORMAT,
        "model": json.dumps(dict(spec)),
        "classes": json.dumps(list(classes)),
        "preprocess": json.dumps(preprocess.to_json()),
        "metrics": json.dumps(dict(metrics)),
        "recipe_hash": recipe_hash,
    }
    tensors = {
        name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()
    }
    return safetensors.torch.save(tensors, metadata)


def read_bundle(path: Path | str, *, recipe_hash: str | None = None) -> Bundle:
    """Read a bundle, of the recipe (seed included) whose hash is given. BundleError in one line for a file that is absent, truncated,
    foreign, of another recipe, or holds other tensors than its spec needs."""
    try:
        with safetensors.safe_open(str(path), framework="pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != BUNDLE_FORMAT:
                raise BundleError(f"{path}: a safetensors file, but no bundle of reslearn")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping: it has keys() only)
    except (OSError, safetensors.SafetensorError) as error:
        raise BundleError(f"{path}: no bundle: {error}") from None
    if recipe_hash is not None and metadata.get("recipe_hash") != recipe_hash:
        raise BundleError(
            f"{path}: weights of another run (recipe {metadata.get('recipe_hash')}, here {recipe_hash}): put its own there"
        )
    try:
        return _assemble(metadata, tensors)
    except KeyError as error:
        raise BundleError(f"{path}: a damaged bundle: it lacks {error}") from None
    except (TypeError, ValueError, RuntimeError) as error:
        raise BundleError(
            f"{path}: a damaged bundle: {(str(error) or type(error).__name__).splitlines()[0]}"
        ) from None


def preprocess_of(metadata: Mapping[str, str]) -> Preprocess | None:
    """The preprocessing in the metadata of a bundle; None where they are of something else, or damaged."""
    try:
        return (
            Preprocess.from_json(json.loads(metadata["preprocess"]))
            if metadata.get("format") == BUNDLE_FORMAT
            else None
        )
    except (KeyError, ValueError, TypeError, RecursionError):
        return None


def own_spec(metadata: Mapping[str, str]) -> str | None:
    """The JSON text of the network's spec, where a file of ours says it: a bundle, or what `save_pretrained` wrote."""
    return (
        metadata.get("model", "")
        if metadata.get("format") == BUNDLE_FORMAT
        else metadata.get(SPEC_KEY)
    )


def spec_of(text: str, *, num_tensors: int) -> dict[str, Any]:
    """A model's spec from its JSON text. ValueError where it is none, or names more layers than the tensors beside it are enough for."""
    try:
        spec = json.loads(text)
    except RecursionError:
        raise ValueError("the model is nested too deeply") from None
    if not isinstance(spec, dict) or not isinstance(spec.get("name"), str):
        raise ValueError("the model must be a table with a name")
    # A number of layers is the one part of a spec that costs time: a file of a few bytes may not ask for a million of them.
    if any(int(digits[:9]) > 4 * num_tensors for digits in re.findall(r"[0-9]+", spec["name"])):
        raise ValueError(f"{num_tensors} tensors are not enough for {spec['name'][:80]}")
    return spec


def _assemble(metadata: Mapping[str, str], tensors: dict[str, Tensor]) -> Bundle:
    """Build what the metadata name and give it the tensors. KeyError, TypeError, ValueError or RuntimeError where they do not fit."""
    spec = spec_of(metadata["model"], num_tensors=len(tensors))
    classes, metrics = (json.loads(metadata[key]) for key in ("classes", "metrics"))
    if not isinstance(metrics, dict):
        raise ValueError("metrics must be a table")
    if not (isinstance(classes, list) and all(isinstance(name, str) for name in classes)):
        raise ValueError("classes must be a list of names")
    with torch.device("meta"):
        network = models.build(**spec)
    wanted = network.state_dict()
    foreign = [
        name
        for name, tensor in tensors.items()
        if name in wanted and tensor.dtype != wanted[name].dtype
    ]
    if foreign:
        raise ValueError(
            f"{foreign[0]} is {tensors[foreign[0]].dtype}, not {wanted[foreign[0]].dtype}"
        )
    network.load_state_dict(tensors, assign=True)
    preprocess = Preprocess.from_json(json.loads(metadata["preprocess"]))
    if len(classes) != network.num_classes or preprocess.channels != network.spec["in_channels"]:
        raise ValueError("the network fits neither the class names nor the preprocessing beside it")
    return Bundle(
        network=network.eval(),
        classes=tuple(classes),
        preprocess=preprocess,
        metrics=metrics,
        recipe_hash=metadata["recipe_hash"],
    )
