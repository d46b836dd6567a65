"""The habits of the field: `create_model("resnet50", pretrained=True, num_classes=10)`, `list_models("resnet*")`, and networks in folders
as a Hugging Face hub keeps them (`save_pretrained`, `from_pretrained`: config.json and model.safetensors, nothing that runs)."""

import json
import warnings
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import safetensors.torch
import torch

from reslearn import models
from reslearn.interop.bundle import SPEC_KEY, spec_of
from reslearn.interop.load import SWITCHES, identify, load_weights
from reslearn.interop.named import named
from reslearn.interop.stored import WeightsError, one_line
from reslearn.interop.write import written_aside
from reslearn.models import Backbone, Network

_CONFIG, _WEIGHTS = "config.json", "model.safetensors"


def list_models(pattern: str = "*", *, pretrained: bool = False) -> list[str]:
    """Names for `create_model` that match a shell pattern; with `pretrained` those of weights, such as timm:resnet50.a1_in1k."""
    return (
        [name for name in named() if fnmatchcase(name, pattern)]
        if pretrained
        else models.names(pattern)
    )


def create_model(
    name: str,
    *,
    pretrained: bool | str = False,
    num_classes: int | None = None,
    in_channels: int = 3,
    features_only: bool = False,
    **switches: Any,
) -> Network | Backbone:
    """A network by name, or its stages' maps with `features_only` (a dictionary by stage, finest first).

    pretrained: True takes torchvision's default weights of that name; a text is any source of `load_weights`. The head is fresh where
    num_classes differs from the weights'. num_classes: by default the weights', else 1000, or 10 for a CIFAR stem.
    Raises UnknownModel, WeightsError, and DataError without network (address and place are named).
    """
    if pretrained is False:
        net = models.build(
            name,
            num_classes=1 if num_classes is None else num_classes,
            in_channels=in_channels,
            **switches,
        )
        if num_classes is None:
            net.reset_head(10 if net.spec["stem"] == "cifar" else 1000)
    else:
        identity = identify(f"torchvision:{name}" if pretrained is True else pretrained)
        identity = identity.with_switches(
            **{key: value for key, value in switches.items() if key in identity.undetermined}
        )
        spec = {
            **{key: identity.spec[key] for key in SWITCHES},
            **switches,
            "in_channels": in_channels,
        }
        net = models.build(name, num_classes=num_classes or identity.num_classes or 1000, **spec)
        load_weights(net, identity)
        net.eval()
    return Backbone(net, frozen_batch_norm=False) if features_only else net


def save_pretrained(net: Network, folder: Path | str) -> Path:
    """Write config.json (the arguments of `models.build`) and model.safetensors into a folder, which is made; returns it."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {
        name: tensor.detach().cpu().contiguous() for name, tensor in net.state_dict().items()
    }
    metadata = {
        "format": "pt",
        SPEC_KEY: json.dumps(net.spec),
    }  # so that the file alone says what it computes, `--init` of it too
    written_aside(
        folder / _WEIGHTS, lambda made: safetensors.torch.save_file(tensors, made, metadata)
    )
    config = {"library_name": "reslearn", "architectures": [net.name], "model": net.spec}
    written_aside(
        folder / _CONFIG,
        lambda made: made.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8"),
    )
    return folder


def from_pretrained(folder: Path | str) -> Network:
    """The network of a folder that `save_pretrained` wrote, in evaluation mode. WeightsError in one line for any other."""
    folder = Path(folder)
    identity = identify(folder / _WEIGHTS)
    try:
        spec = spec_of(
            json.dumps(json.loads((folder / _CONFIG).read_text(encoding="utf-8"))["model"]),
            num_tensors=len(identity.tensors),
        )
        with warnings.catch_warnings(), torch.device("meta"):
            warnings.simplefilter(
                "ignore"
            )  # of settings without effect, which are those of whoever saved it
            net = models.build(**spec)
    except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
        raise WeightsError(f"{folder}: no folder of save_pretrained: {one_line(error)}") from None
    shapes = {name: tuple(tensor.shape) for name, tensor in net.state_dict().items()}
    if shapes != {
        name: stored.shape for name, stored in identity.tensors.items()
    }:  # before memory is taken for what the config asks for
        raise WeightsError(f"{folder}: {_WEIGHTS} does not hold the {net.name} of {_CONFIG}")
    net = net.to_empty(device="cpu")
    load_weights(net, identity)
    return net.eval()
