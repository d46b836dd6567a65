"""A network drawn as the paper's Fig. 3 draws it: layers as boxes in the order of the computation, blocks around them, shortcuts as arcs.

Boxes stand below each other and are HTML, not SVG: text keeps its size and wraps, so that a phone shows what paper does. A run of equal
blocks is drawn once, with how often it comes: 110 layers are then as long as 20.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

Arc = Literal["none", "new", "existing"]
_MAX_PERIOD = 4
"""Groups that come again and again as a pattern, such as attention and feed-forward, are folded up to this length."""


@dataclass(frozen=True, slots=True)
class Box:
    """A layer: what it is, and the shape of what leaves it."""

    text: str
    shape: str = ""


@dataclass(frozen=True, slots=True)
class LayerGroup:
    """Boxes in a row. With a `name` it is a block, and framed. `arc`: a shortcut around it, "new" where it was put in, "existing" where it was
    there; `arc_label` says what the shortcut does where it is no identity, which is drawn dotted; `after`: what follows the addition, or
    the last box. `marked`: as the diagram's `mark` says."""

    boxes: Sequence[Box]
    name: str = ""
    arc: Arc = "none"
    arc_label: str = ""
    after: str = ""
    marked: bool = False


@dataclass(frozen=True, slots=True)
class Diagram:
    """A network. `mark` says what marked groups are."""

    title: str
    caption: str
    groups: Sequence[LayerGroup]
    mark: str = ""


@dataclass(frozen=True, slots=True)
class RepeatedGroups:
    """Groups that come `times` times in a row; for each the names of first and last, and how many of them are marked."""

    times: int
    groups: tuple[LayerGroup, ...]
    names: tuple[str, ...]
    num_marked: tuple[int, ...]


def fold_repeats(groups: Sequence[LayerGroup]) -> list[RepeatedGroups]:
    """Runs of equal groups, names and marks aside, or of a pattern of a few: the run that saves most first, shorter patterns before."""
    return list(
        _repeats(
            [(replace(one, name=bool(one.name) * "block", marked=False), one) for one in groups]
        )
    )


def _repeats(pairs: list[tuple[LayerGroup, LayerGroup]]) -> Iterator[RepeatedGroups]:
    keys = [key for key, _ in pairs]
    at = 0
    while at < len(pairs):
        runs = [(_times(keys, at, period), period) for period in range(1, _MAX_PERIOD + 1)]
        times, period = max(runs, key=lambda run: ((run[0] - 1) * run[1], -run[1]))
        columns = [
            [pairs[at + turn * period + place][1] for turn in range(times)]
            for place in range(period)
        ]
        yield RepeatedGroups(
            times=times,
            groups=tuple(column[0] for column in columns),
            names=tuple(
                column[0].name if times == 1 else f"{column[0].name} to {column[-1].name}"
                for column in columns
            ),
            num_marked=tuple(sum(one.marked for one in column) for column in columns),
        )
        at += times * period


def _times(keys: list[LayerGroup], at: int, period: int) -> int:
    """How often the `period` groups from `at` on come in a row."""
    pattern, times = keys[at : at + period], 1
    while keys[at + times * period : at + (times + 1) * period] == pattern:
        times += 1
    return times


def entry(diagram: Diagram) -> dict[str, Any]:
    """What the template prints."""
    parts = [
        {
            "times": part.times,
            "groups": [
                {
                    "group": group,
                    "name": name if group.name else "",
                    "mark": _mark(diagram, num, part.times),
                }
                for group, name, num in zip(part.groups, part.names, part.num_marked, strict=True)
            ],
        }
        for part in fold_repeats(diagram.groups)
    ]
    arcs = [arc for arc in ("new", "existing") if any(group.arc == arc for group in diagram.groups)]
    return {"kind": "diagram", "diagram": diagram, "parts": parts, "arcs": arcs}


def _mark(diagram: Diagram, num: int, times: int) -> str:
    if not num:
        return ""
    return (
        diagram.mark
        if times == 1
        else f"{'all' if num == times else num} of {times} {diagram.mark}"
    )
