"""Read ResNets by their structure: shapes and order of tensors, whatever the names are.

- A first convolution of 7 x 7 or 3 x 3, or three of 3 x 3, begins a network.
- Blocks and shortcuts are recognized by their paths (block_groups.py). A stage begins where the
  number of channels changes.
- The one matrix [classes, channels] behind the last block is the head.
- Channels must fit from layer to layer. Otherwise the table is refused, with the tensor's name.

Three things are left to dialects: kernels in other layouts, flat names, and pre-activation. Shapes
do not show whether a projection sees the input before or after batch norm.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from reslearn.interop.block_groups import (
    BlockConvolutions,
    ConvolutionGroup,
    GroupedTable,
    blocks_of,
    group_convolutions,
)
from reslearn.interop.foreign_parts import is_side_branch
from reslearn.interop.infer import NotAResNet
from reslearn.interop.layer_order import doubt_about_order
from reslearn.interop.stem_candidates import StemCandidate, stem_candidates
from reslearn.interop.stored import StoredTensor
from reslearn.interop.structural_head import HeadSearch, find_head
from reslearn.interop.table_layers import (
    LayerPath,
    TableLayer,
    in_natural_order,
    layers_of,
    path_of,
    paths_above,
)

PREACTIVATION = "pre-activation networks are read by the names of a dialect only"
_IMAGE_CHANNELS = (1, 3, 4)
_MIN_BLOCKS = 3  # of the smallest network, with one block in each of three stages


@dataclass(frozen=True, kw_only=True)
class StructureReading:
    """A network that was read by its structure.

    Attributes:
        prefix: The beginning of all names of the trunk, such as "module.encoder_q.".
        names: The native name of each tensor, to its name in the file.
        pools_shortcuts: Whether something without weights, taken to be an average pool, comes
            before the projections, as in ResNet-D.
        head_transforms: How the file stores the head, as in [transforms] of dialects.
        has_large_stem: Whether the stem is one of ImageNet networks: 7 x 7, or three of 3 x 3.
        notes: Sentences about tensors that were not read.
    """

    prefix: str
    names: Mapping[str, str]
    pools_shortcuts: bool
    head_transforms: tuple[str, ...]
    has_large_stem: bool
    notes: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Trunk:
    """Stem and blocks of a network.

    Attributes:
        scope: The deepest path that has all of them.
        names: As in `StructureReading`, without the head.
        paths: The paths of all layers and blocks.
        out_channels: Channels of the last block.
    """

    scope: LayerPath
    names: Mapping[str, str]
    paths: frozenset[LayerPath]
    out_channels: int
    pools_shortcuts: bool
    has_large_stem: bool


def read_structures(
    tensors: Mapping[str, StoredTensor],
) -> tuple[list[StructureReading], str | None]:
    """Return the networks in a table, and why the nearest other candidate is none.

    The order of the file is the order of the layers. Some formats sort by name; then the natural
    order of names is used.
    """
    layers = layers_of(tensors)
    is_sorted = list(tensors) == sorted(tensors)
    orders = [(layers, is_sorted), (in_natural_order(layers), True)]
    if is_sorted:
        orders.reverse()
    reason = None
    for ordered, is_by_name in orders:
        trunks, problem = _find_trunks(ordered, tensors)
        doubts = [doubt_about_order(trunk.names, is_by_name=is_by_name) for trunk in trunks]
        trunks = [trunk for trunk, doubt in zip(trunks, doubts, strict=True) if doubt is None]
        problem = next(filter(None, doubts), problem)
        if trunks:
            return [_with_head(trunk, trunks, ordered) for trunk in trunks], problem
        reason = reason or problem
    return [], reason


def _with_head(
    trunk: Trunk, trunks: Sequence[Trunk], layers: Sequence[TableLayer]
) -> StructureReading:
    other_scopes = [each.scope for each in trunks if each is not trunk]
    head = find_head(
        HeadSearch(
            scope=trunk.scope,
            other_scopes=other_scopes,
            paths=trunk.paths,
            num_channels=trunk.out_channels,
        ),
        layers,
    )
    names = dict(trunk.names)
    if head.layer is not None:
        names |= _native_names("head.fc", head.layer)
    return StructureReading(
        prefix=_prefix(trunk),
        names=names,
        pools_shortcuts=trunk.pools_shortcuts,
        head_transforms=head.transforms,
        has_large_stem=trunk.has_large_stem,
        notes=head.notes,
    )


def _prefix(trunk: Trunk) -> str:
    """Return the text of the scope, which ends with the separator of the file."""
    some_name = next(iter(trunk.names.values()))
    return some_name[: sum(len(part) + 1 for part in trunk.scope)]


def _native_names(native_layer: str, layer: TableLayer) -> dict[str, str]:
    return {f"{native_layer}.{leaf}": name for leaf, name in layer.names.items()}


def _find_trunks(
    layers: Sequence[TableLayer], tensors: Mapping[str, StoredTensor]
) -> tuple[list[Trunk], str | None]:
    """Return trunks without common blocks, and the problem of the longest other candidate."""
    convolutions = [layer for layer in layers if layer.kind == "convolution"]
    plain = [layer for layer in convolutions if not is_side_branch(layer.label, layer.shape)]
    grouped = group_convolutions(plain or convolutions)
    norms = [layer for layer in layers if layer.kind == "norm"]
    paths: set[LayerPath] = set()
    for name in tensors:
        path = path_of(name)
        paths |= {path, *paths_above(path)}
    trunks: list[Trunk] = []
    problems: list[tuple[bool, int, str]] = []
    for stem in stem_candidates(grouped):
        groups = _groups_in(grouped, stem, trunks)
        if len(groups) < _MIN_BLOCKS:
            continue
        try:
            _refuse_longer_stem(stem, grouped)
            trunks.append(_read_trunk(stem, groups, norms, paths))
        except NotAResNet as error:
            takes_images = stem.convolutions[0].shape[1] in _IMAGE_CHANNELS
            problems.append((takes_images, len(groups), str(error)))
    if not problems and not trunks and len(grouped.groups) >= _MIN_BLOCKS:
        return [], (
            f"it has {len(grouped.groups)} blocks and no convolution of 7 x 7 or 3 x 3 before them"
        )
    if not problems:
        return trunks, None
    return trunks, max(problems, key=lambda problem: problem[:2])[2]


def _refuse_longer_stem(stem: StemCandidate, grouped: GroupedTable) -> None:
    """Raise NotAResNet if another convolution outside blocks feeds the stem, as in CLIP."""
    first = stem.convolutions[0]
    if first.shape[1] in _IMAGE_CHANNELS:
        return
    for layer, scope in grouped.loose:
        if scope == stem.scope and layer.shape[0] == first.shape[1]:
            raise NotAResNet(
                f"{layer.label} and {first.label} come before its blocks, and no network of the "
                "catalog begins like this"
            )


def _groups_in(
    grouped: GroupedTable, stem: StemCandidate, trunks: Sequence[Trunk]
) -> list[ConvolutionGroup]:
    """Return the groups in the scope of a stem that are no part of another trunk."""
    start = len(stem.scope)
    return [
        group
        for path, group in grouped.groups.items()
        if path[:start] == stem.scope
        and path != stem.path
        and not any(group.outer_path in trunk.paths for trunk in trunks)
    ]


def _read_trunk(
    stem: StemCandidate,
    groups: Sequence[ConvolutionGroup],
    norms: Sequence[TableLayer],
    paths: set[LayerPath],
) -> Trunk:
    """Return stem and blocks with native names.

    Raises:
        NotAResNet: If channels do not fit, or batch norms are missing.
    """
    blocks = blocks_of(groups)
    channels = stem.out_channels()
    for block in blocks:
        channels = _follow_block(block, channels)
    block_norms = _norms_by_block(blocks, norms)
    names = _stem_names(stem, blocks, norms, is_normalized=any(block_norms.values()))
    stage = index = 0
    previous_channels = 0
    for block in blocks:
        is_new_stage = block.out_channels != previous_channels
        stage, index = (stage + 1, 0) if is_new_stage else (stage, index + 1)
        previous_channels = block.out_channels
        names |= _block_names(f"stage{stage}.{index}", block, block_norms[block.path])
    layers = [*stem.convolutions, *(layer for block in blocks for layer in block.body)]
    trunk_paths = {layer.path for layer in layers} | {block.path for block in blocks}
    return Trunk(
        scope=stem.scope,
        names=names,
        paths=frozenset(trunk_paths | {path_of(name) for name in names.values()}),
        out_channels=channels,
        pools_shortcuts=_pools_shortcuts(blocks, norms, paths, is_deep=stem.is_deep),
        has_large_stem=stem.is_large,
    )


def _follow_block(block: BlockConvolutions, channels: int) -> int:
    """Return the output channels of a block; raise NotAResNet if its channels do not fit."""
    first, shortcut = block.body[0], block.shortcut
    if block.in_channels != channels:
        raise NotAResNet(
            f"{first.label} takes {block.in_channels} channels, and the layer before it returns "
            f"{channels}"
        )
    if shortcut is not None and shortcut.shape[:2] != (block.out_channels, channels):
        raise NotAResNet(
            f"the shortcut {shortcut.label} has {shortcut.shape[1]} to {shortcut.shape[0]} "
            f"channels, and the block has {channels} to {block.out_channels}"
        )
    return block.out_channels


def _norms_by_block(
    blocks: Sequence[BlockConvolutions], norms: Sequence[TableLayer]
) -> dict[LayerPath, list[TableLayer]]:
    """Return the batch norms below the path of each block."""
    by_block: dict[LayerPath, list[TableLayer]] = {block.path: [] for block in blocks}
    for norm in norms:
        for path in paths_above(norm.path):
            if path in by_block:
                by_block[path].append(norm)
                break
    return by_block


def _stem_names(
    stem: StemCandidate,
    blocks: Sequence[BlockConvolutions],
    norms: Sequence[TableLayer],
    *,
    is_normalized: bool,
) -> dict[str, str]:
    """Return native names of the stem. Each convolution has the nearest batch norm of its size."""
    block_paths = {block.path for block in blocks}
    start = len(stem.scope)
    available = [
        norm
        for norm in norms
        if norm.path[:start] == stem.scope
        and not any(path in block_paths for path in paths_above(norm.path))
    ]
    names: dict[str, str] = {}
    suffixes = [""] if len(stem.convolutions) == 1 else ["1", "2", "3"]
    for suffix, convolution in zip(suffixes, stem.convolutions, strict=True):
        names |= _native_names(f"stem.conv{suffix}", convolution)
        fitting = [norm for norm in available if norm.shape[0] == convolution.shape[0]]
        if fitting:
            nearest = max(fitting, key=lambda norm: _num_common_parts(norm, convolution))
            available.remove(nearest)
            names |= _native_names(f"stem.bn{suffix}", nearest)
        elif not is_normalized and "bias" not in convolution.names:
            raise NotAResNet(
                f"{convolution.label} has neither a bias nor a batch norm with running mean and "
                "variance, as in networks with group norm or instance norm, and in files of "
                "parameters without buffers"
            )
        elif is_normalized:
            raise NotAResNet(
                f"its first convolution {convolution.label} has no batch norm ({PREACTIVATION})"
            )
    return names


def _num_common_parts(layer: TableLayer, reference: TableLayer) -> int:
    """Return how many parts the paths of two layers have in common at the beginning."""
    count = 0
    for part, other_part in zip(layer.path, reference.path, strict=False):
        if part != other_part:
            break
        count += 1
    return count


def _block_names(
    native_block: str, block: BlockConvolutions, norms: Sequence[TableLayer]
) -> dict[str, str]:
    """Return native names of a block.

    Raises:
        NotAResNet: If it has batch norms, but not one behind each convolution.
    """
    names: dict[str, str] = {}
    remaining = list(norms)
    shortcut = block.shortcut
    if shortcut is not None:
        names |= _native_names(f"{native_block}.shortcut.conv", shortcut)
    if shortcut is not None and len(remaining) > len(block.body):
        # Of equally near batch norms the last belongs to the shortcut.
        nearest = max(reversed(remaining), key=lambda norm: _num_common_parts(norm, shortcut))
        remaining.remove(nearest)
        names |= _native_names(f"{native_block}.shortcut.bn", nearest)
    if remaining and len(remaining) != len(block.body):
        raise NotAResNet(
            f"its block {'.'.join(block.path)} has {len(norms)} batch norms and "
            f"{len(block.body) + (shortcut is not None)} convolutions"
        )
    for number, convolution in enumerate(block.body, start=1):
        names |= _native_names(f"{native_block}.body.conv{number}", convolution)
        if not remaining:
            continue
        norm = remaining[number - 1]
        if norm.shape[0] != convolution.shape[0]:
            raise NotAResNet(
                f"the batch norm {norm.label} has {norm.shape[0]} channels, and "
                f"{convolution.label} returns {convolution.shape[0]} ({PREACTIVATION})"
            )
        names |= _native_names(f"{native_block}.body.bn{number}", norm)
    return names


def _pools_shortcuts(
    blocks: Sequence[BlockConvolutions],
    norms: Sequence[TableLayer],
    paths: set[LayerPath],
    *,
    is_deep: bool,
) -> bool:
    """Return whether projections stand behind a layer without weights in their sequence.

    torchvision has `downsample.0`. Networks with an average pool before it (ResNet-D) have
    `downsample.1`, and nothing at position 0.

    Raises:
        NotAResNet: If a batch norm comes before a projection. Or if the projections of a network
            with three convolutions in the stem have no number: many such networks are ResNet-D.
    """
    norm_paths = {norm.path for norm in norms}
    is_numbered = is_behind_nothing = False
    projections = [block.shortcut for block in blocks if block.shortcut is not None]
    for block in blocks:
        before = _positions_before_projection(block)
        if before is None or block.shortcut is None:
            continue
        is_numbered = True
        if any(path in norm_paths for path in before):
            raise NotAResNet(f"a batch norm comes before its projection {block.shortcut.label}")
        is_behind_nothing |= bool(before) and not any(path in paths for path in before)
    if is_deep and projections and not is_numbered:
        raise NotAResNet(
            f"{projections[0].label} does not show whether an average pool comes before it, as in "
            "ResNet-D networks with three convolutions in the stem"
        )
    return is_behind_nothing


def _positions_before_projection(block: BlockConvolutions) -> list[LayerPath] | None:
    """Return the paths of the layers before a projection; None if its path has no number."""
    if block.shortcut is None:
        return None
    path = block.shortcut.path
    for length in range(len(path), len(block.path), -1):
        *container, position = path[:length]
        if position.isdecimal() and position.isascii():
            return [(*container, str(number)) for number in range(min(int(position[:3]), 9))]
    return None
