"""Bundles: one safetensors file with a network and everything needed to use it.

The metadata hold JSON texts: the network's spec (arguments of `models.build`), the class names, the
preprocessing, and the metrics. They also hold the hash of the recipe, the temperature if one was
fitted, and a digest of the file. Loading a bundle never runs code.
"""

import json
import math
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
from reslearn.interop.file_digest import DIGEST_KEY, PLACEHOLDER, fill_digest, is_intact
from reslearn.interop.stored import first_line, first_not_finite

BUNDLE_FORMAT = "reslearn-bundle-2"
# The metadata key of a spec in a file that `save_pretrained` writes.
SPEC_KEY = "reslearn.model"
_HALF_OF_FLOAT = (torch.float16, torch.float32)


class BundleError(ValueError):
    """A file is not a bundle, or does not hold the network that its metadata describe."""


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """A network in evaluation mode, with everything needed to use it.

    Attributes:
        network: The network in evaluation mode.
        classes: Names of the classes.
        preprocess: Turns pixels into the input of the network.
        metrics: Result of the run.
        recipe_hash: Hash of the recipe, seed included.
        temperature: Probabilities are the softmax of the logits divided by it. It was fitted on
            validation images; 1 if none was fitted.
    """

    network: models.Network
    classes: tuple[str, ...]
    preprocess: Preprocess
    metrics: Mapping[str, Any]
    recipe_hash: str
    temperature: float = 1.0


def read_bundle(path: Path | str, *, recipe_hash: str | None = None) -> Bundle:
    """Read a bundle.

    Args:
        recipe_hash: The hash that the bundle must have. The hash includes the seed.

    Raises:
        BundleError: If the file is absent, damaged, no bundle, or from another recipe, if its
            tensors do not fit its spec, or if a value is NaN or infinite. The message is one line.
    """
    try:
        with safetensors.safe_open(str(path), framework="pt") as file:
            metadata = file.metadata() or {}
            if not is_written_by_reslearn(metadata):
                raise BundleError(f"{path}: a safetensors file, but no bundle of reslearn")
            if not is_intact(Path(path)):
                raise BundleError(
                    f"{path}: damaged, or of an earlier version: its digest does not fit"
                )
            if metadata.get("format") != BUNDLE_FORMAT:
                raise BundleError(f"{path}: weights of reslearn, but no bundle")
            names = file.keys()  # `file` itself cannot be iterated
            tensors = {name: file.get_tensor(name) for name in names}
    except (OSError, safetensors.SafetensorError) as error:
        raise BundleError(f"{path}: not a bundle: {first_line(error)}") from None
    if recipe_hash is not None and metadata.get("recipe_hash") != recipe_hash:
        raise BundleError(
            f"{path}: weights of another run (recipe {metadata.get('recipe_hash')}, expected "
            f"{recipe_hash}); put the bundle of this run there"
        )
    try:
        return _assemble(metadata, tensors)
    except KeyError as error:
        raise BundleError(f"{path}: a damaged bundle: it lacks {error}") from None
    except (TypeError, ValueError, RuntimeError) as error:
        raise BundleError(f"{path}: a damaged bundle: {first_line(error)}") from None


def to_bytes(
    network: nn.Module,
    *,
    spec: Mapping[str, Any],
    classes: Sequence[str],
    preprocess: Preprocess,
    metrics: Mapping[str, Any],
    recipe_hash: str,
    half_precision: bool = False,
    temperature: float | None = None,
) -> bytes:
    """Return a bundle as bytes. Tensors are stored contiguous.

    Args:
        half_precision: Store the weights of convolutions and of the head as float16, half as large.
            Batch norm and biases keep their dtype. `read_bundle` returns float32.
        temperature: See `Bundle`. None if none was fitted.
    """
    metadata = {
        "format": BUNDLE_FORMAT,
        "model": json.dumps(dict(spec)),
        "classes": json.dumps(list(classes)),
        "preprocess": json.dumps(preprocess.to_json()),
        "metrics": json.dumps(dict(metrics)),
        "recipe_hash": recipe_hash,
    }
    if temperature is not None:
        metadata["temperature"] = json.dumps(temperature)
    return weights_file(network, metadata, half_precision=half_precision)


def weights_file(
    network: nn.Module, metadata: Mapping[str, str], *, half_precision: bool = False
) -> bytes:
    """Return a safetensors file with the weights of `network`, `metadata`, and its digest."""
    tensors = contiguous_state(network)
    if half_precision:
        tensors = {
            name: tensor.half() if tensor.ndim > 1 else tensor for name, tensor in tensors.items()
        }
    return fill_digest(safetensors.torch.save(tensors, {**metadata, DIGEST_KEY: PLACEHOLDER}))


