"""Inspect a weight file: its project, its network and the state of its values."""

import shlex
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from reslearn import models
from reslearn.interop.bundle import recorded_preprocess
from reslearn.interop.dialect import BY_STRUCTURE
from reslearn.interop.identify import identify_checkpoint
from reslearn.interop.identity import Identity
from reslearn.interop.pretrained import local_path
from reslearn.interop.read import read_checkpoint
from reslearn.interop.stated import stated_input, usual_size
from reslearn.interop.stored import abbreviate
from reslearn.models import Network

_NUM_LISTED = 6
_JSON_KEYS = {"other_keys": "others"}


@dataclass(frozen=True, kw_only=True)
class Inspection:
    """The properties of a weight file, for people (`lines`) and for programs (`as_json`).

    Attributes:
        entry: The inspected state dict, one of `entries`.
        other_keys: Top-level names in the file that hold no state dict.
        unknown_objects: Names of functions and classes in the file that were not imported or run.
        num_classes: None for a backbone without a head.
        dtypes: Number of tensors of each dtype.
        parameters: Number of parameters of the network, without a head if the file has none.
        macs: Multiply-adds for one image of `size_px` x `size_px`.
        not_finite: Names in the file of tensors with NaN or infinity.
        all_zero: Names in the file of weights and variances that are all zero.
        unmatched: Names in the file that are no part of a network.
        beside: Those of `unmatched` that lie beside the network, and need no --partial.
        networks: Other networks of the file: "entry" (the value of --entry), "model", "average".
        command: A command that trains a network from the file.
    """

    path: str
    container: str
    entry: str
    entries: tuple[str, ...]
    averages: tuple[str, ...]
    other_keys: tuple[str, ...]
    unknown_objects: tuple[str, ...]
    has_optimizer: bool
    dialect: str
    prefix: str
    model: dict[str, Any]
    bottleneck: bool
    num_classes: int | None
    dtypes: dict[str, int]
    size_px: int
    parameters: int
    macs: int
    not_finite: tuple[str, ...]
    all_zero: tuple[str, ...]
    unmatched: tuple[str, ...]
    beside: tuple[str, ...]
    networks: tuple[dict[str, Any], ...]
    notes: tuple[str, ...]
    command: str

    def as_json(self) -> dict[str, Any]:
        """Return a dict of plain values."""
        return {_JSON_KEYS.get(key, key): value for key, value in asdict(self).items()}

    def lines(self) -> list[str]:
        """Return the inspection as lines of text."""
        lines = [self._origin(), self._architecture(), self._interface(), self._size()]
        if len(self.entries) > 1 or self.other_keys:
            lines.append(self._file_content())
        for heading, names in (
            ("unknown objects, not imported or run", self.unknown_objects),
            ("NaN or infinity in", self.not_finite),
            ("all zero", self.all_zero),
            ("beside the network", self.beside),
            ("no part of the network", self._unexplained()),
        ):
            if names:
                lines.append(f"{heading}: {abbreviate(names, _NUM_LISTED)}")
        lines += [_other_network(network) for network in self.networks[:_NUM_LISTED]]
        return [*lines, *self.notes, f"to train from it: {self.command}"]

    def _unexplained(self) -> tuple[str, ...]:
        """Return names that may change what the network computes."""
        beside = set(self.beside)
        return tuple(name for name in self.unmatched if name not in beside)

    def _origin(self) -> str:
        prefix = f", prefix {self.prefix!r}" if self.prefix else ""
        names = f"dialect {self.dialect}"
        if self.dialect == BY_STRUCTURE:
            names = "names of no known project, read by structure"
        return f"{self.path}: {self.container}, {names}{prefix}"

    def _architecture(self) -> str:
        model = self.model
        parts = [f"shortcut {model['shortcut']}"]
        if model["shortcut_pool"]:
            parts.append("average pooling before the projection")
        parts.append(f"stem {model['stem']}")
        if self.bottleneck:
            parts.append(f"stride in the {model['stride_in']} convolution")
        for key, usual in (("groups", 1), ("base_width", 64), ("width", 1)):
            if model[key] != usual:
                parts.append(f"{key} {model[key]}")
        kind = "pre-activation " if model["preactivation"] else ""
        return f"{kind}{model['name']}: {', '.join(parts)}"

    def _interface(self) -> str:
        head = "no head" if self.num_classes is None else f"{self.num_classes} classes"
        batch_norm = "batch norm" if self.model["normalize"] else "no batch norm"
        return f"{head}, {self.model['in_channels']} input channels, {batch_norm}"

    def _size(self) -> str:
        dtypes = [f"{count} tensors of {dtype}" for dtype, count in self.dtypes.items()]
        return (
            f"{self.parameters:,} parameters, {self.macs:,} MACs for an image of "
            f"{self.size_px} x {self.size_px}; {', '.join(dtypes)}"
        )

    def _file_content(self) -> str:
        averages = f"averages: {', '.join(self.averages)}" if self.averages else "no average"
        optimizer = "with optimizer state" if self.has_optimizer else "no optimizer state"
        return (
            f"inspected entry: {self.entry or 'the file itself'}; {averages}; {optimizer}; "
            f"other keys: {', '.join(self.other_keys) or 'none'}"
        )


