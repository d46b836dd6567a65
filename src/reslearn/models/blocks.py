"""Segments of a network that was laid open, grouped into blocks, as the paper groups layers (Sec. 3.1: F has two or three).

A layer is a convolution or linear map with the norm and activation that go with it; a block is two of them, three where one is left
over. The first and the last layer of a network belong to no block, as in the paper.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from torch import fx

from reslearn.models.tracing import Opened, Segment


@dataclass(frozen=True, kw_only=True, eq=False)
class Block:
    """Consecutive segments: one or more layers. `name` is that of its first module with parameters."""

    name: str
    segments: tuple[Segment, ...]
    num_layers: int

    @property
    def start(self) -> fx.Node:
        return self.segments[0].start

    @property
    def end(self) -> fx.Node:
        return self.segments[-1].end

    @property
    def in_shape(self) -> tuple[int, ...]:
        return self.segments[0].in_shape

    @property
    def out_shape(self) -> tuple[int, ...]:
        return self.segments[-1].out_shape

    @property
    def keeps_shape(self) -> bool:
        return self.in_shape == self.out_shape

    @property
    def modules(self) -> tuple[str, ...]:
        """Names of the modules with parameters."""
        return tuple(name for segment in self.segments for name in segment.modules)


def blocks(opened: Opened, *, layers_per_block: int = 2) -> list[Block]:
    """The network's blocks in order, without its first and last layer. Pools and views end a block; branches are blocks of their own."""
    if layers_per_block < 1:
        raise ValueError(f"layers_per_block = {layers_per_block}: allowed are 1 and more")
    runs = _runs(layers(opened))
    found: list[Block] = []
    for run in runs:
        found += _grouped(run, layers_per_block)
    return found


def layers(opened: Opened) -> list[Block | None]:
    """Segments joined to layers, None where a pool or a view lies between.

    A norm that a layer follows at once belongs to that layer (pre-norm); all other norms, activations and dropouts to the layer before.
    """
    found: list[Block | None] = []
    before: list[Segment] = []
    segments = opened.segments
    for index, segment in enumerate(segments):
        if segment.role in ("layer", "branches"):
            single = Opened(graph_module=opened.graph_module, segments=(segment,))
            joined = (*before, segment)
            found.append(
                Block(
                    name=next(name for one in joined for name in one.modules),
                    segments=joined,
                    num_layers=single.num_layers,
                )
            )
            before = []
        elif segment.role == "other":
            found.append(None)
            before = []
        elif segment.role == "norm" and _layer_follows(segments[index + 1 :]):
            before = [segment]
        elif before:
            before.append(segment)
        elif found and found[-1] is not None:
            last = found[-1]
            found[-1] = replace(last, segments=(*last.segments, segment))
        else:
            found.append(None)  # something before any layer: a norm of the inputs, say
    return found


def _layer_follows(segments: Sequence[Segment]) -> bool:
    following = next((segment for segment in segments if segment.role != "dropout"), None)
    return following is not None and following.role in ("layer", "branches")


def _runs(layers: Sequence[Block | None]) -> list[list[Block]]:
    """Layers in a row, the first and the last of the network taken away."""
    weighted = [layer for layer in layers if layer is not None]
    ends = weighted[:1] + weighted[-1:]
    runs: list[list[Block]] = [[]]
    for layer in layers:
        if layer is None:
            runs.append([])
        elif layer not in ends:
            runs[-1].append(layer)
    return [run for run in runs if run]


def _grouped(run: Sequence[Block], size: int) -> list[Block]:
    """Groups of `size`; one with branches of its own stands alone; what is left over joins the group before."""
    groups: list[list[Block]] = []
    for layer in run:
        alone = layer.num_layers >= size
        if (
            groups
            and not alone
            and len(groups[-1]) < size
            and sum(one.num_layers for one in groups[-1]) < size
        ):
            groups[-1].append(layer)
        else:
            groups.append([layer])
    last = groups[-1]
    if len(groups) > 1 and sum(one.num_layers for one in last) < size and len(groups[-2]) == size:
        groups[-2:] = [groups[-2] + last]
    return [_joined(group) for group in groups if sum(one.num_layers for one in group) >= size]


def _joined(group: Sequence[Block]) -> Block:
    segments = tuple(segment for layer in group for segment in layer.segments)
    return Block(
        name=group[0].name, segments=segments, num_layers=sum(layer.num_layers for layer in group)
    )
