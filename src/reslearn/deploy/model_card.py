"""What an exported file says about itself: classes, preprocessing, license, origin.

Each form stores the same texts by the same keys: ONNX in its metadata properties, OpenVINO in its
rt_info, torch.export in an extra file.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import reslearn
from reslearn.data import Preprocess
from reslearn.deploy.preprocess_graph import INPUT_KINDS, InputKind
from reslearn.interop.exported_files import FORMAT_KEY
from reslearn.interop.stored import WeightsError, first_line

CARD_FORMAT = "reslearn-export-1"


@dataclass(frozen=True, kw_only=True)
class ModelCard:
    """A model without its computation.

    Attributes:
        name: Name of the network, such as "resnet20".
        classes: Names of the classes, in the order of the probabilities.
        preprocess: Turns pictures into the input of the network.
        temperature: Probabilities are the softmax of the logits divided by it.
        input_kind: What the model takes; see `PixelsToProbabilities`.
        recipe_hash: Hash of the recipe of the training; "" if unknown.
        license: License of the weights; "" if unknown.
        precision: "float32" or "int8".
        reslearn_version: Version that wrote the file.
    """

    name: str
    classes: tuple[str, ...]
    preprocess: Preprocess
    temperature: float = 1.0
    input_kind: InputKind = "crop"
    recipe_hash: str = ""
    license: str = ""
    precision: str = "float32"
    reslearn_version: str = reslearn.__version__

    def to_metadata(self) -> dict[str, str]:
        """Return the card as texts; `from_metadata` inverts it."""
        return {
            FORMAT_KEY: CARD_FORMAT,
            "name": self.name,
            "classes": json.dumps(list(self.classes)),
            "preprocess": json.dumps(self.preprocess.to_json()),
            "temperature": json.dumps(self.temperature),
            "input_kind": self.input_kind,
            "recipe_hash": self.recipe_hash,
            "license": self.license,
            "precision": self.precision,
            "reslearn_version": self.reslearn_version,
        }

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, Any], *, source: str) -> ModelCard:
        """Read the card of a file.

        Args:
            source: Name of the file, for the error message.

        Raises:
            WeightsError: If reslearn did not write the texts, or they are damaged.
        """
        if metadata.get(FORMAT_KEY) != CARD_FORMAT:
            raise WeightsError(
                f"{source} was not written by `reslearn export`, so its preprocessing and classes "
                "are unknown: pass the checkpoint that it was made from"
            )
        try:
            return _card(metadata)
        except (KeyError, TypeError, ValueError, RecursionError) as error:
            raise WeightsError(f"{source}: damaged metadata: {first_line(error)}") from None


def _card(metadata: Mapping[str, Any]) -> ModelCard:
    texts = {str(key): str(value) for key, value in metadata.items()}
    classes = json.loads(texts["classes"])
    temperature = json.loads(texts["temperature"])
    if not (isinstance(classes, list) and all(isinstance(name, str) for name in classes)):
        raise ValueError("classes must be a list of names")
    if not (isinstance(temperature, float) and math.isfinite(temperature) and temperature > 0):
        raise ValueError("the temperature must be a number above 0")
    if texts["input_kind"] not in INPUT_KINDS:
        raise ValueError(f"unknown input {texts['input_kind']!r}")
    input_kind = INPUT_KINDS[INPUT_KINDS.index(texts["input_kind"])]
    return ModelCard(
        name=texts["name"],
        classes=tuple(classes),
        preprocess=Preprocess.from_json(json.loads(texts["preprocess"])),
        temperature=temperature,
        input_kind=input_kind,
        recipe_hash=texts["recipe_hash"],
        license=texts["license"],
        precision=texts["precision"],
        reslearn_version=texts["reslearn_version"],
    )
