"""Networks as boxes: equal blocks are folded, nothing is lost, names are text."""

import re
from typing import Any

import pytest

from reslearn.report import Box, Diagram, LayerGroup, Page, Section, render_html
from reslearn.report.diagram import fold_repeats

STEM, HEAD = LayerGroup([Box("stem")]), LayerGroup([Box("head", "10")])


def block(name: str, text: str = "conv", **given: Any) -> LayerGroup:
    return LayerGroup([Box(text, "16×8×8"), Box(text, "16×8×8")], name, "new", **given)


def stage(number: int, num_blocks: int, **given: Any) -> list[LayerGroup]:
    return [block(f"{number}.{index}", f"conv {number}", **given) for index in range(num_blocks)]


@pytest.mark.parametrize(
    ("groups", "times"),
    [
        ([], []),
        ([STEM, HEAD], [1, 1]),
        ([STEM, *stage(1, 18), *stage(2, 18), HEAD], [1, 18, 18, 1]),
        (
            [
                STEM,
                *[block("a", text) for _ in range(12) for text in ("attention", "feed-forward")],
                HEAD,
            ],
            [1, 12, 1],
        ),
        ([block("a", text) for text in "xxyxxyxxy"], [3]),
        ([block("a", text) for text in "xyxx"], [1, 1, 2]),
    ],
)
def test_what_comes_again_is_drawn_once(groups: list[LayerGroup], times: list[int]) -> None:
    found = fold_repeats(groups)
    assert [part.times for part in found] == times
    assert sum(part.times * len(part.groups) for part in found) == len(groups)


def test_names_and_marks_of_what_is_folded_are_told() -> None:
    (part,) = fold_repeats([block(f"1.{index}", marked=index % 3 > 0) for index in range(9)])
    assert (part.names, part.num_marked) == (("1.0 to 1.8",), (6,))
    html = render_html(
        Page(
            "p",
            "",
            [
                Section(
                    "s", "", [Diagram("t", "c", [*stage(1, 3, marked=True), STEM], mark="left out")]
                )
            ],
        )
    )
    assert "all of 3 left out" in html and "× 3" in html and "1.0 to 1.2" in html
    assert html.count('class="arc"') == 2  # one arc for three blocks, one in the key


def test_a_block_that_differs_in_more_than_its_name_is_not_folded() -> None:
    first = block("a")
    for other in (
        block("b", after="ReLU"),
        block("b", arc_label="option A"),
        LayerGroup(first.boxes, "b"),
        LayerGroup(first.boxes, arc="new"),
    ):
        assert len(fold_repeats([first, other])) == 2, other


def test_names_are_text_and_carried_shortcuts_dotted() -> None:
    hostile = "<script>alert(1)</script>"
    groups = [LayerGroup([Box(hostile, hostile)], hostile, "existing", hostile, hostile)]
    html = render_html(Page("p", "", [Section("s", "", [Diagram(hostile, hostile, groups)])]))
    assert "<script>alert" not in html and html.count("&lt;script&gt;alert") == 7
    assert re.search(r'class="arc dotted"', html)
