"""A network drawn as in the paper's Fig. 3: boxes are layers, frames blocks, arcs shortcuts.

Boxes are placed below each other in the order of the computation. They are HTML, not SVG, so text
keeps its size and wraps on a phone. A run of equal blocks is drawn once with its number of
repetitions: a diagram of 110 layers is then as long as one of 20 layers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

Arc = Literal["none", "new", "existing"]
_MAX_PERIOD = 4
"""Longest repeated pattern of groups that is folded, such as attention and feed-forward (2)."""


@dataclass(frozen=True, slots=True)
class Box:
    """A layer: its description and the shape of its output."""

    text: str
    shape: str = ""


@dataclass(frozen=True, slots=True)
class LayerGroup:
    """Consecutive layers, with a shortcut around them or without.

    Args:
        boxes: The layers.
        name: Name of the block; a group with a name is framed.
        arc: The shortcut around the group: "new" if it was added to the network, "existing" if the
            network had it already.
        arc_label: Operation of a shortcut that is not the identity; such a shortcut is dotted.
        after: Layers after the addition, or after the last box.
        marked: Whether the group carries the mark of the diagram.
    """

    boxes: Sequence[Box]
    name: str = ""
    arc: Arc = "none"
    arc_label: str = ""
    after: str = ""
    marked: bool = False


@dataclass(frozen=True, slots=True)
class Diagram:
    """A network as a sequence of groups. `mark` is the label of marked groups."""

    title: str
    caption: str
    groups: Sequence[LayerGroup]
    mark: str = ""


@dataclass(frozen=True, slots=True)
class RepeatedGroups:
    """A pattern of groups that occurs `times` times in a row.

    Args:
        times: Number of repetitions.
        groups: The groups of the first repetition.
        names: For each group of the pattern, its first and last name.
        num_marked: For each group of the pattern, the number of marked repetitions.
    """

    times: int
    groups: tuple[LayerGroup, ...]
    names: tuple[str, ...]
    num_marked: tuple[int, ...]


def fold_repeats(groups: Sequence[LayerGroup]) -> list[RepeatedGroups]:
    """Fold runs of equal groups, and of equal patterns of a few groups.

    Names and marks are ignored in the comparison. At each position, the pattern that saves the
    most groups is folded. If two patterns save equally many, the shorter one is folded.
    """
    return list(_repeats(groups))


def diagram_entry(diagram: Diagram) -> dict[str, Any]:
    """Return the values that the page template prints for a diagram."""
    parts = []
    for part in fold_repeats(diagram.groups):
        groups = []
        for group, name, num in zip(part.groups, part.names, part.num_marked, strict=True):
            mark = _mark_text(diagram, num, part.times)
            groups.append({"group": group, "name": name if group.name else "", "mark": mark})
        parts.append({"times": part.times, "groups": groups})
    arcs_present = {group.arc for group in diagram.groups}
    arcs = [arc for arc in ("new", "existing") if arc in arcs_present]
    return {"kind": "diagram", "diagram": diagram, "parts": parts, "arcs": arcs}


def _repeats(groups: Sequence[LayerGroup]) -> Iterator[RepeatedGroups]:
    # The name of a block tells it from a group without a name, but not from another block.
    keys = [replace(group, name="block" if group.name else "", marked=False) for group in groups]
    start = 0
    while start < len(groups):
        runs = [(_num_repeats(keys, start, period), period) for period in range(1, _MAX_PERIOD + 1)]
        times, period = max(runs, key=lambda run: ((run[0] - 1) * run[1], -run[1]))
        stop = start + times * period
        firsts, names, num_marked = [], [], []
        for offset in range(period):
            repetitions = groups[start + offset : stop : period]
            first, last = repetitions[0], repetitions[-1]
            firsts.append(first)
            names.append(first.name if times == 1 else f"{first.name} to {last.name}")
            num_marked.append(sum(group.marked for group in repetitions))
        yield RepeatedGroups(times, tuple(firsts), tuple(names), tuple(num_marked))
        start = stop


def _num_repeats(keys: list[LayerGroup], start: int, period: int) -> int:
    """Return how many times the `period` groups from `start` occur in a row."""
    pattern, times = keys[start : start + period], 1
    while keys[start + times * period : start + (times + 1) * period] == pattern:
        times += 1
    return times


def _mark_text(diagram: Diagram, num_marked: int, times: int) -> str:
    if not num_marked:
        return ""
    if times == 1:
        return diagram.mark
    return f"{'all' if num_marked == times else num_marked} of {times} {diagram.mark}"
