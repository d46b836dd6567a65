"""Segments of a traced network in blocks, as in the paper (Sec. 3.1: F has 2 or 3 layers).

A layer is a convolution or linear map with its norm and activation. A block has two layers, or
three if one would be left over. The first and the last layer of a network belong to no block.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from torch import fx

from reslearn.models.tracing import Segment, Trace, count_layers


@dataclass(frozen=True, kw_only=True, eq=False)
class Block:
    """Consecutive segments that make one or more layers.

    Attributes:
        name: Name of the first module with parameters.
    """

    name: str
    segments: tuple[Segment, ...]
    num_layers: int

    @property
    def start(self) -> fx.Node:
        """The value that enters the first segment."""
        return self.segments[0].start

    @property
    def end(self) -> fx.Node:
        """The value that leaves the last segment."""
        return self.segments[-1].end

    @property
    def in_shape(self) -> tuple[int, ...]:
        """Shape of the input, with the batch dimension."""
        return self.segments[0].in_shape

    @property
    def out_shape(self) -> tuple[int, ...]:
        """Shape of the output, with the batch dimension."""
        return self.segments[-1].out_shape

    @property
    def keeps_shape(self) -> bool:
        """Whether input and output have the same shape."""
        return self.in_shape == self.out_shape

    @property
    def modules(self) -> tuple[str, ...]:
        """Names of the modules with parameters."""
        names: list[str] = []
        for segment in self.segments:
            names += segment.modules
        return tuple(names)


def blocks(traced: Trace, *, layers_per_block: int = 2) -> list[Block]:
    """Return the blocks of a network in order, without its first and last layer.

    Pools and views end a block. A part with branches is a block of its own.
    """
    if layers_per_block < 1:
        raise ValueError(f"layers_per_block = {layers_per_block}: allowed are 1 and more")
    all_blocks: list[Block] = []
    for run in _runs(layers(traced)):
        all_blocks += _grouped(run, layers_per_block)
    return all_blocks


def layers(traced: Trace) -> list[Block | None]:
    """Return the layers of a network in order, and None for a pool or a view between them.

    A norm directly before a layer belongs to this layer (pre-norm). All other norms, activations
    and dropouts belong to the layer before them.
    """
    all_layers: list[Block | None] = []
    pending: list[Segment] = []  # segments that belong to the next layer
    segments = traced.segments
    for index, segment in enumerate(segments):
        if segment.role in ("layer", "branches"):
            all_layers.append(_layer(traced, (*pending, segment)))
            pending = []
        elif segment.role == "other":
            all_layers.append(None)
            pending = []
        elif segment.role == "norm" and _layer_follows(segments[index + 1 :]):
            pending = [segment]
        elif pending:
            pending.append(segment)
        elif all_layers and all_layers[-1] is not None:
            last = all_layers[-1]
            all_layers[-1] = replace(last, segments=(*last.segments, segment))
        else:
            all_layers.append(None)  # something before any layer, such as a norm of the inputs
    return all_layers


def _layer(traced: Trace, segments: tuple[Segment, ...]) -> Block:
    num_layers = count_layers(traced.graph_module, segments[-1])
    layer = Block(name="", segments=segments, num_layers=num_layers)
    return replace(layer, name=layer.modules[0])


def _layer_follows(segments: Sequence[Segment]) -> bool:
    following = next((segment for segment in segments if segment.role != "dropout"), None)
    return following is not None and following.role in ("layer", "branches")


def _runs(all_layers: Sequence[Block | None]) -> list[list[Block]]:
    """Return sequences of adjacent layers, without the first and the last layer of the network."""
    weighted = [layer for layer in all_layers if layer is not None]
    ends = weighted[:1] + weighted[-1:]
    runs: list[list[Block]] = [[]]
    for layer in all_layers:
        if layer is None:
            runs.append([])
        elif layer not in ends:
            runs[-1].append(layer)
    return [run for run in runs if run]


def _grouped(run: Sequence[Block], size: int) -> list[Block]:
    """Group the layers of a run into blocks of `size`, the last one larger if a layer is left over.

    A part with branches that has `size` layers inside is a block of its own.
    """
    groups: list[list[Block]] = []
    for layer in run:
        has_room = bool(groups) and len(groups[-1]) < size and _num_layers(groups[-1]) < size
        if has_room and layer.num_layers < size:
            groups[-1].append(layer)
        else:
            groups.append([layer])
    if len(groups) > 1 and _num_layers(groups[-1]) < size and len(groups[-2]) == size:
        last = groups.pop()
        groups[-1] = groups[-1] + last
    return [_joined(group) for group in groups if _num_layers(group) >= size]


def _num_layers(group: Sequence[Block]) -> int:
    return sum(layer.num_layers for layer in group)


def _joined(group: Sequence[Block]) -> Block:
    segments: list[Segment] = []
    for layer in group:
        segments += layer.segments
    return Block(name=group[0].name, segments=tuple(segments), num_layers=_num_layers(group))
