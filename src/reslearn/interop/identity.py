"""What a table of weights is: the project it comes from (dialect), and its network (spec)."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from reslearn import models
from reslearn.interop.bundle import recorded_spec
from reslearn.interop.dialect import BY_STRUCTURE, Dialect
from reslearn.interop.stored import Checkpoint, StoredTensor, WeightsError
from reslearn.switches import SWITCHES

# torch has had this counter since 0.4.1; other frameworks do not have it. It may be missing.
NUM_BATCHES_TRACKED = "num_batches_tracked"


@dataclass(frozen=True, kw_only=True)
class FurtherNetwork:
    """Another network of the same file.

    Attributes:
        entry: The value of `--entry` that takes it.
        name: Its name in the catalog.
        is_average: Whether its name says that it averages the weights of a network.
    """

    entry: str
    name: str
    is_average: bool


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
        unmatched: Names in the file that are no part of a network.
        beside: Those of `unmatched` that lie beside the network, such as counters and the parts of
            a detector. The network computes the same without them.
        further: Other networks of the file.
        unread_averages: Tables of the file whose names are those of averages, without a network.
        notes: Sentences about switches that the weights cannot show.
        stated_switches: Switches that the weights do not show, and the file, or one beside it,
            states.
    """

    checkpoint: Checkpoint
    entry: str
    dialect: Dialect
    prefix: str
    spec: Mapping[str, Any]
    num_classes: int | None
    names: Mapping[str, str]
    unmatched: tuple[str, ...]
    beside: tuple[str, ...] = ()
    further: tuple[FurtherNetwork, ...] = ()
    unread_averages: tuple[str, ...] = ()
    notes: tuple[str, ...]
    stated_switches: tuple[str, ...] = ()

    @property
    def tensors(self) -> Mapping[str, StoredTensor]:
        return self.checkpoint.entries[self.entry]

    @property
    def has_bottlenecks(self) -> bool:
        return any(".body.conv3." in name for name in self.names)

    @property
    def publisher(self) -> str:
        """The project whose published weights have the usual preprocessing of this file."""
        return "torchvision" if self.dialect.name == BY_STRUCTURE else self.dialect.name

    @property
    def unexplained(self) -> tuple[str, ...]:
        """Names of `unmatched` that may change what the network computes."""
        beside = set(self.beside)
        return tuple(name for name in self.unmatched if name not in beside)

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
            and name not in self.stated_switches
            and switch.applies(has_bottlenecks=self.has_bottlenecks, shortcut=self.spec["shortcut"])
        )

    @property
    def plain_name(self) -> str | None:
        """The network without shortcuts that has the same tensors; None if there is none.

        Shortcuts of option A have no weights, so a file does not show whether they are there.
        """
        name = str(self.spec["name"])
        is_recorded = recorded_spec(self.checkpoint.metadata) is not None
        if self.spec["shortcut"] != "A" or is_recorded or not name.startswith("resnet"):
            return None
        return name.replace("resnet", "plain", 1)

    def with_switches(self, **switches: Any) -> "Identity":
        """Return a copy with user-supplied values for switches that are `undetermined`.

        Args:
            switches: Values by switch. `name` may be `plain_name`.

        Raises:
            WeightsError: If a switch is visible in the weights, or has no effect on this network.
            ValueError: If the value of a switch is not allowed.
        """
        is_plain = "name" in switches and switches["name"] == self.plain_name
        names = (*self.undetermined, *(("name",) if is_plain else ()))
        for key, value in switches.items():
            if key not in names:
                raise WeightsError(self._no_such_switch(key, value))
        spec = {**self.spec, **switches}
        if is_plain:
            for key in ("shortcut", "zero_pad", "subsample"):
                del spec[key]
        with torch.device("meta"):
            net = models.build(**spec, num_classes=1)
        return replace(self, spec={key: net.spec[key] for key in self.spec})

    def _no_such_switch(self, key: str, value: Any) -> str:
        """Return one line about a switch that cannot be set."""
        possible = list(self.undetermined)
        if self.plain_name is not None:
            possible.append(f"name={self.plain_name!r}")
        reason = f"the weights of this {self.spec['name']} show it, or it has no effect"
        if key in self.stated_switches:
            reason = f"the file, or one beside it, states {key}={self.spec[key]!r}"
        return (
            f"{self.checkpoint.path}: {key}={value!r} cannot be set; {reason}; switches that may "
            f"be set: {', '.join(possible) or 'none'}"
        )

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
        file_name = self.dialect.file_name(name, self.prefix)
        if file_name is None or not self.dialect.extra:
            return None
        stored = self.tensors.get(file_name)
        return stored.read() if stored is not None else None


def _convolution_before(batch_norm: str) -> str:
    parent, _, last = batch_norm.rpartition(".")
    return f"{parent}.{last.replace('bn', 'conv')}"
