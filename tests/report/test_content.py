"""Pages are made of values that refuse, in one line, what cannot be drawn."""

import math
import re

import pytest

from reslearn.report import Column, Figure, Number, Page, Panels, Section, Series, Table, Verdict


def figure(name="error", series=(), **values):
    return Figure(name, "Title", "Caption", "x", "y", series, **values)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Series("a", [1, 2], [1]), "2 x values but 1 of y"),
        (lambda: Series("a", [1], [1], low=[0]), "low and high belong together"),
        (lambda: Series("a", [1], [1], "dotted"), "'dotted' is not one of line, dashed, thin"),
        (lambda: Series("a", [1], ["much"]), "must be a number"),
        (lambda: figure("../evil"), "it names files"),
        (lambda: figure("Big"), "it names files"),
        (lambda: figure(y_limits=(1, 1)), "must rise"),
        (lambda: figure(y_log=True, y_limits=(0, 1)), "above 0"),
        (lambda: Verdict("maybe"), "not one of: shown, not shown"),
        (lambda: Table("t", ["a", "b"], [["only"]]), "2 columns but a row of 1 cells"),
        (
            lambda: Page("p", "", [Section("s", "", [figure(), Panels([figure()])])]).figures(),
            "two figures named error",
        ),
    ],
)
def test_refuses_what_cannot_be_drawn(make, said):
    with pytest.raises(ValueError, match=re.escape(said)) as caught:
        make()
    assert "\n" not in str(caught.value)


def test_a_gap_is_none_or_nan_and_a_group_is_the_name_by_default():
    series = Series("a", range(3), [1, None, math.nan])
    assert series.group == "a"
    assert [math.isnan(y) for _, y, _, _ in series.points()] == [False, True, True]


def test_columns_of_numbers_align_as_numbers():
    columns = ["name", Column("error", ".2f"), "mixed", Column("interval", numeric=True)]
    table = Table("t", columns, [["a", 1.0, "x", "1 to 2"], ["b", None, 2, ""]])
    assert [head.numeric for head in table.heads()] == [False, True, False, True]
    assert Table("t", ["n"], [[Number(1, ".1f")]]).heads()[0].numeric
    assert not Table("empty", ["n"], []).heads()[0].numeric


def test_groups_keep_their_order():
    drawn = figure(
        series=[Series("b", [1], [1]), Series("a", [1], [1]), Series("c", [1], [1], group="b")]
    )
    assert drawn.groups() == ["b", "a"]
