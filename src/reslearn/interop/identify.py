"""Whose weights are these, and of which network: a checkpoint to dialect, prefix and the spec that `models.build` takes.

Told by names and shapes alone, and then checked: the network is built without memory, and every tensor must have its shape. What names
and shapes cannot tell (where a bottleneck strides, where option A puts zeros) comes from the dialect and is said in `notes`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from reslearn import models
from reslearn.interop.bundle import own_spec, spec_of
from reslearn.interop.dialect import Dialect, dialects, shape_for_ours
from reslearn.interop.infer import NotAResNet, infer
from reslearn.interop.stored import Checkpoint, Stored, WeightsError
from reslearn.switches import SWITCHES

_MOST_PREFIXES = 16
_UNNEEDED = "num_batches_tracked"  # a counter that torch lacked before 0.4.1 and others never had


@dataclass(frozen=True, kw_only=True)
class Identity:
    """What a table of tensors is.

    names: our name of each tensor that was found, to theirs in the file. num_classes is None where there is no head. unmatched: names
    in the file that are no part of the network. absent: our names that the file lacks, but for counters and a missing head.
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
    def tensors(self) -> Mapping[str, Stored]:
        return self.checkpoint.entries[self.entry]

    @property
    def undetermined(self) -> tuple[str, ...]:
        """Switches that change what these weights compute and leave no trace in them. A file of ours says them itself."""
        if own_spec(self.checkpoint.metadata) is not None:
            return ()
        has_bottlenecks = any(".body.conv3." in name for name in self.names)
        return tuple(
            name
            for name, switch in SWITCHES.items()
            if switch.in_weights == "hidden"
            and switch.applies(has_bottlenecks=has_bottlenecks, shortcut=self.spec["shortcut"])
        )

    def with_switches(self, **switches: Any) -> "Identity":
        """The same, where somebody knows what the weights cannot tell. WeightsError for a switch that they can, or that has no effect."""
        if wrong := [key for key in switches if key not in self.undetermined]:
            raise WeightsError(
                f"{self.checkpoint.path}: {wrong[0]}={switches[wrong[0]]!r}: the file of this {self.spec['name']} tells that, or it has "
                f"no effect; open is {', '.join(self.undetermined) or 'nothing'}"
            )
        with torch.device("meta"):
            net = models.build(
                **{**self.spec, **switches}, num_classes=1
            )  # ValueError for a value that is not allowed
        return replace(self, spec={key: net.spec[key] for key in self.spec})

    def read(self, name: str) -> Tensor:
        """Our tensor `name`, laid out as ours. Statistics are divided by a factor and biases taken off where the dialect has such."""
        tensor = self.dialect.change(name, self.tensors[self.names[name]].read(), to_ours=True)
        layer, leaf = name.rsplit(".", 1)
        if (
            leaf in ("running_mean", "running_var")
            and (factor := self._extra(f"{layer}.factor")) is not None
        ):
            scale = float(factor)
            tensor = tensor / scale if scale else torch.zeros_like(tensor)
        if (
            leaf == "running_mean"
            and (bias := self._extra(f"{_convolution_before(layer)}.bias")) is not None
        ):
            tensor = tensor - bias
        return tensor

    def _extra(self, name: str) -> Tensor | None:
        if name in self.names:  # a bias of ours, in a network without batch norm
            return None
        theirs = self.dialect.theirs(name)
        stored = self.tensors.get(self.prefix + theirs) if theirs and self.dialect.extra else None
        return stored.read() if stored is not None else None


def identify_checkpoint(checkpoint: Checkpoint, *, entry: str | None = None) -> Identity:
    """Raises WeightsError in one line where no dialect fits: the nearest, and why it does not."""
    if entry is not None and entry not in checkpoint.entries:
        raise WeightsError(
            f"{checkpoint.path}: no table {entry!r}; there are {', '.join(map(repr, checkpoint.entries))}"
        )
    entry = checkpoint.main() if entry is None else entry
    tensors = checkpoint.entries[entry]
    found: list[Identity] = []
    failures: list[tuple[int, str]] = []
    for dialect in dialects().values():
        for prefix in _prefixes(dialect, tensors):
            ours = _ours(dialect, prefix, tensors)
            try:
                found.append(_checked(checkpoint, entry, dialect, prefix, ours))
            except NotAResNet as error:
                failures.append((len(ours), f"nearest is {dialect.name}, but {error}"))
    if found:
        return max(found, key=lambda identity: len(identity.names))
    why = (
        max(failures)[1]
        if failures
        else f"{len(tensors)} tensors, {', '.join(list(tensors)[:3])}, ..."
    )
    if checkpoint.container == "ONNX":
        why += "; exporters fold batch norm into convolutions unless they export for training: take the checkpoint that it was made from"
    raise WeightsError(f"{checkpoint.path}: no network that is known here: {why}")