def inspect_file(
    source: Path | str, *, entry: str | None = None, size_px: int | None = None
) -> Inspection:
    """Inspect a file, a published name or a URL.

    Args:
        entry: Which state dict of the file to inspect, or the beginning of names in it, as in
            "state_dict:module.encoder_q.".
        size_px: Side of the image for which multiply-adds are counted. By default the image size
            of a bundle, else 32 for a CIFAR stem and 224 for other stems.

    Raises:
        WeightsError: If the source cannot be read, or holds no network of the catalog.
    """
    checkpoint = read_checkpoint(local_path(source))
    identity = identify_checkpoint(checkpoint, entry=entry)
    if size_px is None:
        size_px = _usual_size(identity)
    with torch.device("meta"):
        net = models.build(**identity.spec, num_classes=identity.num_classes or 1)
    cost = models.complexity(net, (int(identity.spec["in_channels"]), size_px, size_px))
    has_head = identity.num_classes is not None
    head_parameters, head_macs = (0, 0) if has_head else _head_cost(net)
    not_finite, all_zero = _suspicious_tensors(identity)
    dtypes = [identity.tensors[name].dtype for name in identity.names.values()]
    return Inspection(
        path=str(source),
        container=checkpoint.container,
        entry=identity.entry,
        entries=tuple(checkpoint.entries),
        averages=_averages(identity),
        other_keys=identity.checkpoint.other_keys,
        unknown_objects=checkpoint.unknown_objects,
        has_optimizer=checkpoint.has_optimizer,
        dialect=identity.dialect.name,
        prefix=identity.prefix,
        model=dict(identity.spec),
        bottleneck=identity.has_bottlenecks,
        num_classes=identity.num_classes,
        dtypes=dict(Counter(str(dtype).removeprefix("torch.") for dtype in dtypes)),
        size_px=size_px,
        parameters=cost.parameters - head_parameters,
        macs=cost.macs - head_macs,
        not_finite=not_finite,
        all_zero=all_zero,
        unmatched=identity.unmatched,
        beside=identity.beside,
        networks=tuple(
            {"entry": each.entry, "model": each.name, "average": each.is_average}
            for each in identity.further
        ),
        notes=(*identity.notes, *_dialect_notes(identity), *stated_input(identity).lines()),
        command=_train_command(str(source), identity, entry),
    )


def _dialect_notes(identity: Identity) -> tuple[str, ...]:
    dialect = identity.dialect
    return dialect.notes + (dialect.bottleneck_notes if identity.has_bottlenecks else ())


def _averages(identity: Identity) -> tuple[str, ...]:
    """Return the values of --entry that take averages, also those inside a table."""
    inside = [each.entry for each in identity.further if each.is_average]
    no_averages = {each.entry for each in identity.further} - set(inside)
    no_averages |= set(identity.unread_averages)
    tables = [entry for entry in identity.checkpoint.averages if entry not in no_averages]
    return tuple(dict.fromkeys([*tables, *inside]))


def _other_network(network: dict[str, Any]) -> str:
    kind = "average" if network["average"] else "other network"
    return f"{kind}: {network['model']}, taken by --entry {shlex.quote(network['entry'])}"


def _usual_size(identity: Identity) -> int:
    preprocess = recorded_preprocess(identity.checkpoint.metadata)
    if preprocess is not None:
        return preprocess.size_px
    return stated_input(identity).size or usual_size(identity)


def _head_cost(net: Network) -> tuple[int, int]:
    """Return the parameters and the multiply-adds of the head."""
    head = [tensor for name, tensor in net.named_parameters() if name.startswith("head.fc")]
    parameters = sum(tensor.numel() for tensor in head)
    macs = sum(tensor.numel() for tensor in head if tensor.ndim > 1)
    return parameters, macs


def _suspicious_tensors(identity: Identity) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return names of tensors that are not finite, and of weights and variances that are all zero.

    Only one tensor at a time is in memory.
    """
    not_finite, all_zero = [], []
    for native_name, name in identity.names.items():
        tensor = identity.tensors[name].read()
        if not tensor.is_floating_point():
            continue
        if not bool(tensor.isfinite().all()):
            not_finite.append(name)
        if native_name.endswith(("weight", "running_var")) and not bool(tensor.any()):
            all_zero.append(name)
    return tuple(not_finite), tuple(all_zero)


def _train_command(source: str, identity: Identity, entry: str | None) -> str:
    """Return a command that trains from this entry."""
    command = f"reslearn train DATA --init {shlex.quote(source)}"
    if entry is not None:
        command += f" --entry {shlex.quote(entry)}"
    return f"{command} --partial" if identity.unexplained else command
