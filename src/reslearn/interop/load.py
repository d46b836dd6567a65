"""Weights into a network: `load_weights(net, source)` and `load_network(source)`, for files, named sources and addresses.

Rules. A head of other classes is left fresh. A first convolution of other channels is adapted: its kernels are summed over their channels
and spread evenly over ours, times their number over ours, so that a gray picture in all channels gives what it gave. Numbers are
converted to the type of the network. Anything else that does not match is an error that lists it; `partial` leaves it out.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from reslearn import models, switches
from reslearn.data import Preprocess
from reslearn.interop.bundle import own_spec, preprocess_of
from reslearn.interop.identify import Identity, identify_checkpoint
from reslearn.interop.named import fetched, preprocess_numbers
from reslearn.interop.read import read_checkpoint
from reslearn.interop.stored import WeightsError
from reslearn.models import Network

_LISTED = 8
# Switches that decide what a network with these weights computes; they belong to the weights.
SWITCHES = tuple(name for name, switch in switches.SWITCHES.items() if switch.decides_output)


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """What was done. fresh: our tensors that keep what they started with; unused: names in the file that were left."""

    identity: Identity
    fresh: tuple[str, ...]
    adapted: tuple[str, ...]
    unused: tuple[str, ...]

    def line(self) -> str:
        """In one line, for people."""
        identity = self.identity
        parts = [
            f"{identity.checkpoint.path}: {identity.spec['name']} in the names of {identity.dialect.name}"
        ]
        parts += [f"fresh: {_some(self.fresh)}"] if self.fresh else []
        parts += [f"adapted to other channels: {_some(self.adapted)}"] if self.adapted else []
        parts += [f"unused: {_some(self.unused)}"] if self.unused else []
        return "; ".join(parts)


def identify(source: Path | str, *, entry: str | None = None) -> Identity:
    """Whose weights these are: of a file, "torchvision:resnet50", "timm:resnet50.a1_in1k" or an address. Raises WeightsError."""
    return identify_checkpoint(read_checkpoint(fetched(source)), entry=entry)


def load_weights(
    net: Network, source: Path | str | Identity, *, partial: bool = False, entry: str | None = None
) -> Loaded:
    """Give `net` the weights of `source`; its type, device and mode stay. Nothing is changed where WeightsError is raised."""
    identity = source if isinstance(source, Identity) else identify(source, entry=entry)
    _check_same_function(net, identity, partial=partial)
    wanted = net.state_dict()
    state: dict[str, Tensor] = {}
    fresh, adapted, unused = [], [], list(identity.unmatched)
    wrong = [f"{name} (not in the network)" for name in identity.names if name not in wanted]
    for name, ours in wanted.items():
        if name not in identity.names:
            if name.endswith("num_batches_tracked"):
                state[name] = torch.zeros_like(ours)
                continue
            fresh.append(name)
            if not name.startswith("head.fc."):
                wrong.append(f"{name} (not in the file)")
            continue
        value = identity.read(name)
        if (
            ours.is_floating_point() and not value.is_floating_point()
        ):  # quantized, by a scale that lies elsewhere
            fresh.append(name)
            unused.append(identity.names[name])
            wrong.append(f"{name} ({value.dtype} in the file)")
            continue
        value = value.to(ours.dtype)
        if name.endswith("num_batches_tracked"):
            value = value.reshape(())
        if (
            value.shape != ours.shape
            and name in ("stem.conv.weight", "stem.conv1.weight")
            and value.shape[2:] == ours.shape[2:]
        ):
            value = other_channels(value, ours.shape[1])
            adapted.append(name)
        if value.shape == ours.shape:
            state[name] = value
        else:
            fresh.append(name)
            unused.append(identity.names[name])
            if not name.startswith("head.fc."):
                wrong.append(
                    f"{name} ({tuple(value.shape)} in the file, {tuple(ours.shape)} in the network)"
                )
    wrong += [f"{name} (in the file only)" for name in identity.unmatched]
    if wrong and not partial:
        raise WeightsError(
            f"{identity.checkpoint.path}: {len(wrong)} tensors do not match: {_some(wrong)}; --partial goes on without them"
        )
    net.load_state_dict(state, strict=False)
    return Loaded(
        identity=identity,
        fresh=tuple(fresh),
        adapted=tuple(adapted),
        unused=tuple(dict.fromkeys(unused)),
    )


def load_network(
    source: Path | str | Identity,
    *,
    num_classes: int | None = None,
    in_channels: int | None = None,
    partial: bool = False,
    **told: Any,
) -> Network:
    """The network that the weights of `source` are of, with them, in evaluation mode. Raises WeightsError.

    told: switches that you know and the weights cannot tell (`Identity.undetermined`), as in stride_in="1x1".
    """
    identity = (source if isinstance(source, Identity) else identify(source)).with_switches(**told)
    spec = dict(identity.spec) | ({} if in_channels is None else {"in_channels": in_channels})
    classes = num_classes if num_classes is not None else identity.num_classes
    if classes is None:
        raise WeightsError(
            f"{identity.checkpoint.path}: it has no head: num_classes says for how many classes there is to be one"
        )
    net = models.build(**spec, num_classes=classes)
    load_weights(net, identity, partial=partial)
    return net.eval()


def preprocess_with(
    identity: Identity, *, size_px: int, channels: int, source: Path | str = ""
) -> Preprocess | None:
    """The preprocessing that belongs to the weights, for images of this size; None where nobody says. Raises WeightsError.

    A bundle holds its own. Of the others a dialect, or a named source, says mean and standard deviation of each channel.
    """
    own = preprocess_of(identity.checkpoint.metadata)
    if own is not None:
        if (own.size_px, own.channels) == (size_px, channels):
            return own
        if own.mean.ndim == 3 or own.channels != channels:
            raise WeightsError(
                f"{identity.checkpoint.path}: its preprocessing is for images of {own.channels} x {own.size_px} x {own.size_px}, "
                f"these are {channels} x {size_px} x {size_px}: data.size_px={own.size_px}, or data.mean=per-channel when pre-training"
            )
        return Preprocess(
            size_px=size_px, channels=channels, mean=own.mean, scale=own.scale, padding=own.padding
        )
    numbers: Mapping[str, Any] = preprocess_numbers(str(source)) or identity.dialect.preprocess
    if not numbers or channels != len(numbers["mean"]):
        return None
    mean, scale = (torch.tensor(numbers[key], dtype=torch.float32) * 255 for key in ("mean", "std"))
    return Preprocess(
        size_px=size_px, channels=channels, mean=mean, scale=scale, padding="after-mean"
    )


def other_channels(weight: Tensor, channels: int) -> Tensor:
    """A first convolution [D, C, h, w] for another number of input channels, by the rule at the top of this file."""
    return weight.sum(1, keepdim=True).expand(-1, channels, -1, -1).div(channels).contiguous()


def _check_same_function(net: Network, identity: Identity, *, partial: bool) -> None:
    """The same shapes may compute otherwise: a switch that is known of the weights and differs is an error too."""
    says_itself = own_spec(identity.checkpoint.metadata) is not None
    wrong = []
    for key in SWITCHES:
        theirs, ours, told = identity.spec[key], net.spec[key], identity.dialect.spec.get(key)
        if theirs == ours or (isinstance(told, list) and ours in told and key != "shortcut"):
            continue
        if key == "shortcut" and {theirs, ours} == {"A", None} and not says_itself:
            continue  # shortcuts without weights, or none: no file tells them apart
        if told is None and not says_itself and switches.SWITCHES[key].in_weights != "visible":
            continue  # nobody knows
        wrong.append(f"{key} {theirs!r} of the weights, {ours!r} of the network")
    if wrong and not partial:
        raise WeightsError(
            f"{identity.checkpoint.path}: {'; '.join(wrong)}: build the network with the weights' own switches"
        )


def _some(names: list[str] | tuple[str, ...]) -> str:
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(names[:_LISTED]) + more
