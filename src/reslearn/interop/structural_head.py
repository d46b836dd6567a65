"""The head of a network that was read by its structure: one matrix [classes, channels]."""

from collections.abc import Sequence
from dataclasses import dataclass

from reslearn.interop.stored import abbreviate
from reslearn.interop.table_layers import LayerPath, TableLayer

_NUM_LISTED = 3


@dataclass(frozen=True, kw_only=True)
class HeadSearch:
    """Where to look for a head.

    Attributes:
        scope: The deepest path that has stem and blocks.
        other_scopes: The same of other networks in the table.
        paths: The paths of the layers and blocks of the network.
        num_channels: Channels of the last block.
    """

    scope: LayerPath
    other_scopes: Sequence[LayerPath]
    paths: frozenset[LayerPath]
    num_channels: int


@dataclass(frozen=True, kw_only=True)
class StructuralHead:
    """The layer that is the head, or None, and sentences about what was taken for none."""

    layer: TableLayer | None
    notes: tuple[str, ...] = ()

    @property
    def transforms(self) -> tuple[str, ...]:
        """How the file stores the matrix [classes, channels], as in [transforms] of dialects."""
        if self.layer is None:
            return ()
        if self.layer.kind == "convolution":
            return ("kernel_1x1",)
        return ("transposed",) if self.layer.is_transposed else ()


def find_head(search: HeadSearch, layers: Sequence[TableLayer]) -> StructuralHead:
    """Return the head of a network.

    The head is the only matrix behind the last block. A head of several matrices, as in contrastive
    learning, gives no classes. A head outside the network's own path counts only if no other layer
    lies between.
    """
    further = _further_layers(search, layers)
    matrices = [layer for layer in further if layer.kind == "matrix"]
    fitting = [layer for layer in matrices if layer.shape[1] == search.num_channels]
    if not fitting:
        return StructuralHead(layer=_convolution_head(search, further))
    head = fitting[0]
    is_inside = _is_inside(search, head)
    follows = [layer for layer in matrices if layer not in fitting]
    follows = [layer for layer in follows if layer.shape[1] == head.shape[0]]
    if len(fitting) == 1 and not follows and (is_inside or len(further) == 1):
        return StructuralHead(layer=head)
    is_chain = bool(follows) or any(layer.shape[0] == search.num_channels for layer in fitting)
    if len(fitting) > 1 and not is_chain:
        heads = abbreviate([layer.label for layer in fitting], _NUM_LISTED)
        return StructuralHead(
            layer=None,
            notes=(f"{heads}: it has several heads, which are left out, so there are no classes",),
        )
    labels = [layer.label for layer in (*fitting, *follows)]
    if len(labels) == 1:
        return StructuralHead(
            layer=None,
            notes=(f"{labels[0]} is left out: other layers lie between it and the network",),
        )
    return StructuralHead(
        layer=None,
        notes=(
            f"{abbreviate(labels, _NUM_LISTED)}: a head of several layers, as in contrastive "
            "learning, is left out, so there are no classes",
        ),
    )


def _is_inside(search: HeadSearch, layer: TableLayer) -> bool:
    return layer.path[: len(search.scope)] == search.scope


def _convolution_head(search: HeadSearch, further: Sequence[TableLayer]) -> TableLayer | None:
    """Return a convolution of 1 x 1 that is the only further layer, in the network's own path."""
    if len(further) != 1 or further[0].kind != "convolution":
        return None
    (layer,) = further
    fits = layer.shape[1:] == (search.num_channels, 1, 1)
    return layer if fits and _is_inside(search, layer) else None


def _further_layers(search: HeadSearch, layers: Sequence[TableLayer]) -> list[TableLayer]:
    """Return the layers of the widest path without other networks that are no part of this one."""
    length = len(search.scope)
    for length in range(len(search.scope) + 1):
        path = search.scope[:length]
        if not any(scope[:length] == path for scope in search.other_scopes):
            break
    widest = search.scope[:length]
    return [
        layer
        for layer in layers
        if layer.path[:length] == widest
        and layer.path not in search.paths
        and not any(layer.path[:end] in search.paths for end in range(1, len(layer.path)))
    ]