def _prefixes(dialect: Dialect, tensors: Mapping[str, Stored]) -> list[str]:
    """What stands before the name of the first convolution: "", "module.", "backbone.bottom_up.", ...; the shortest few of them.

    Where blocks call theirs the same, each block is one more, longer than that of the network: resnet1202 has 600.
    """
    firsts = [
        name
        for name in (dialect.theirs("stem.conv.weight"), dialect.theirs("stem.conv1.weight"))
        if name
    ]
    found = {
        name.removesuffix(first)
        for name in tensors
        for first in firsts
        if name == first or name.endswith("." + first)
    }
    return sorted(found, key=lambda prefix: (len(prefix), prefix))[:_MOST_PREFIXES]


def _ours(
    dialect: Dialect, prefix: str, tensors: Mapping[str, Stored]
) -> dict[str, tuple[int, ...]]:
    """Our names and our shapes of the tensors that the dialect knows."""
    shapes: dict[str, tuple[int, ...]] = {}
    for theirs, stored in tensors.items():
        name = dialect.ours(theirs.removeprefix(prefix)) if theirs.startswith(prefix) else None
        if name is not None:
            shapes[name] = shape_for_ours(dialect, name, stored.shape)
    return shapes


def _checked(
    checkpoint: Checkpoint,
    entry: str,
    dialect: Dialect,
    prefix: str,
    ours: Mapping[str, tuple[int, ...]],
) -> Identity:
    """NotAResNet where the network that the shapes tell has other tensors than the file."""
    spec, notes = _told_by_file(checkpoint, dialect, num_tensors=len(ours)) or infer(ours, dialect)
    num_classes = spec.pop("num_classes", None)
    try:
        with torch.device("meta"):
            net = models.build(**spec, num_classes=num_classes or 1)
    except (ValueError, TypeError) as error:
        raise NotAResNet(str(error)) from None
    tensors, names = checkpoint.entries[entry], {}
    wanted_tensors = net.state_dict()
    for name, wanted in wanted_tensors.items():
        theirs = dialect.theirs(name)
        stored = tensors.get(prefix + theirs) if theirs is not None else None
        if stored is None:
            if name.endswith(_UNNEEDED) or (num_classes is None and name.startswith("head.fc")):
                continue
            raise NotAResNet(
                f"it lacks {prefix + theirs if theirs else name}, which {net.name} has"
            )
        shape = shape_for_ours(dialect, name, stored.shape)
        if shape != tuple(wanted.shape) and not (
            name.endswith(_UNNEEDED) and stored.num_values == 1
        ):
            raise NotAResNet(
                f"{prefix}{theirs} is {tuple(stored.shape)}, where {net.name} has {tuple(wanted.shape)}"
            )
        names[name] = prefix + str(theirs)
    used = {*names.values(), *_extras(dialect, prefix, tensors, wanted_tensors)}
    unmatched = tuple(name for name in tensors if name not in used)
    spec = {key: value for key, value in net.spec.items() if key != "num_classes"}
    return Identity(
        checkpoint=checkpoint,
        entry=entry,
        dialect=dialect,
        prefix=prefix,
        spec=spec,
        num_classes=num_classes,
        names=names,
        unmatched=unmatched,
        notes=tuple(notes),
    )


def _told_by_file(
    checkpoint: Checkpoint, dialect: Dialect, *, num_tensors: int
) -> tuple[dict[str, Any], list[str]] | None:
    """A file of ours says itself what it is."""
    text = own_spec(checkpoint.metadata)
    if dialect.name != "reslearn" or text is None:
        return None
    try:
        return spec_of(text, num_tensors=num_tensors), []
    except ValueError as error:
        raise NotAResNet(f"its metadata name no network: {error}") from None


def _extras(
    dialect: Dialect, prefix: str, tensors: Mapping[str, Stored], wanted: Mapping[str, Tensor]
) -> set[str]:
    """Their tensors that we have no place for and take into account: a factor is one number, a bias one for each channel."""
    found = set()
    for theirs, stored in tensors.items():
        name = (
            dialect.ours(theirs.removeprefix(prefix))
            if dialect.extra and theirs.startswith(prefix)
            else None
        )
        layer, _, leaf = (name or "").rpartition(".")
        if f"{layer}.weight" not in wanted or not any(
            leaf == extra.split(".")[1] for extra in dialect.extra
        ):
            continue
        shape = (1,) if leaf == "factor" else tuple(wanted[f"{layer}.weight"].shape[:1])
        if stored.shape != shape:
            raise NotAResNet(f"{theirs} is {stored.shape}, where {shape} is needed")
        found.add(theirs)
    return found


def _convolution_before(batch_norm: str) -> str:
    head, _, last = batch_norm.rpartition(".")
    return f"{head}.{last.replace('bn', 'conv')}"
