"""Entry points with the names that timm and Hugging Face use.

`create_model("resnet50", pretrained=True, num_classes=10)` and `list_models("resnet*")` work as
in timm. `save_pretrained` and `from_pretrained` use the folder layout of a Hugging Face hub:
config.json and model.safetensors. Neither file can run code.
"""

import json
import warnings
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import torch

from reslearn import models
from reslearn.interop.bundle import SPEC_KEY, parse_spec, recorded_spec, weights_file
from reslearn.interop.identity import Identity
from reslearn.interop.load import OUTPUT_SWITCHES, identify, load_network, load_weights
from reslearn.interop.pretrained import hub_hint, published_weights
from reslearn.interop.shipped import PREFIX, shipped_networks
from reslearn.interop.stored import WeightsError, first_line
from reslearn.interop.write import write_atomically
from reslearn.models import FeatureListNet, Network
from reslearn.models.names import architecture_of

_CONFIG, _WEIGHTS = "config.json", "model.safetensors"
# Arguments of timm's and torchvision's functions, and what to pass here.
_OTHER_ARGUMENTS = {
    "weights": "pass the source as pretrained, as in pretrained='torchvision:resnet50'",
    "checkpoint_path": "pass the file as pretrained, as in pretrained='model.pth'",
    "pretrained_cfg": "pass the source as pretrained, as in pretrained='timm:resnet50.a1_in1k'",
    "cache_dir": "set the environment variable RESLEARN_DATA",
    "feature_cls": "reslearn.models.Backbone(network) returns the maps as a dictionary",
    "global_pool": "the head averages; network.forward_features(images) returns the maps before it",
    "drop_rate": "these networks have no dropout",
    "drop_path_rate": "these networks drop no paths",
    "output_stride": "these networks have no dilation",
}


def list_models(pattern: str | Iterable[str] = "*", *, pretrained: bool = False) -> list[str]:
    """Return the names for `create_model` that match a shell pattern, or one of several.

    Args:
        pattern: A pattern of names of weights may leave out the part before the colon.
        pretrained: Return names of weights: those that come with the package, such as
            "reslearn:resnet20", and published ones, such as "timm:resnet50.a1_in1k".
    """
    patterns = [pattern] if isinstance(pattern, str) else list(pattern)
    names = models.names()
    if pretrained:
        names = [PREFIX + name for name in shipped_networks()] + list(published_weights())
    return [name for name in names if _matches(name, patterns)]


def _matches(name: str, patterns: Iterable[str]) -> bool:
    network = name.rpartition(":")[2]
    return any(fnmatchcase(name, each) or fnmatchcase(network, each) for each in patterns)


def create_model(
    name: str,
    pretrained: bool | str | Path = False,
    *,
    num_classes: int | None = None,
    in_channels: int = 3,
    features_only: bool = False,
    out_indices: int | Sequence[int] | None = None,
    entry: str | None = None,
    **switches: Any,
) -> Network | FeatureListNet:
    """Build a network by name. The arguments have the names and the meaning of timm's.

    Args:
        name: A name of `list_models`. A name of weights, such as "timm:resnet50.a1_in1k" or
            "resnet50.a1_in1k", stands for its network.
        pretrained: True loads the weights that `name` names, or else the network of this name that
            comes with the package, or else torchvision's default weights. A text or path is any
            source that `load_weights` accepts.
        num_classes: By default the number of classes of the weights; without weights 10 for a CIFAR
            stem and 1000 for other stems. The head is newly initialized if the weights have another
            number of classes. 0: no classifier; the network returns pooled features.
        in_channels: Channels of the images. `in_chans` is accepted too.
        features_only: Return a `FeatureListNet`, whose output is a list of feature maps.
        out_indices: The maps of `features_only`, as in `FeatureListNet`. By default all.
        entry: Which state dict of the weights to use, such as "state_dict_ema".
        switches: Further arguments of `models.build`.

    Raises:
        UnknownModelError: If there is no network of this name.
        WeightsError: If the weights cannot be used.
        DataError: If the weights cannot be downloaded.
        ValueError: If an argument is unknown or has a wrong value.
    """
    name, named_source = _split_name(name)
    in_chans = switches.pop("in_chans", None)
    in_channels = in_channels if in_chans is None else in_chans
    _check_arguments(switches, out_indices=out_indices, features_only=features_only)
    if pretrained in (False, None):
        net = _build_untrained(name, num_classes, in_channels, switches)
    else:
        source = named_source if pretrained is True else str(pretrained)
        identity = identify(source, entry=entry)
        net = _build_pretrained(name, identity, num_classes, in_channels, switches)
    return FeatureListNet(net, out_indices) if features_only else net


