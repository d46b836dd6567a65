"""What can be said of a file of weights: whose, of which network, in which state. For people (`lines`) and programs (`as_json`)."""

import shlex
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from reslearn import models
from reslearn.interop.bundle import preprocess_of
from reslearn.interop.identify import Identity, identify_checkpoint
from reslearn.interop.named import fetched
from reslearn.interop.read import read_checkpoint


@dataclass(frozen=True, kw_only=True)
class Inspection:
    """A file of weights, looked at. parameters and macs are of one image of size_px; num_classes is None for a backbone."""

    path: str
    container: str
    entry: str
    entries: tuple[str, ...]
    averages: tuple[str, ...]
    others: tuple[str, ...]
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
    notes: tuple[str, ...]
    command: str

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)

    def lines(self) -> list[str]:
        """A line for each thing that can be said."""
        model = self.model
        kind = "pre-activation " if model["preactivation"] else ""
        shortcut = f"shortcut {model['shortcut']}" + (
            ", averaged before it projects" if model["shortcut_pool"] else ""
        )
        wide = "".join(
            f", {key} {model[key]}"
            for key, usual in (("groups", 1), ("base_width", 64), ("width", 1))
            if model[key] != usual
        )
        stride = f", stride in the {model['stride_in']}" if self.bottleneck else ""
        head = "no head" if self.num_classes is None else f"{self.num_classes} classes"
        said = [
            f"{self.path}: {self.container}, names of {self.dialect}"
            + (f" behind {self.prefix!r}" if self.prefix else ""),
            f"{kind}{model['name']}: {shortcut}, stem {model['stem']}{stride}{wide}",
            f"{head}, {model['in_channels']} input channels, {'batch norm' if model['normalize'] else 'no batch norm'}",
            f"{self.parameters:,} parameters, {self.macs:,} MACs for an image of {self.size_px} x {self.size_px}; "
            + ", ".join(f"{count} tensors of {dtype}" for dtype, count in self.dtypes.items()),
        ]
        if len(self.entries) > 1 or self.others:
            taken = f"taken: {self.entry or 'the file itself'}"
            beside = (
                f"averages: {', '.join(self.averages)}"
                if self.averages
                else "no average of the weights"
            )
            optimizer = "with optimizer state" if self.has_optimizer else "no optimizer state"
            said.append(
                f"{taken}; {beside}; {optimizer}; beside it: {', '.join(self.others) or 'nothing'}"
            )
        said += [f"not a finite number in: {_some(self.not_finite)}"] if self.not_finite else []
        said += [f"all zero: {_some(self.all_zero)}"] if self.all_zero else []
        said += [f"no part of the network: {_some(self.unmatched)}"] if self.unmatched else []
        return [*said, *self.notes, f"to start from it: {self.command}"]


def inspect_file(
    source: Path | str, *, entry: str | None = None, size_px: int | None = None
) -> Inspection:
    """Raises WeightsError in one line for what is no file of weights of a network here."""
    checkpoint = read_checkpoint(fetched(source))
    identity = identify_checkpoint(checkpoint, entry=entry)
    own = preprocess_of(checkpoint.metadata)
    usual = own.size_px if own is not None else (32 if identity.spec["stem"] == "cifar" else 224)
    size = size_px if size_px is not None else usual
    with torch.device("meta"):
        net = models.build(**identity.spec, num_classes=identity.num_classes or 1)
    counted = models.complexity(net, (int(identity.spec["in_channels"]), size, size))
    heads = (
        [tensor for name, tensor in net.named_parameters() if name.startswith("head.fc")]
        if identity.num_classes is None
        else []
    )
    head_parameters, head_macs = (
        sum(tensor.numel() for tensor in heads),
        sum(tensor.numel() for tensor in heads if tensor.ndim > 1),
    )
    not_finite, all_zero = _odd(identity)
    return Inspection(
        path=str(source),
        container=checkpoint.container,
        entry=identity.entry,
        entries=tuple(checkpoint.entries),
        averages=checkpoint.ema,
        others=checkpoint.others,
        has_optimizer=checkpoint.has_optimizer,
        dialect=identity.dialect.name,
        prefix=identity.prefix,
        model=dict(identity.spec),
        bottleneck=any(".body.conv3." in name for name in identity.names),
        num_classes=identity.num_classes,
        dtypes=dict(
            Counter(
                str(identity.tensors[name].dtype).removeprefix("torch.")
                for name in identity.names.values()
            )
        ),
        size_px=size,
        parameters=counted.parameters - head_parameters,
        macs=counted.macs - head_macs,
        not_finite=not_finite,
        all_zero=all_zero,
        unmatched=identity.unmatched,
        notes=(*identity.notes, *identity.dialect.notes),
        command=_command(str(source), identity, entry),
    )


def _command(source: str, identity: Identity, entry: str | None) -> str:
    """What starts a training from it, as it stands: of this table, and without what is no part of the network."""
    table = f" --set {shlex.quote(f'init.entry={entry}')}" if entry is not None else ""
    return f"reslearn train DATA --init {shlex.quote(source)}{table}{' --partial' if identity.unmatched else ''}"


def _odd(identity: Identity) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names in the file with numbers that are not finite, and weights without any but zero. One tensor in memory at a time."""
    not_finite, all_zero = [], []
    for name, theirs in identity.names.items():
        tensor = identity.tensors[theirs].read()
        if tensor.is_floating_point():
            not_finite += [] if bool(tensor.isfinite().all()) else [theirs]
            all_zero += (
                [theirs]
                if name.endswith(("weight", "running_var")) and not bool(tensor.any())
                else []
            )
    return tuple(not_finite), tuple(all_zero)


def _some(names: tuple[str, ...]) -> str:
    return ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")
