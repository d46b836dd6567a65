"""Entry points with the names that timm and Hugging Face use.

`create_model("resnet50", pretrained=True, num_classes=10)` and `list_models("resnet*")` work as
in timm. `save_pretrained` and `from_pretrained` use the folder layout of a Hugging Face hub:
config.json and model.safetensors. Neither file can run code.
"""

import json
import warnings
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import torch

from reslearn import models
from reslearn.interop.bundle import SPEC_KEY, parse_spec, weights_file
from reslearn.interop.load import OUTPUT_SWITCHES, identify, load_weights
from reslearn.interop.pretrained import published_weights
from reslearn.interop.shipped import PREFIX, shipped_networks
from reslearn.interop.stored import WeightsError, first_line
from reslearn.interop.write import write_atomically
from reslearn.models import Backbone, Network

_CONFIG, _WEIGHTS = "config.json", "model.safetensors"


def list_models(pattern: str = "*", *, pretrained: bool = False) -> list[str]:
    """Return the names for `create_model` that match a shell pattern.

    Args:
        pretrained: Return names of weights: those that come with the package, such as
            "reslearn:resnet20", and published ones, such as "timm:resnet50.a1_in1k".
    """
    if pretrained:
        names = [PREFIX + name for name in shipped_networks()] + list(published_weights())
        return [name for name in names if fnmatchcase(name, pattern)]
    return models.names(pattern)


def create_model(
    name: str,
    *,
    pretrained: bool | str = False,
    num_classes: int | None = None,
    in_channels: int = 3,
    features_only: bool = False,
    **switches: Any,
) -> Network | Backbone:
    """Build a network by name.

    Args:
        pretrained: True loads the network of this name that comes with the package, or else
            torchvision's default weights. A text is any source that `load_weights` accepts.
        num_classes: By default the number of classes of the weights; without weights 10 for a CIFAR
            stem and 1000 for other stems. The head is newly initialized if the weights have another
            number of classes.
        features_only: Return a `Backbone`, whose output is a dict of feature maps by stage, finest
            first.
        switches: Further arguments of `models.build`.

    Raises:
        UnknownModelError: If there is no network of this name.
        WeightsError: If the weights cannot be used.
        DataError: If the weights cannot be downloaded.
    """
    if pretrained is False:
        net = _build_untrained(name, num_classes, in_channels, switches)
    else:
        default = PREFIX if name in shipped_networks() else "torchvision:"
        source = default + name if pretrained is True else pretrained
        net = _build_pretrained(name, source, num_classes, in_channels, switches)
    return Backbone(net, frozen_batch_norm=False) if features_only else net


def _build_untrained(
    name: str, num_classes: int | None, in_channels: int, switches: dict[str, Any]
) -> Network:
    num_outputs = 1 if num_classes is None else num_classes
    net = models.build(name, num_classes=num_outputs, in_channels=in_channels, **switches)
    if num_classes is None:  # the usual number is known once the stem is
        net.reset_head(10 if net.spec["stem"] == "cifar" else 1000)
    return net


def _build_pretrained(
    name: str, source: str, num_classes: int | None, in_channels: int, switches: dict[str, Any]
) -> Network:
    identity = identify(source)
    undetermined = {key: value for key, value in switches.items() if key in identity.undetermined}
    identity = identity.with_switches(**undetermined)
    spec = (
        {key: identity.spec[key] for key in OUTPUT_SWITCHES}
        | switches
        | {"in_channels": in_channels}
    )
    net = models.build(name, num_classes=num_classes or identity.num_classes or 1000, **spec)
    load_weights(net, identity)
    return net.eval()


def save_pretrained(net: Network, folder: Path | str) -> Path:
    """Write a network into a folder, and create the folder if needed.

    config.json holds the arguments of `models.build`. model.safetensors records them too, so that
    `--init` can use this file alone.

    Returns:
        The folder.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    weights = weights_file(net, {"format": "pt", SPEC_KEY: json.dumps(net.spec)})
    write_atomically(folder / _WEIGHTS, lambda path: path.write_bytes(weights))
    config = {"library_name": "reslearn", "architectures": [net.name], "model": net.spec}
    text = json.dumps(config, indent=2) + "\n"
    write_atomically(folder / _CONFIG, lambda path: path.write_text(text, encoding="utf-8"))
    return folder


def from_pretrained(folder: Path | str) -> Network:
    """Load a network that `save_pretrained` wrote, in evaluation mode.

    Raises:
        WeightsError: If the folder was not written by `save_pretrained`, or is damaged.
    """
    folder = Path(folder)
    identity = identify(folder / _WEIGHTS)
    try:
        config = json.loads((folder / _CONFIG).read_text(encoding="utf-8"))
        spec = parse_spec(json.dumps(config["model"]), num_tensors=len(identity.tensors))
        with warnings.catch_warnings(), torch.device("meta"):
            # The writer of the config chose its switches, so a warning about a switch without
            # effect is of no use here.
            warnings.simplefilter("ignore")
            net = models.build(**spec)
    except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
        raise WeightsError(
            f"{folder} is not a folder that save_pretrained wrote: {first_line(error)}"
        ) from None
    expected_shapes = {name: tuple(tensor.shape) for name, tensor in net.state_dict().items()}
    shapes = {name: stored.shape for name, stored in identity.tensors.items()}
    # Compare before memory is allocated: the config may describe a huge network.
    if shapes != expected_shapes:
        raise WeightsError(f"{folder}: {_WEIGHTS} does not hold the {net.name} of {_CONFIG}")
    net = net.to_empty(device="cpu")
    load_weights(net, identity)
    return net.eval()