def _split_name(name: str) -> tuple[str, str]:
    """Return the network of a name, and the weights that pretrained=True means.

    Raises:
        WeightsError: If the name is a hub id, a file or a folder.
    """
    weights = [*published_weights(), *(PREFIX + network for network in shipped_networks())]
    for source in (name, f"timm:{name}"):
        if source in weights:
            return source.rpartition(":")[2].partition(".")[0], source
    if architecture_of(name) is None:
        if hint := hub_hint(name):
            raise WeightsError(f"{name} is no name of a network{hint}")
        if Path(name).exists():
            raise WeightsError(
                f"{name} is no name of a network: load_network({name!r}) builds the network of a "
                "file or folder"
            )
    return name, (PREFIX if name in shipped_networks() else "torchvision:") + name


def _check_arguments(
    switches: dict[str, Any], *, out_indices: int | Sequence[int] | None, features_only: bool
) -> None:
    """Raise ValueError for arguments of other libraries, and say what to pass."""
    for key in switches:
        if key in _OTHER_ARGUMENTS:
            raise ValueError(f"create_model has no argument {key!r}: {_OTHER_ARGUMENTS[key]}")
    if out_indices is not None and not features_only:
        raise ValueError(f"out_indices={out_indices!r}: pass features_only=True too")


def _build_untrained(
    name: str, num_classes: int | None, in_channels: int, switches: dict[str, Any]
) -> Network:
    num_outputs = 1 if num_classes is None else num_classes
    net = models.build(name, num_classes=num_outputs, in_channels=in_channels, **switches)
    if num_classes is None:  # the usual number is known once the stem is
        net.reset_classifier(10 if net.spec["stem"] == "cifar" else 1000)
    return net


def _build_pretrained(
    name: str,
    identity: Identity,
    num_classes: int | None,
    in_channels: int,
    switches: dict[str, Any],
) -> Network:
    undetermined = {key: value for key, value in switches.items() if key in identity.undetermined}
    identity = identity.with_switches(**undetermined)
    _check_depth(name, identity)
    spec = (
        {key: identity.spec[key] for key in OUTPUT_SWITCHES}
        | switches
        | {"in_channels": in_channels}
    )
    if num_classes is None:
        num_classes = identity.num_classes or 1000
    net = models.build(name, num_classes=num_classes, **spec)
    load_weights(net, identity)
    return net.eval()


def _check_depth(name: str, identity: Identity) -> None:
    """Raise WeightsError if weights are of a network with other blocks, before switches differ."""
    network, weights = architecture_of(name), architecture_of(str(identity.spec["name"]))
    if network is None or weights is None:
        return
    if (network.body, network.blocks) != (weights.body, weights.blocks):
        raise WeightsError(
            f"{identity.checkpoint.path} holds weights of {identity.spec['name']}, not of {name}: "
            f"create_model({identity.spec['name']!r}, ...) builds their network"
        )


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
    """Load the network of a folder that `save_pretrained` wrote, in evaluation mode.

    Folders of transformers and timm are read too, if their network is in the catalog.

    Raises:
        WeightsError: If the folder was not written by `save_pretrained`, or is damaged.
    """
    identity = identify(folder)
    folder = Path(folder)
    try:
        config = json.loads((folder / _CONFIG).read_text(encoding="utf-8"))
        is_foreign = recorded_spec(identity.checkpoint.metadata) is None
        if is_foreign and "model" not in config:
            return load_network(identity)
        spec = parse_spec(json.dumps(config["model"]), num_tensors=len(identity.tensors))
        with warnings.catch_warnings(), torch.device("meta"):
            # The writer of the config chose its switches, so a warning about a switch without
            # effect is of no use here.
            warnings.simplefilter("ignore")
            net = models.build(**spec)
    except WeightsError:
        raise
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
