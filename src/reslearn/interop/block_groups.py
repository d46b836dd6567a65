"""The blocks of a network, from the paths of its convolutions.

A block is the deepest path with two or more convolutions, one of them larger than 1 x 1. So
`layer1.0` of torchvision is a block, and `layers.0.layer` of Hugging Face, whose shortcut lies
beside it. The layers that all blocks have are the body. What only some blocks have is the shortcut.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from reslearn.interop.infer import NotAResNet
from reslearn.interop.table_layers import LayerPath, TableLayer, paths_above

_MAX_LAYOUTS = 64  # different sets of names of convolutions in the blocks of one table
_BODY_LENGTHS = {2: 2, 1: 3}  # by the number of convolutions larger than 1 x 1


@dataclass
class ConvolutionGroup:
    """The convolutions of a block.

    Attributes:
        path: The deepest path of the block that has several convolutions.
        convolutions: The convolutions below it.
        beside: Convolutions beside it in the next path, where no other group is.
        outer_path: The path of the block, with what lies beside.
    """

    path: LayerPath
    convolutions: list[TableLayer] = field(default_factory=list)
    beside: list[TableLayer] = field(default_factory=list)
    outer_path: LayerPath = ()

    def by_name(self) -> dict[LayerPath, TableLayer]:
        """Return the convolutions below the path by the parts of their names behind it."""
        start = len(self.path)
        return {convolution.path[start:]: convolution for convolution in self.convolutions}


@dataclass(frozen=True, kw_only=True)
class BlockConvolutions:
    """The convolutions of a block, by their function."""

    path: LayerPath
    body: tuple[TableLayer, ...]
    shortcut: TableLayer | None

    @property
    def in_channels(self) -> int:
        return self.body[0].shape[1]

    @property
    def out_channels(self) -> int:
        return self.body[-1].shape[0]


@dataclass(frozen=True, kw_only=True)
class GroupedTable:
    """All convolutions of a table.

    Attributes:
        groups: Blocks by their paths, in the order of the convolutions.
        loose: Convolutions outside blocks, each with the deepest path that has it and blocks.
    """

    groups: Mapping[LayerPath, ConvolutionGroup]
    loose: Sequence[tuple[TableLayer, LayerPath]]


def group_convolutions(convolutions: Sequence[TableLayer]) -> GroupedTable:
    """Sort the convolutions of a table into blocks and others."""
    num_all: Counter[LayerPath] = Counter()
    num_spatial: Counter[LayerPath] = Counter()
    for convolution in convolutions:
        for path in paths_above(convolution.path):
            num_all[path] += 1
            num_spatial[path] += convolution.is_spatial
    crowded = {path for path, count in num_all.items() if count >= 2 and num_spatial[path]}
    inner = {ancestor for path in crowded for ancestor in paths_above(path)}
    groups: dict[LayerPath, ConvolutionGroup] = {}
    loose: list[tuple[TableLayer, LayerPath]] = []
    for convolution in convolutions:
        nearest = next((path for path in paths_above(convolution.path) if path in crowded), None)
        if nearest is None:
            continue
        if nearest in inner:
            loose.append((convolution, nearest))
            continue
        group = groups.setdefault(nearest, ConvolutionGroup(nearest, outer_path=nearest))
        group.convolutions.append(convolution)
    return GroupedTable(groups=groups, loose=_attach(groups, loose))


def _attach(
    groups: Mapping[LayerPath, ConvolutionGroup], loose: Sequence[tuple[TableLayer, LayerPath]]
) -> list[tuple[TableLayer, LayerPath]]:
    """Give loose convolutions to the only group beside them; return the others."""
    groups_below: dict[LayerPath, list[ConvolutionGroup]] = {}
    for path, group in groups.items():
        for ancestor in paths_above(path):
            groups_below.setdefault(ancestor, []).append(group)
    remaining = []
    for convolution, nearest in loose:
        neighbors = groups_below.get(nearest, [])
        if len(neighbors) == 1 and len(neighbors[0].convolutions) <= 3:
            neighbors[0].beside.append(convolution)
            neighbors[0].outer_path = nearest
        else:
            remaining.append((convolution, nearest))
    return remaining


def blocks_of(groups: Sequence[ConvolutionGroup]) -> list[BlockConvolutions]:
    """Return the groups that have the names of most groups as blocks, in the same order.

    Raises:
        NotAResNet: If these groups have no body of 2 or 3 convolutions, or more than one further
            convolution, or if a group with other names could be a block of the same network.
    """
    names_by_group = [frozenset(group.by_name()) for group in groups]
    layouts = list(dict.fromkeys(names_by_group))[:_MAX_LAYOUTS]
    if not layouts:
        return []
    support = {layout: sum(layout <= names for names in names_by_group) for layout in layouts}
    common = max(layouts, key=lambda layout: (support[layout], len(layout)))
    family = [group for group, names in zip(groups, names_by_group, strict=True) if common <= names]
    body = _body_names(common, family)
    blocks = [_block(group, body) for group in family]
    widths = {block.out_channels for block in blocks} | {blocks[0].in_channels}
    for group, names in zip(groups, names_by_group, strict=True):
        if not common <= names and _may_be_block(group, len(body), widths):
            path = ".".join(group.path)
            raise NotAResNet(f"{path} could be a block, and has other names than its other blocks")
    return blocks


def _may_be_block(group: ConvolutionGroup, num_layers: int, widths: set[int]) -> bool:
    """Return whether the number of convolutions and the channels of a group fit into a network."""
    first, last = group.convolutions[0], group.convolutions[num_layers - 1 : num_layers]
    if not last or len(group.convolutions) + len(group.beside) > num_layers + 1:
        return False
    return first.shape[1] in widths and last[0].shape[0] in widths


def _body_names(
    common: frozenset[LayerPath], family: Sequence[ConvolutionGroup]
) -> list[LayerPath]:
    """Return the names of the body in order. Every block may have a shortcut beside it."""
    first = family[0].by_name()
    names = [name for name in first if name in common]
    num_spatial = sum(first[name].is_spatial for name in names)
    length = _BODY_LENGTHS.get(num_spatial)
    if len(names) == length:
        return names
    if length is not None and len(names) == length + 1:
        for candidate in reversed(names):
            body = [name for name in names if name != candidate]
            if all(_fits(group, body, candidate) for group in family):
                return body
    listed = ", ".join(".".join(name) for name in names[:6])
    raise NotAResNet(
        f"its block {'.'.join(family[0].path)} has {len(names)} convolutions ({listed}), where a "
        "block has two of 3 x 3, or 1 x 1, 3 x 3 and 1 x 1"
    )


def _fits(group: ConvolutionGroup, body: Sequence[LayerPath], shortcut: LayerPath) -> bool:
    """Return whether the shapes of a block allow this convolution as its shortcut."""
    by_name = group.by_name()
    if by_name[shortcut].is_spatial:
        return False
    layers = [by_name[name] for name in body]
    for layer, following in pairwise(layers):
        if not _feeds(layer, following):
            return False
    projection = by_name[shortcut].shape
    return projection[:2] == (layers[-1].shape[0], layers[0].shape[1])


def _feeds(layer: TableLayer, following: TableLayer) -> bool:
    """Return whether the output of one convolution is the input of the next, maybe in groups."""
    outputs, inputs = layer.shape[0], following.shape[1]
    is_grouped = following.is_spatial and outputs % inputs == 0 and not layer.is_spatial
    return outputs == inputs or is_grouped


def _block(group: ConvolutionGroup, body: Sequence[LayerPath]) -> BlockConvolutions:
    by_name = group.by_name()
    layers = tuple(by_name[name] for name in body)
    further = [layer for name, layer in by_name.items() if name not in body] + group.beside
    if len(further) > 1:
        raise NotAResNet(
            f"its block {'.'.join(group.outer_path)} has {further[0].label} and "
            f"{further[1].label} beside its body, where a block has one shortcut"
        )
    for layer, following in pairwise(layers):
        if not _feeds(layer, following):
            raise NotAResNet(
                f"{following.label} takes {following.shape[1]} channels, and {layer.label} "
                f"returns {layer.shape[0]}"
            )
    return BlockConvolutions(
        path=group.outer_path, body=layers, shortcut=further[0] if further else None
    )
