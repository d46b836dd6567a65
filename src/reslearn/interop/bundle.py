"""The bundle: one safetensors file with a network and what is needed to use it. Loading never runs code.

Its metadata holds, as JSON texts, the model's spec (arguments of `models.build`), class names, preprocessing, metrics and the
hash of the recipe.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import nn

from reslearn import models
from reslearn.data import Preprocess

_FORMAT = "reslearn-bundle-1"


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
        "format": _FORMAT,
        "model": json.dumps(dict(spec)),
        "classes": json.dumps(list(classes)),
        "preprocess": json.dumps(preprocess.to_json()),
        "metrics": json.dumps(dict(metrics)),
        "recipe_hash": recipe_hash,
    }
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    return safetensors.torch.save(tensors, metadata)


def read_bundle(path: Path | str) -> Bundle:
    """Read a bundle. BundleError in one line for a file that is absent, truncated, foreign or holds other tensors than its spec needs."""
    try:
        with safetensors.safe_open(str(path), framework="pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != _FORMAT:
                raise BundleError(f"{path}: a safetensors file, but no bundle of reslearn")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping: it has keys() only)
    except (OSError, safetensors.SafetensorError) as error:
        raise BundleError(f"{path}: no bundle: {error}") from None
    try:
        with torch.device("meta"):
            network = models.build(**json.loads(metadata["model"]))
        network.load_state_dict(tensors, assign=True)
        return Bundle(
            network=network.eval(),
            classes=tuple(json.loads(metadata["classes"])),
            preprocess=Preprocess.from_json(json.loads(metadata["preprocess"])),
            metrics=json.loads(metadata["metrics"]),
            recipe_hash=metadata["recipe_hash"],
        )
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise BundleError(f"{path}: a damaged bundle: {str(error).splitlines()[0]}") from None
