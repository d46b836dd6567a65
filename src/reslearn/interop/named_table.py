"""A table of tensors under the names of a dialect, compared with the network it would be."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch

from reslearn import models
from reslearn.interop.bundle import parse_spec, recorded_spec
from reslearn.interop.dialect import Dialect, native_shape
from reslearn.interop.foreign_parts import (
    is_inert,
    is_learned_activation,
    is_query,
    part_of,
    with_part,
)
from reslearn.interop.identity import NUM_BATCHES_TRACKED, Identity
from reslearn.interop.infer import NotAResNet, infer
from reslearn.interop.layer_settings import (
    notes_on_epsilon,
    other_settings,
    settings_by_native_name,
    stated_stride,
)
from reslearn.interop.stored import Checkpoint, LayerSettings, StoredTensor, is_average
from reslearn.interop.table_layers import LayerPath, path_of
from reslearn.models import Network


class AnotherFunction(NotAResNet):
    """A table has a plain ResNet and, inside it, a tensor of something else."""


@dataclass(frozen=True)
class NamedTable:
    """A state dict, seen through the names of a dialect behind a prefix.

    Attributes:
        tensors: The tensors of the entry, or those with the beginning that the user asked for.
    """

    checkpoint: Checkpoint
    entry: str
    tensors: Mapping[str, StoredTensor]
    dialect: Dialect
    prefix: str

    @cached_property
    def native_names(self) -> dict[str, str]:
        """The names in the file that the dialect knows, each with its native name."""
        if self.dialect.exact_names:
            return {name: native for native, name in self.dialect.exact_names.items()}
        names: dict[str, str] = {}
        for full_name in self.tensors:
            if full_name.startswith(self.prefix):
                native_name = self.dialect.native_name(full_name.removeprefix(self.prefix))
                if native_name is not None:
                    names[full_name] = native_name
        return names

    @property
    def settings(self) -> dict[str, LayerSettings]:
        """The settings of layers in a pickled module by native name. Other files have none."""
        names = {native: name for name, native in self.native_names.items()}
        return settings_by_native_name(names, self.checkpoint.layer_settings.get(self.entry, {}))

    @cached_property
    def native_shapes(self) -> dict[str, tuple[int, ...]]:
        """Native names and native shapes of the tensors that the dialect knows."""
        return {
            name: native_shape(self.dialect, name, self.tensors[full_name].shape)
            for full_name, name in self.native_names.items()
        }


def verify(table: NamedTable) -> Identity:
    """Infer the network of a table, and compare its tensors with the file.

    Raises:
        NotAResNet: If it is no network of the catalog, or a tensor is missing or has another shape.
        AnotherFunction: If all tensors of the network are there, and others inside it.
    """
    shapes = table.native_shapes
    spec, notes = _recorded_spec(table) or infer(shapes, table.dialect)
    settings = table.settings
    stride_in = stated_stride(settings) if "stride_in" in spec else None
    if stride_in is not None:
        spec["stride_in"] = stride_in
        notes = [note for note in notes if "stride in the 1x1" not in note]
    num_classes = spec.pop("num_classes", None) or None  # 0 in files of a network without a head
    try:
        with torch.device("meta"):
            net = models.build(**spec, num_classes=num_classes or 1)
    except (ValueError, TypeError) as error:
        raise NotAResNet(str(error)) from None
    names = _match_names(table, net, has_head=num_classes is not None)
    used = {*names.values(), *_extra_names(table, net)}
    unmatched = tuple(name for name in table.tensors if name not in used)
    _refuse_parts_inside(table, names, unmatched)
    for difference in other_settings(net, names, settings):
        raise AnotherFunction(difference)
    return Identity(
        checkpoint=table.checkpoint,
        entry=table.entry,
        dialect=table.dialect,
        prefix=table.prefix,
        spec={key: value for key, value in net.spec.items() if key != "num_classes"},
        num_classes=num_classes,
        names=names,
        unmatched=unmatched,
        notes=(*notes, *notes_on_epsilon(net, settings)),
        stated_switches=() if stride_in is None else ("stride_in",),
    )


def _recorded_spec(table: NamedTable) -> tuple[dict[str, Any], list[str]] | None:
    """Return the spec in a file written by reslearn, and no notes; None for other files."""
    text = recorded_spec(table.checkpoint.metadata)
    if table.dialect.name != "reslearn" or text is None:
        return None
    try:
        return parse_spec(text, num_tensors=len(table.native_shapes)), []
    except ValueError as error:
        raise NotAResNet(f"its metadata describe no network: {error}") from None


def _match_names(table: NamedTable, net: Network, *, has_head: bool) -> dict[str, str]:
    """Return the name in the file of each tensor of the network.

    Raises:
        NotAResNet: If a tensor is missing or has another shape.
    """
    names: dict[str, str] = {}
    for name, expected in net.state_dict().items():
        is_counter = name.endswith(NUM_BATCHES_TRACKED)
        full_name = table.dialect.file_name(name, table.prefix)
        stored = table.tensors.get(full_name) if full_name is not None else None
        if full_name is None or stored is None:
            # A head may have no bias: it is then zero (load.py).
            is_optional = name == "head.fc.bias" or (not has_head and name.startswith("head.fc"))
            if is_counter or is_optional:
                continue
            raise NotAResNet(_lacking(table, name, net.name))
        shape = native_shape(table.dialect, name, stored.shape)
        is_single_count = is_counter and stored.num_values == 1
        if shape != tuple(expected.shape) and not is_single_count:
            raise NotAResNet(
                f"{full_name} is {tuple(stored.shape)}, where {net.name} has "
                f"{tuple(expected.shape)}{_cut_off(name, shape, table)}"
            )
        names[name] = full_name
    return names


def _lacking(table: NamedTable, name: str, network: str) -> str:
    """Return one line about a tensor that the network has and the file lacks."""

    def file_name(native_name: str) -> str | None:
        full_name = table.dialect.file_name(native_name, table.prefix)
        return full_name if full_name in table.tensors else None

    layer = name.rpartition(".")[0]
    statistics = file_name(f"{layer}.running_mean")
    if statistics is not None and name in (f"{layer}.weight", f"{layer}.bias"):
        return (
            f"the batch norm of {statistics} has no weight and bias (affine=False), and those of "
            f"{network} have"
        )
    shortcut = file_name(f"{layer.removesuffix('.bn')}.conv.weight")
    if layer.endswith(".shortcut.bn") and shortcut is not None:
        return f"the shortcut {shortcut} has no batch norm, and those of {network} have"
    return f"it lacks {table.dialect.file_name(name, table.prefix) or name}, which {network} has"


def _cut_off(name: str, shape: Sequence[int], table: NamedTable) -> str:
    """Return an addition if three stages look like those of a network with four."""
    first_stage = table.native_shapes.get("stage1.0.body.conv1.weight", ())
    is_cut_off = name == "stem.conv.weight" and shape[0] in first_stage[:1]
    return "; a network of four stages without its last one has such a shape" if is_cut_off else ""


def _extra_names(table: NamedTable, net: Network) -> set[str]:
    """Return the names in the file of tensors that only adjust other tensors (see `Identity.read`).

    Raises:
        NotAResNet: If a factor has not one value, or a bias not one value per channel.
    """
    leaves = {extra.split(".")[1] for extra in table.dialect.extra}
    if not leaves:
        return set()
    expected = net.state_dict()
    extra_names: set[str] = set()
    for full_name, native_name in table.native_names.items():
        layer, _, leaf = native_name.rpartition(".")
        weight = expected.get(f"{layer}.weight")
        if weight is None or leaf not in leaves:
            continue
        shape = (1,) if leaf == "factor" else tuple(weight.shape[:1])
        stored_shape = table.tensors[full_name].shape
        if stored_shape != shape:
            raise NotAResNet(f"{full_name} is {stored_shape}, where {shape} is needed")
        extra_names.add(full_name)
    return extra_names


def _refuse_parts_inside(
    table: NamedTable, names: Mapping[str, str], unmatched: tuple[str, ...]
) -> None:
    """Raise AnotherFunction if a tensor lies inside a block, or is used between blocks."""
    blocks = block_paths(names)
    scope = common_path(names.values())
    for name in unmatched:
        stored = table.tensors[name]
        path = path_of(name)
        is_inside = any(path[:length] in blocks for length in range(1, len(path) + 1))
        is_kernel = len(stored.shape) >= 3 and part_of(name, stored.shape) is not None
        is_between = is_kernel and path[: len(scope)] == scope and not is_query(name)
        # An activation of the network itself may stand behind each of its layers.
        is_between |= path[:-1] == scope and is_learned_activation(name, stored.shape)
        is_harmless = is_inert(name, stored) or is_average(name.rpartition(".")[2])
        if (is_inside and not is_harmless) or is_between:
            raise AnotherFunction(
                f"it has {with_part(name, stored.shape)}, so it computes another function than "
                "the plain ResNet with its other tensors, and cannot be loaded as that"
            )


def block_paths(names: Mapping[str, str]) -> set[LayerPath]:
    """Return the path in the file of each block. Flat names, as in Keras, give none."""
    names_by_block: dict[str, list[str]] = {}
    for native_name, name in names.items():
        if native_name.startswith("stage"):
            block = ".".join(native_name.split(".")[:2])
            names_by_block.setdefault(block, []).append(name)
    scope = common_path(names.values())
    paths = {common_path(block_names) for block_names in names_by_block.values()}
    return {path for path in paths if len(path) > len(scope)}


def common_path(names: Iterable[str]) -> LayerPath:
    """Return the deepest path that has all these names."""
    paths = [path_of(name) for name in names]
    first, last = min(paths), max(paths)
    length = 0
    while length < min(len(first), len(last)) and first[length] == last[length]:
        length += 1
    return first[:length]
