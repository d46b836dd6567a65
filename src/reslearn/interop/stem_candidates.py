"""The convolutions that may begin a network."""

from collections import Counter
from dataclasses import dataclass
from itertools import pairwise

from reslearn.interop.block_groups import GroupedTable
from reslearn.interop.infer import NotAResNet
from reslearn.interop.table_layers import LayerPath, TableLayer, paths_above

_MAX_STEMS = 32
_KERNELS = ((7, 7), (3, 3))


@dataclass(frozen=True, kw_only=True)
class StemCandidate:
    """Convolutions that may begin a network.

    Attributes:
        scope: The deepest path that has them and blocks.
        path: The path of the convolutions.
    """

    convolutions: tuple[TableLayer, ...]
    scope: LayerPath
    path: LayerPath

    @property
    def is_deep(self) -> bool:
        """Whether these are three convolutions of 3 x 3, as in ResNet-D."""
        return len(self.convolutions) > 1

    @property
    def is_large(self) -> bool:
        """Whether this is a stem of ImageNet networks, which have a max pool behind it."""
        return self.is_deep or self.convolutions[0].shape[2:] == (7, 7)

    def out_channels(self) -> int:
        """Return the output channels; raise NotAResNet if the channels inside do not fit."""
        for layer, following in pairwise(self.convolutions):
            if following.shape[1] != layer.shape[0]:
                raise NotAResNet(
                    f"{following.label} takes {following.shape[1]} channels, and {layer.label} "
                    f"returns {layer.shape[0]}"
                )
        return self.convolutions[-1].shape[0]


def stem_candidates(grouped: GroupedTable) -> list[StemCandidate]:
    """Return possible stems: the deepest scope first, then few input channels."""
    candidates = [
        StemCandidate(convolutions=(layer,), scope=scope, path=layer.path)
        for layer, scope in grouped.loose
        if layer.shape[2:] in _KERNELS
    ]
    num_below = Counter(scope for path in grouped.groups for scope in paths_above(path))
    for path, group in grouped.groups.items():
        kernels = [layer.shape[2:] for layer in group.convolutions]
        scope = next((above for above in paths_above(path) if num_below[above] > 1), None)
        if kernels == [(3, 3)] * 3 and scope is not None and not group.beside:
            convolutions = tuple(group.convolutions)
            candidates.append(StemCandidate(convolutions=convolutions, scope=scope, path=path))
    candidates.sort(key=lambda stem: (-len(stem.scope), stem.convolutions[0].shape[1]))
    return candidates[:_MAX_STEMS]
