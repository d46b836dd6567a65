"""Copies of pictures: exact and near, within a split, across splits, and in several classes.

Exact copies are files of equal content. Near copies show the same picture in another size, quality
or brightness (`near.py`). A copy of a test image among the training images is a leak: its accuracy
says nothing. A picture in two classes has at least one wrong label.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from reslearn.progress import progress_bar
from reslearn.survey.near import BAND_CHOICES, NearSearch

MAX_GROUPS = 200
MAX_IMAGES_PER_GROUP = 8
_MAX_PAIRS = 4_000_000  # of near copies, from which groups are made: 64 MB
_NO_CLASS = np.iinfo(np.int64).max

Rows = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class CopyGroup:
    """Pictures that are copies of each other.

    Attributes:
        rows: The first rows, at most `MAX_IMAGES_PER_GROUP`, of as many classes and splits as there
            are.
        num_images: Number of all pictures of the group.
        is_exact: All have the same content.
        num_classes: Number of classes among `rows`.
        num_splits: Number of splits among `rows`.
    """

    rows: tuple[int, ...]
    num_images: int
    is_exact: bool
    num_classes: int
    num_splits: int


@dataclass(frozen=True, kw_only=True)
class Leak:
    """Images of one split that have a copy in another split."""

    split: str
    other_split: str
    num_exact: int
    num_near: int
    num_images: int

    @property
    def num_copies(self) -> int:
        return self.num_exact + self.num_near


@dataclass(frozen=True, kw_only=True)
class Copies:
    """All copies of a folder.

    Attributes:
        num_exact: Images that could be removed, since an exact copy of them stays.
        num_near: Images that have a near copy, without exact copies.
        num_conflicts_exact: Images that have an exact copy in another class.
        num_conflicts_near: Images that have only a near copy in another class.
        groups: The most serious groups first: several classes, then several splits.
        search_is_complete: All pairs that could be near copies were compared.
    """

    num_exact: int
    num_near: int
    num_conflicts_exact: int
    num_conflicts_near: int
    leaks: tuple[Leak, ...]
    groups: tuple[CopyGroup, ...] = field(default=())
    search_is_complete: bool = True


@dataclass(frozen=True)
class Candidates:
    """The N readable pictures among which copies are searched.

    Attributes:
        rows: Row of each picture in the whole folder, int64 [N].
        content: Digest of each file, uint64 [N].
        hashes: Perceptual hash, uint64 [N].
        is_flat: Whether a picture shows a single color, bool [N]. Flat pictures are no near copies.
        is_small: Whether a picture has at most `near.SMALL_PX`, bool [N].
        labels: Class, int64 [N].
        splits: Split, from 0, int64 [N].
        tiny: Thumbnails of the whole folder, by row.
    """

    rows: Rows
    content: npt.NDArray[np.uint64]
    hashes: npt.NDArray[np.uint64]
    is_flat: npt.NDArray[np.bool_]
    is_small: npt.NDArray[np.bool_]
    labels: Rows
    splits: Rows
    tiny: npt.NDArray[np.uint8]


def find_copies(pictures: Candidates, split_names: Sequence[str]) -> Copies:
    """Find exact and near copies.

    Args:
        split_names: Name of each value of `pictures.splits`.
    """
    _, first, group_of = np.unique(pictures.content, return_index=True, return_inverse=True)
    exact = _Groups.of(group_of, len(first), pictures)
    search = _search(pictures, first)
    near = _Groups.of(group_of, len(first), pictures)  # and, below, of the near copies of each
    near_of_group = np.zeros(len(first), bool)
    pairs: list[tuple[Rows, Rows]] = []
    num_pairs = 0
    with progress_bar("comparing pictures", len(BAND_CHOICES), after_seconds=2.0) as advance:
        for bands in BAND_CHOICES:
            for first_copies, second_copies in search.pairs_with(bands):
                near.merge(exact, first_copies, second_copies)
                near_of_group[first_copies] = near_of_group[second_copies] = True
                num_pairs += len(first_copies)
                if num_pairs <= _MAX_PAIRS:
                    pairs.append((first_copies, second_copies))
            advance(1)
    sizes = np.bincount(group_of, minlength=len(first))
    conflict = exact.has_conflict()[group_of]
    leaks = _leaks(pictures.splits, exact.splits[group_of], near.splits[group_of], split_names)
    return Copies(
        num_exact=int((sizes - 1).sum()),
        num_near=int((near_of_group[group_of]).sum()),
        num_conflicts_exact=int(conflict.sum()),
        num_conflicts_near=int((near.has_conflict()[group_of] & ~conflict).sum()),
        leaks=leaks,
        groups=_copy_groups(pictures, group_of, len(first), pairs),
        search_is_complete=search.is_complete and num_pairs <= _MAX_PAIRS,
    )


@dataclass
class _Groups:
    """The splits and classes of each group of equal pictures.

    Attributes:
        splits: One bit for each split in the group.
        lowest: The smallest class index of the group.
        highest: The largest class index. A group of several classes has two different indices.
    """

    splits: npt.NDArray[np.uint8]
    lowest: Rows
    highest: Rows

    @classmethod
    def of(cls, group_of: Rows, num_groups: int, pictures: Candidates) -> _Groups:
        groups = cls(
            np.zeros(num_groups, np.uint8),
            np.full(num_groups, _NO_CLASS),
            np.full(num_groups, -1, np.int64),
        )
        bits = np.left_shift(1, pictures.splits).astype(np.uint8)
        np.bitwise_or.at(groups.splits, group_of, bits)
        np.minimum.at(groups.lowest, group_of, pictures.labels)
        np.maximum.at(groups.highest, group_of, pictures.labels)
        return groups

    def merge(self, source: _Groups, first: Rows, second: Rows) -> None:
        """For each pair of groups, add the splits and classes of each to the other."""
        for target, origin in ((first, second), (second, first)):
            np.bitwise_or.at(self.splits, target, source.splits[origin])
            np.minimum.at(self.lowest, target, source.lowest[origin])
            np.maximum.at(self.highest, target, source.highest[origin])

    def has_conflict(self) -> npt.NDArray[np.bool_]:
        conflict: npt.NDArray[np.bool_] = self.lowest != self.highest
        return conflict


def _search(pictures: Candidates, first: Rows) -> NearSearch:
    """Return a search for near copies among one picture per content, without flat pictures."""
    return NearSearch(
        hashes=pictures.hashes[first],
        tiny=pictures.tiny,
        rows=pictures.rows[first],
        skip=pictures.is_flat[first],
        is_small=pictures.is_small[first],
    )


def _leaks(
    splits: Rows,
    exact: npt.NDArray[np.uint8],
    near: npt.NDArray[np.uint8],
    split_names: Sequence[str],
) -> tuple[Leak, ...]:
    """Return the leaks between each pair of splits, beginning with the last split.

    Args:
        splits: Split of each image.
        exact: Bits of the splits in which its exact copies are, its own included.
        near: The same with near copies.
    """
    leaks = []
    for split in reversed(range(len(split_names))):
        is_member = splits == split
        for index in range(split):
            has_exact = is_member & (exact >> index & 1 == 1)
            has_near = is_member & (near >> index & 1 == 1) & ~has_exact
            leak = Leak(
                split=split_names[split],
                other_split=split_names[index],
                num_exact=int(has_exact.sum()),
                num_near=int(has_near.sum()),
                num_images=int(is_member.sum()),
            )
            if leak.num_copies:
                leaks.append(leak)
    return tuple(leaks)


def _copy_groups(
    pictures: Candidates, group_of: Rows, num_groups: int, pairs: Sequence[tuple[Rows, Rows]]
) -> tuple[CopyGroup, ...]:
    """Return the groups that near copies connect, the most serious first."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    nothing = np.zeros(0, np.int64)
    firsts = np.concatenate([nothing, *(first for first, _ in pairs)])
    seconds = np.concatenate([nothing, *(second for _, second in pairs)])
    shape = (num_groups, num_groups)
    links = coo_array((np.ones(len(firsts), bool), (firsts, seconds)), shape=shape)
    num_components, component_of = connected_components(links, directed=False)
    component = component_of[group_of]
    order = np.argsort(component, kind="stable")
    sizes = np.bincount(component, minlength=num_components)
    starts = np.concatenate([[0], np.cumsum(sizes)])
    severity = _severity(pictures, component, num_components)
    serious = np.flatnonzero(sizes > 1)
    serious = serious[np.lexsort((starts[serious], -sizes[serious], -severity[serious]))]
    groups = []
    for index in serious[:MAX_GROUPS].tolist():
        members = order[starts[index] : starts[index + 1]]
        groups.append(_copy_group(pictures, members))
    return tuple(groups)


def _severity(pictures: Candidates, component: Rows, num_components: int) -> Rows:
    groups = _Groups.of(component, num_components, pictures)
    is_across = groups.splits & (groups.splits - 1) != 0  # more than one bit is set
    severity: Rows = groups.has_conflict() * 2 + is_across
    return severity


def _copy_group(pictures: Candidates, members: Rows) -> CopyGroup:
    keys = pictures.labels[members] * 8 + pictures.splits[members]
    _, first_of_kind = np.unique(keys, return_index=True)
    further = np.setdiff1d(np.arange(len(members)), first_of_kind)
    chosen = members[np.concatenate([first_of_kind, further])[:MAX_IMAGES_PER_GROUP]]
    return CopyGroup(
        rows=tuple(pictures.rows[chosen].tolist()),
        num_images=len(members),
        is_exact=len(np.unique(pictures.content[members])) == 1,
        num_classes=len(np.unique(pictures.labels[members])),
        num_splits=len(np.unique(pictures.splits[members])),
    )
