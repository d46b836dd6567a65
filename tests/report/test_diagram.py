"""Diagrams of networks: equal blocks are folded, no block is lost, and names are escaped."""

import re
from typing import Any

import pytest

from reslearn.report import Box, Diagram, LayerGroup, Page, Section, render_html
from reslearn.report.diagram import fold_repeats

STEM, HEAD = LayerGroup([Box("stem")]), LayerGroup([Box("head", "10")])


def block(name: str, text: str = "conv", **options: Any) -> LayerGroup:
    boxes = [Box(text, "16×8×8"), Box(text, "16×8×8")]
    return LayerGroup(boxes, name, "new", **options)


def stage(number: int, num_blocks: int, **options: Any) -> list[LayerGroup]:
    return [block(f"{number}.{index}", f"conv {number}", **options) for index in range(num_blocks)]


def transformer(num_layers: int) -> list[LayerGroup]:
    return [block("a", "attention"), block("a", "feed-forward")] * num_layers


def html_of(diagram: Diagram) -> str:
    return render_html(Page("p", "", [Section("s", "", [diagram])]))


@pytest.mark.parametrize(
    ("groups", "times"),
    [
        ([], []),
        ([STEM, HEAD], [1, 1]),
        ([STEM, *stage(1, 18), *stage(2, 18), HEAD], [1, 18, 18, 1]),
        ([STEM, *transformer(12), HEAD], [1, 12, 1]),
        ([block("a", text) for text in "xxyxxyxxy"], [3]),
        ([block("a", text) for text in "xyxx"], [1, 1, 2]),
    ],
)
def test_repeated_groups_are_folded(groups: list[LayerGroup], times: list[int]) -> None:
    parts = fold_repeats(groups)
    assert [part.times for part in parts] == times
    assert sum(part.times * len(part.groups) for part in parts) == len(groups)


def test_folded_blocks_show_their_names_and_marks() -> None:
    (part,) = fold_repeats([block(f"1.{index}", marked=index % 3 > 0) for index in range(9)])
    assert (part.names, part.num_marked) == (("1.0 to 1.8",), (6,))
    html = html_of(Diagram("t", "c", [*stage(1, 3, marked=True), STEM], mark="left out"))
    assert "all of 3 left out" in html and "× 3" in html and "1.0 to 1.2" in html
    assert html.count('class="arc"') == 2  # one arc for three blocks, and one in the key


def test_blocks_that_differ_in_more_than_the_name_are_not_folded() -> None:
    first = block("a")
    for different in (
        block("b", after="ReLU"),
        block("b", arc_label="option A"),
        LayerGroup(first.boxes, "b"),
        LayerGroup(first.boxes, arc="new"),
    ):
        assert len(fold_repeats([first, different])) == 2, different


def test_names_are_escaped_and_shortcuts_with_a_label_are_dotted() -> None:
    hostile = "<script>alert(1)</script>"
    groups = [LayerGroup([Box(hostile, hostile)], hostile, "existing", hostile, hostile)]
    html = html_of(Diagram(hostile, hostile, groups))
    assert "<script>alert" not in html and html.count("&lt;script&gt;alert") == 7
    assert re.search(r'class="arc dotted"', html)
    assert "existing shortcut" in html
