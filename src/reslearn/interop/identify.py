"""Identify a checkpoint: the project it comes from (dialect), and the network (spec) it belongs to.

A spec is inferred from names and shapes alone, and then verified. The network is built on the
meta device, and every tensor in the file must have the shape of the network's tensor. Names and
shapes cannot show some switches, such as the convolution that strides or the position of option
A's zeros. Their values come from the dialect, and `notes` say so.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from reslearn import models
from reslearn.interop.bundle import parse_spec, recorded_spec
from reslearn.interop.dialect import Dialect, dialects, native_shape
from reslearn.interop.infer import NotAResNet, Shapes, infer
from reslearn.interop.stored import Checkpoint, StoredTensor, WeightsError
from reslearn.models import Network
from reslearn.switches import SWITCHES

# torch has had this counter since 0.4.1; other frameworks do not have it. It may be missing.
NUM_BATCHES_TRACKED = "num_batches_tracked"
_MAX_PREFIXES = 16


@dataclass(frozen=True, kw_only=True)
class Identity:
    """The dialect and the network of a state dict.

    A native name is the name of a tensor in reslearn.

    Attributes:
        entry: The entry of the checkpoint that holds the state dict.
        prefix: Text before every name in the file, such as "module.".
        spec: Arguments of `models.build`, without num_classes.
        num_classes: None if the file has no head.
        names: Native name of each identified tensor, to its name in the file.
        unmatched: Names in the file that are no part of the network.
        notes: Sentences about switches that the weights cannot show.
    """

    checkpoint: Checkpoint
    entry: str
    dialect: Dialect
    prefix: str
    spec: Mapping[str, Any]
    num_classes: int | None
    names: Mapping[str, str]
    unmatched: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def tensors(self) -> Mapping[str, StoredTensor]:
        return self.checkpoint.entries[self.entry]

    @property
    def has_bottlenecks(self) -> bool:
        return any(".body.conv3." in name for name in self.names)

    @property
    def undetermined(self) -> tuple[str, ...]:
        """Switches that change the function of the network and leave no trace in the weights.

        Files written by reslearn record all switches, so none is undetermined.
        """
        if recorded_spec(self.checkpoint.metadata) is not None:
            return ()
        return tuple(
            name
            for name, switch in SWITCHES.items()
            if switch.in_weights == "hidden"
            and switch.applies(has_bottlenecks=self.has_bottlenecks, shortcut=self.spec["shortcut"])
        )

    def with_switches(self, **switches: Any) -> "Identity":
        """Return a copy with user-supplied values for switches that are `undetermined`.

        Raises:
            WeightsError: If a switch is visible in the weights, or has no effect on this network.
            ValueError: If the value of a switch is not allowed.
        """
        for key, value in switches.items():
            if key not in self.undetermined:
                raise WeightsError(
                    f"{self.checkpoint.path}: {key}={value!r} cannot be set; the weights of this "
                    f"{self.spec['name']} show it, or it has no effect; switches that may be set: "
                    f"{', '.join(self.undetermined) or 'none'}"
                )
        with torch.device("meta"):
            net = models.build(**{**self.spec, **switches}, num_classes=1)
        return replace(self, spec={key: net.spec[key] for key in self.spec})

    def read(self, name: str) -> Tensor:
        """Read the tensor with this native name, in the native layout.

        Some dialects scale batch-norm statistics by a factor (Caffe), or add a bias before batch
        norm (Keras). The factor is divided out, and the bias is subtracted from the running mean.
        """
        tensor = self.tensors[self.names[name]].read()
        tensor = self.dialect.convert_layout(name, tensor, to_native=True)
        layer, leaf = name.rsplit(".", 1)
        if leaf in ("running_mean", "running_var"):
            factor = self._read_extra(f"{layer}.factor")
            if factor is not None:
                scale = float(factor)
                tensor = tensor / scale if scale else torch.zeros_like(tensor)
        if leaf == "running_mean":
            bias = self._read_extra(f"{_convolution_before(layer)}.bias")
            if bias is not None:
                tensor = tensor - bias
        return tensor

    def _read_extra(self, name: str) -> Tensor | None:
        """Read a tensor of [extra] (see dialect.py), which our networks do not have."""
        if name in self.names:  # a bias of a network without batch norm, which is no extra tensor
            return None
        foreign_name = self.dialect.foreign_name(name)
        if not foreign_name or not self.dialect.extra:
            return None
        stored = self.tensors.get(self.prefix + foreign_name)
        return stored.read() if stored is not None else None


def _convolution_before(batch_norm: str) -> str:
    parent, _, last = batch_norm.rpartition(".")
    return f"{parent}.{last.replace('bn', 'conv')}"


def identify_checkpoint(checkpoint: Checkpoint, *, entry: str | None = None) -> Identity:
    """Identify one state dict of a checkpoint, by default `checkpoint.default_entry()`.

    If several dialects fit, the dialect that explains most tensors is returned.

    Raises:
        WeightsError: If no dialect fits. The message names the nearest dialect and the difference.
    """
    if entry is None:
        entry = checkpoint.default_entry()
    elif entry not in checkpoint.entries:
        raise WeightsError(
            f"{checkpoint.path} has no entry {entry!r}; "
            f"its entries are {', '.join(map(repr, checkpoint.entries))}"
        )
    tensors = checkpoint.entries[entry]
    identities: list[Identity] = []
    failures: list[tuple[int, str]] = []
    for dialect in dialects().values():
        for prefix in _prefixes(dialect, tensors):
            state = _ForeignState(checkpoint, entry, dialect, prefix)
            shapes = state.native_shapes()
            try:
                identities.append(_verify(state, shapes))
            except NotAResNet as error:
                failures.append(
                    (len(shapes), f"the nearest dialect is {dialect.name}, but {error}")
                )
    if identities:
        return max(identities, key=lambda identity: len(identity.names))
    if failures:
        reason = max(failures)[1]
    else:
        reason = f"it has {len(tensors)} tensors: {', '.join(list(tensors)[:3])}, ..."
    if checkpoint.container == "ONNX":
        reason += (
            "; exporters fold batch norm into convolutions unless they export for training: "
            "use the checkpoint that the file was exported from"
        )
    raise WeightsError(f"{checkpoint.path} holds no network of the catalog: {reason}")


def _prefixes(dialect: Dialect, tensors: Mapping[str, StoredTensor]) -> list[str]:
    """Return possible prefixes of all names: "", "module.", "backbone.bottom_up.", ...

    A prefix is the text before the name of the first convolution. In some dialects a block's
    first convolution has the same name, so each block adds a longer prefix; resnet1202 has 600
    blocks. Only the shortest prefixes are returned.
    """
    candidates = [dialect.foreign_name(f"stem.{conv}.weight") for conv in ("conv", "conv1")]
    first_names = [name for name in candidates if name]
    prefixes: set[str] = set()
    for name in tensors:
        for first_name in first_names:
            if name == first_name or name.endswith("." + first_name):
                prefixes.add(name.removesuffix(first_name))
    return sorted(prefixes, key=lambda prefix: (len(prefix), prefix))[:_MAX_PREFIXES]


@dataclass(frozen=True)
class _ForeignState:
    """A state dict, seen through the names of a dialect behind a prefix."""

    checkpoint: Checkpoint
    entry: str
    dialect: Dialect
    prefix: str

    @property
    def tensors(self) -> Mapping[str, StoredTensor]:
        return self.checkpoint.entries[self.entry]

    def native_names(self) -> dict[str, str]:
        """Return the names in the file that the dialect knows, each to its native name."""
        names: dict[str, str] = {}
        for full_name in self.tensors:
            if full_name.startswith(self.prefix):
                native_name = self.dialect.native_name(full_name.removeprefix(self.prefix))
                if native_name is not None:
                    names[full_name] = native_name
        return names

    def native_shapes(self) -> dict[str, tuple[int, ...]]:
        """Return native names and native shapes of the tensors that the dialect knows."""
        return {
            name: native_shape(self.dialect, name, self.tensors[full_name].shape)
            for full_name, name in self.native_names().items()
        }


def _verify(state: _ForeignState, shapes: Shapes) -> Identity:
    """Infer the network and compare its tensors with the file; raise NotAResNet on a mismatch."""
    spec, notes = _read_spec(state, num_tensors=len(shapes)) or infer(shapes, state.dialect)
    num_classes = spec.pop("num_classes", None) or None  # 0 in files of a network without a head
    try:
        with torch.device("meta"):
            net = models.build(**spec, num_classes=num_classes or 1)
    except (ValueError, TypeError) as error:
        raise NotAResNet(str(error)) from None
    names = _match_names(state, net, has_head=num_classes is not None)
    used = {*names.values(), *_extra_names(state, net)}
    return Identity(
        checkpoint=state.checkpoint,
        entry=state.entry,
        dialect=state.dialect,
        prefix=state.prefix,
        spec={key: value for key, value in net.spec.items() if key != "num_classes"},
        num_classes=num_classes,
        names=names,
        unmatched=tuple(name for name in state.tensors if name not in used),
        notes=tuple(notes),
    )


def _read_spec(
    state: _ForeignState, *, num_tensors: int
) -> tuple[dict[str, Any], list[str]] | None:
    """Return the spec in a file written by reslearn, and no notes; None for other files."""
    text = recorded_spec(state.checkpoint.metadata)
    if state.dialect.name != "reslearn" or text is None:
        return None
    try:
        return parse_spec(text, num_tensors=num_tensors), []
    except ValueError as error:
        raise NotAResNet(f"its metadata describe no network: {error}") from None


def _match_names(state: _ForeignState, net: Network, *, has_head: bool) -> dict[str, str]:
    """Return the name in the file of each tensor of the network.

    Raises:
        NotAResNet: If a tensor is missing or has another shape.
    """
    names: dict[str, str] = {}
    for name, expected in net.state_dict().items():
        is_counter = name.endswith(NUM_BATCHES_TRACKED)
        foreign_name = state.dialect.foreign_name(name)
        full_name = state.prefix + (foreign_name or "")
        stored = state.tensors.get(full_name) if foreign_name is not None else None
        if stored is None:
            if is_counter or (not has_head and name.startswith("head.fc")):
                continue
            raise NotAResNet(
                f"it lacks {full_name if foreign_name else name}, which {net.name} has"
            )
        shape = native_shape(state.dialect, name, stored.shape)
        is_single_count = is_counter and stored.num_values == 1
        if shape != tuple(expected.shape) and not is_single_count:
            raise NotAResNet(
                f"{full_name} is {tuple(stored.shape)}, "
                f"where {net.name} has {tuple(expected.shape)}"
            )
        names[name] = full_name
    return names


def _extra_names(state: _ForeignState, net: Network) -> set[str]:
    """Return the names in the file of tensors that only adjust other tensors (see `Identity.read`).

    Raises:
        NotAResNet: If a factor has not one value, or a bias not one value per channel.
    """
    leaves = {extra.split(".")[1] for extra in state.dialect.extra}
    if not leaves:
        return set()
    expected = net.state_dict()
    extra_names: set[str] = set()
    for full_name, native_name in state.native_names().items():
        layer, _, leaf = native_name.rpartition(".")
        weight = expected.get(f"{layer}.weight")
        if weight is None or leaf not in leaves:
            continue
        shape = (1,) if leaf == "factor" else tuple(weight.shape[:1])
        stored_shape = state.tensors[full_name].shape
        if stored_shape != shape:
            raise NotAResNet(f"{full_name} is {stored_shape}, where {shape} is needed")
        extra_names.add(full_name)
    return extra_names