def contiguous_state(network: nn.Module) -> dict[str, Tensor]:
    """Return the state dict on the CPU with contiguous tensors, as safetensors needs it."""
    return {
        name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()
    }


def _assemble(metadata: Mapping[str, str], tensors: dict[str, Tensor]) -> Bundle:
    """Build the network of the metadata and give it the tensors.

    Raises:
        KeyError, TypeError, ValueError, RuntimeError: If metadata and tensors do not fit.
    """
    spec = parse_spec(metadata["model"], num_tensors=len(tensors))
    classes, metrics = json.loads(metadata["classes"]), json.loads(metadata["metrics"])
    if not isinstance(metrics, dict):
        raise ValueError("metrics must be a JSON object")
    if not (isinstance(classes, list) and all(isinstance(name, str) for name in classes)):
        raise ValueError("classes must be a list of names")
    with torch.device("meta"):
        network = models.build(**spec)
    expected = network.state_dict()
    for name, tensor in tensors.items():
        if name in expected and (tensor.dtype, expected[name].dtype) == _HALF_OF_FLOAT:
            tensors[name] = tensor.float()
        elif name in expected and tensor.dtype != expected[name].dtype:
            raise ValueError(f"{name} is {tensor.dtype}, not {expected[name].dtype}")
    if (bad_name := first_not_finite(tensors)) is not None:
        raise ValueError(f"{bad_name} holds NaN or infinity")
    network.load_state_dict(tensors, assign=True)
    preprocess = Preprocess.from_json(json.loads(metadata["preprocess"]))
    if len(classes) != network.num_classes:
        raise ValueError(f"{len(classes)} class names for a head of {network.num_classes} classes")
    if preprocess.channels != network.spec["in_channels"]:
        raise ValueError(
            f"preprocessing for images of {preprocess.channels} channels, "
            f"but a network for {network.spec['in_channels']}"
        )
    return Bundle(
        network=network.eval(),
        classes=tuple(classes),
        preprocess=preprocess,
        metrics=metrics,
        recipe_hash=metadata["recipe_hash"],
        temperature=_temperature(metadata),
    )


def _temperature(metadata: Mapping[str, str]) -> float:
    """Return the temperature, which bundles without a fitted one lack."""
    temperature = json.loads(metadata.get("temperature", "1.0"))
    is_number = isinstance(temperature, float) and math.isfinite(temperature)
    if not (is_number and temperature > 0):
        raise ValueError(f"temperature {str(temperature)[:40]}: it must be a number above 0")
    return float(temperature)


def is_written_by_reslearn(metadata: Mapping[str, str]) -> bool:
    """Return whether a file is of reslearn, and therefore must have a digest."""
    is_bundle = metadata.get("format", "").startswith("reslearn-bundle-")
    return is_bundle or bool({DIGEST_KEY, SPEC_KEY} & metadata.keys())


def recorded_preprocess(metadata: Mapping[str, str]) -> Preprocess | None:
    """Return the preprocessing in the metadata of a bundle; None if absent or damaged."""
    if metadata.get("format") != BUNDLE_FORMAT:
        return None
    try:
        return Preprocess.from_json(json.loads(metadata["preprocess"]))
    except (KeyError, ValueError, TypeError, RecursionError):
        return None


def recorded_spec(metadata: Mapping[str, str]) -> str | None:
    """Return the JSON text of the spec that reslearn wrote into the metadata; None for other files.

    Bundles and files of `save_pretrained` have a spec.
    """
    if metadata.get("format") == BUNDLE_FORMAT:
        return metadata.get("model", "")
    return metadata.get(SPEC_KEY)


def parse_spec(text: str, *, num_tensors: int) -> dict[str, Any]:
    """Parse the JSON text of a spec.

    Args:
        num_tensors: Number of tensors beside the spec. It bounds the depth of the network: a file
            of a few bytes must not make us build a million layers.

    Raises:
        ValueError: If the text is no spec, or its network has more layers than there are tensors.
    """
    try:
        spec = json.loads(text)
    except RecursionError:
        raise ValueError("the model is nested too deeply") from None
    if not isinstance(spec, dict) or not isinstance(spec.get("name"), str):
        raise ValueError("the model must be a JSON object with a name")
    numbers_in_name = [int(digits[:9]) for digits in re.findall(r"[0-9]+", spec["name"])]
    if any(number > 4 * num_tensors for number in numbers_in_name):
        raise ValueError(f"{num_tensors} tensors are not enough for {spec['name'][:80]}")
    return spec
