"""Load weights into a network: `load_weights(net, source)` and `load_network(source)`.

A source is a file, a folder that `save_pretrained` wrote, a published name such as
"torchvision:resnet50", or a URL. These rules apply:

- A head for another number of classes keeps its initial values.
- A first convolution for another number of input channels is adapted. Its kernels are summed over
  the input channels, and the sum is divided evenly over the new channels. So a gray image,
  repeated in every channel, gives the same output as before.
- Values are converted to the dtype of the network.
- Any other mismatch is an error that lists the tensors. With `partial` they are left out.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from reslearn import models
from reslearn.data import Preprocess
from reslearn.interop.bundle import recorded_preprocess, recorded_spec
from reslearn.interop.dialect import FIRST_CONVOLUTIONS
from reslearn.interop.identify import identify_checkpoint
from reslearn.interop.identity import NUM_BATCHES_TRACKED, Identity
from reslearn.interop.pretrained import local_path, published_statistics, published_weights
from reslearn.interop.read import read_checkpoint
from reslearn.interop.stated import stated_input
from reslearn.interop.stored import WeightsError, abbreviate, first_not_finite
from reslearn.models import Network
from reslearn.switches import SWITCHES

PreprocessOrigin = Literal["recorded", "published", "stated", "assumed", "unknown"]
KNOWN_ORIGINS = ("recorded", "published", "stated")
"""Origins of a preprocessing that is no guess."""

_NUM_LISTED = 8
_HEAD = "head.fc."
# Switches that decide which function a network computes with given weights. They belong to the
# weights.
OUTPUT_SWITCHES = tuple(name for name, switch in SWITCHES.items() if switch.decides_output)


@dataclass(frozen=True, kw_only=True)
class LoadReport:
    """The result of `load_weights`.

    Attributes:
        left_initialized: Tensors of the network that keep their initial values.
        adapted: Tensors of the network whose input channels were adapted.
        unused: Names in the file that were not loaded.
    """

    identity: Identity
    left_initialized: tuple[str, ...]
    adapted: tuple[str, ...]
    unused: tuple[str, ...]

    def summary(self) -> str:
        """Return the report as one line of text."""
        identity = self.identity
        name, dialect = identity.spec["name"], identity.dialect.name
        parts = [f"{identity.checkpoint.path}: {name} in dialect {dialect}"]
        for heading, names in (
            ("left as initialized", self.left_initialized),
            ("adapted to the number of input channels", self.adapted),
            ("unused", self.unused),
        ):
            if names:
                parts.append(f"{heading}: {abbreviate(names, _NUM_LISTED)}")
        return "; ".join(parts)


def identify(source: Path | str, *, entry: str | None = None) -> Identity:
    """Identify the project and the network that weights come from.

    Args:
        source: A file, a folder of `save_pretrained`, a name such as "torchvision:resnet50" or
            "timm:resnet50.a1_in1k", or a URL.
        entry: Which state dict of the file to use, such as "state_dict_ema", or the beginning of
            names in it, such as "state_dict:module.encoder_q.". By default see
            `identify_checkpoint`.

    Raises:
        WeightsError: If the source cannot be read, or holds no network of the catalog.
    """
    return identify_checkpoint(read_checkpoint(local_path(source)), entry=entry)


def load_network(
    source: Path | str | Identity,
    *,
    num_classes: int | None = None,
    in_channels: int | None = None,
    partial: bool = False,
    entry: str | None = None,
    **switches: Any,
) -> Network:
    """Build the network that the weights come from, load them, and return it in evaluation mode.

    Args:
        num_classes: By default the number of classes of the weights. 0: no classifier; the
            network returns pooled features.
        in_channels: By default the number of input channels of the weights.
        partial: Leave out tensors that do not match.
        entry: As in `identify`.
        switches: Values that cannot be inferred from the weights (see `Identity.undetermined`),
            such as stride_in="1x1".

    Raises:
        WeightsError: If the source cannot be used, or has no head and `num_classes` is None.
    """
    identity = source if isinstance(source, Identity) else identify(source, entry=entry)
    identity = identity.with_switches(**switches)
    spec = dict(identity.spec)
    if in_channels is not None:
        spec["in_channels"] = in_channels
    num_outputs = num_classes if num_classes is not None else identity.num_classes
    if num_outputs is None:
        raise WeightsError(
            f"{identity.checkpoint.path} has no head; pass num_classes to add a new head, "
            "or num_classes=0 for a network that returns features"
        )
    if not partial and num_outputs == identity.num_classes:
        # The file holds every value, and to draw them first would take most of the time.
        with torch.device("meta"):
            net = models.build(**spec, num_classes=num_outputs)
        net.to_empty(device="cpu")
        if not load_weights(net, identity).left_initialized:
            return net.eval()
    net = models.build(**spec, num_classes=num_outputs)
    load_weights(net, identity, partial=partial)
    return net.eval()


def load_weights(
    net: Network, source: Path | str | Identity, *, partial: bool = False, entry: str | None = None
) -> LoadReport:
    """Load weights into `net` by the rules at the top of this file.

    Args:
        net: Modified in place. Its dtype, device and mode stay.
        partial: Leave out tensors that do not match, and ignore switches that differ.
        entry: As in `identify`.

    Raises:
        WeightsError: If the weights do not fit. Then `net` is unchanged.
    """
    identity = source if isinstance(source, Identity) else identify(source, entry=entry)
    has_same_depth = _body_layers(net.state_dict()) == _body_layers(identity.names)
    if not partial and has_same_depth:
        _check_same_function(net, identity)
    match = _match(net.state_dict(), identity)
    if match.problems and not partial:
        count = len(match.problems)
        depth = "" if has_same_depth else f"{identity.spec['name']} is not {net.name}: "
        subject = "1 tensor does" if count == 1 else f"{count} tensors do"
        raise WeightsError(
            f"{identity.checkpoint.path}: {depth}{subject} "
            f"not match: {abbreviate(match.problems, _NUM_LISTED)}; "
            "pass partial=True (--partial) to leave them out"
        )
    if (name := first_not_finite(match.tensors)) is not None:
        raise WeightsError(
            f"{identity.checkpoint.path}: {name} holds NaN or infinity, so the network cannot be "
            "used: choose a checkpoint from before the training diverged"
        )
    net.load_state_dict(match.tensors, strict=False)
    return LoadReport(
        identity=identity,
        left_initialized=tuple(match.left_initialized),
        adapted=tuple(match.adapted),
        unused=tuple(dict.fromkeys(match.unused)),
    )


def _body_layers(names: Iterable[str]) -> set[str]:
    """Return the weights of the bodies of all blocks. Networks of other depths have others."""
    return {name for name in names if ".body.conv" in name and name.endswith(".weight")}


@dataclass
class _Match:
    """Tensors to load, the lists of `LoadReport`, and a line for each mismatch."""

    tensors: dict[str, Tensor] = field(default_factory=dict)
    left_initialized: list[str] = field(default_factory=list)
    adapted: list[str] = field(default_factory=list)
    unused: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def _match(expected: Mapping[str, Tensor], identity: Identity) -> _Match:
    """Compare the state dict of a network with the identified weights."""
    match = _Match(unused=list(identity.unmatched))
    for name, name_in_file in identity.names.items():
        if name in expected:
            continue
        if name.startswith(_HEAD):  # the network was built with num_classes=0
            match.unused.append(name_in_file)
        else:
            match.problems.append(f"{name} (not in the network)")
    for name, tensor in expected.items():
        if name in identity.names:
            _match_tensor(match, name, tensor, identity)
        elif name.endswith(NUM_BATCHES_TRACKED) or _is_absent_bias(match, name):
            match.tensors[name] = torch.zeros_like(tensor)
        else:
            match.left_initialized.append(name)
            if not name.startswith(_HEAD):
                match.problems.append(f"{name} (not in the file)")
    match.problems += [f"{name} (in the file only)" for name in identity.unexplained]
    return match


def _is_absent_bias(match: _Match, name: str) -> bool:
    """Return whether this is the bias of a head whose matrix was loaded, and which has no bias."""
    return name == f"{_HEAD}bias" and f"{_HEAD}weight" in match.tensors


def _match_tensor(match: _Match, name: str, expected: Tensor, identity: Identity) -> None:
    """Read one tensor and record in `match` whether it fits."""
    value = identity.read(name)
    problem = ""
    if expected.is_floating_point() and not value.is_floating_point():
        # The weights are quantized. Their scale is another tensor, which we do not know.
        problem = f"{name} ({value.dtype} in the file)"
    else:
        value = value.to(expected.dtype)
        if name.endswith(NUM_BATCHES_TRACKED):
            value = value.reshape(())
        if _differ_in_input_channels(name, value, expected):
            value = adapt_input_channels(value, expected.shape[1])
            match.adapted.append(name)
        if value.shape == expected.shape:
            match.tensors[name] = value
            return
        if not name.startswith(_HEAD):
            shapes = f"{tuple(value.shape)} in the file, {tuple(expected.shape)} in the network"
            problem = f"{name} ({shapes})"
    match.left_initialized.append(name)
    match.unused.append(identity.names[name])
    if problem:
        match.problems.append(problem)


def _differ_in_input_channels(name: str, value: Tensor, expected: Tensor) -> bool:
    return (
        name in FIRST_CONVOLUTIONS
        and value.shape != expected.shape
        and value.shape[2:] == expected.shape[2:]
    )


def adapt_input_channels(weight: Tensor, channels: int) -> Tensor:
    """Return a first convolution [D, C, h, w] for `channels` input channels, [D, channels, h, w].

    See the rule at the top of this file.
    """
    return weight.sum(1, keepdim=True).expand(-1, channels, -1, -1).div(channels).contiguous()


def _check_same_function(net: Network, identity: Identity) -> None:
    """Raise WeightsError if a switch of the weights differs from the switch of the network.

    Tensors of the same shapes may belong to networks that compute different functions.
    """
    differences = [
        f"{key} {identity.spec[key]!r} of the weights, {net.spec[key]!r} of the network"
        for key in OUTPUT_SWITCHES
        if not _is_compatible(key, net.spec[key], identity)
    ]
    if differences:
        raise WeightsError(
            f"{identity.checkpoint.path}: {'; '.join(differences)}; "
            "build the network with the switches of the weights"
        )


def _is_compatible(key: str, value: Any, identity: Identity) -> bool:
    """Return whether a network with this value of a switch may compute what the weights do."""
    weights_value, dialect_value = identity.spec[key], identity.dialect.spec.get(key)
    if value == weights_value:
        return True
    # Networks of the project differ in this switch, and their files do not show its value.
    # (Shortcut options follow below: some leave different files.)
    if isinstance(dialect_value, list) and value in dialect_value and key != "shortcut":
        return True
    # A bundle records all switches of its network, so another value is surely wrong.
    if recorded_spec(identity.checkpoint.metadata) is not None:
        return False
    if key == "shortcut":
        # Option A has no weights. So its file equals the file of a network without shortcuts.
        return {weights_value, value} == {"A", None}
    # The project says nothing about the switch, and the tensors do not show its value.
    return dialect_value is None and SWITCHES[key].in_weights != "visible"


def preprocess_origin(identity: Identity, *, source: Path | str = "") -> PreprocessOrigin:
    """Return where `preprocess_with` takes the preprocessing of these weights from.

    - "recorded": the file holds it.
    - "published": it is published with the weights of the name `source`.
    - "stated": the file, or one beside it, states mean and deviation (`stated_input`).
    - "assumed": a file has the names of a project whose published weights use it. The file itself
      may have been trained with another.
    - "unknown": `preprocess_with` returns None.
    """
    if recorded_preprocess(identity.checkpoint.metadata) is not None:
        return "recorded"
    if str(source) not in published_weights() and stated_input(identity).mean is not None:
        return "stated"
    if not (published_statistics(str(source)) or identity.dialect.preprocess):
        return "unknown"
    return "published" if str(source) in published_weights() else "assumed"


def preprocess_with(
    identity: Identity, *, size_px: int, channels: int, source: Path | str = ""
) -> Preprocess | None:
    """Return the preprocessing that belongs to the weights, for images of this size.

    A bundle holds its own preprocessing. Otherwise mean and standard deviation of each channel come
    from the published name `source`, from what the file states, or else from the dialect:
    `preprocess_origin` says which.

    Args:
        size_px: Side of the square images.
        source: The source that `identity` was made from.

    Returns:
        None if the preprocessing is unknown.

    Raises:
        WeightsError: If the preprocessing of a bundle does not fit images of this size.
    """
    recorded = recorded_preprocess(identity.checkpoint.metadata)
    if recorded is not None:
        return _resized(recorded, size_px, channels, identity.checkpoint.path)
    statistics: Mapping[str, Any] | None = published_statistics(str(source))
    statistics = statistics or _stated_statistics(identity) or identity.dialect.preprocess
    if not statistics or channels != len(statistics["mean"]):
        return None
    return Preprocess(
        size_px=size_px,
        channels=channels,
        mean=torch.tensor(statistics["mean"], dtype=torch.float32) * 255,
        scale=torch.tensor(statistics["std"], dtype=torch.float32) * 255,
        padding="after-mean",
    )


def _stated_statistics(identity: Identity) -> Mapping[str, Any]:
    """Return mean and deviation that the file of a network states; else an empty mapping."""
    stated = stated_input(identity)
    return {} if stated.mean is None else {"mean": stated.mean, "std": stated.std}


def _resized(preprocess: Preprocess, size_px: int, channels: int, path: Path) -> Preprocess:
    """Return the same preprocessing for images of another size.

    A per-pixel mean has the size of its images. Its mean per channel is used for other sizes.
    """
    if preprocess.channels != channels:
        raise WeightsError(
            f"{path}: its preprocessing is for images of {preprocess.channels} channels, but these "
            f"images have {channels}"
        )
    if preprocess.size_px == size_px:
        return preprocess
    mean, shorter_px = preprocess.mean, preprocess.shorter_px
    if mean.ndim == 3:
        mean = mean.mean(dim=(0, 1))
    if shorter_px is not None:
        shorter_px = round(shorter_px * size_px / preprocess.size_px)
    return replace(preprocess, size_px=size_px, mean=mean, shorter_px=shorter_px)
