"""Page elements accept valid values and refuse all others with a one-line message."""

import math
import re

import pytest

from reslearn.report import Column, Figure, Page, Panels, Section, Series, Table, Verdict


def figure(name="error", series=(), **options):
    return Figure(name, "Title", "Caption", "x", "y", series, **options)


def page_with_duplicate_names():
    items = [figure(), Panels([figure()])]
    return Page("p", "", [Section("s", "", items)])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Series("a", [1, 2], [1]), "2 x values but 1 of y"),
        (lambda: Series("a", [1], [1], low=[0]), "low and high belong together"),
        (lambda: Series("a", [1], [1], "dotted"), "'dotted' is not one of line, dashed, thin"),
        (lambda: Series("a", [1], ["much"]), "must be a number"),
        (lambda: figure("../evil"), "'../evil' becomes a file name"),
        (lambda: figure("Big"), "use only a-z"),
        (lambda: figure(y_limits=(1, 1)), "must rise"),
        (lambda: figure(y_log=True, y_limits=(0, 1)), "above 0"),
        (lambda: Verdict("maybe"), "not one of: shown, not shown"),
        (lambda: Table("t", ["a", "b"], [["only"]]), "2 columns but a row of 1 cells"),
        (lambda: page_with_duplicate_names().figures(), "two figures named error"),
        (lambda: Page("p", lead=Panels([figure(), figure()])).figures(), "two figures named error"),
    ],
)
def test_invalid_elements_are_refused_in_one_line(make, message):
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        make()
    assert "\n" not in str(caught.value)


def test_none_and_nan_are_gaps_and_the_default_group_is_the_name():
    series = Series("a", range(3), [1, None, math.nan])
    assert series.group == "a"
    assert [math.isnan(y) for _, y, _, _ in series.points()] == [False, True, True]


def test_columns_of_numbers_are_numeric():
    columns = ["name", Column("error", ".2f"), "mixed", Column("interval", numeric=True)]
    table = Table("t", columns, [["a", 1.0, "x", "1 to 2"], ["b", None, 2, ""]])
    assert [head.numeric for head in table.heads()] == [False, True, False, True]
    assert not Table("empty", ["n"], []).heads()[0].numeric


def test_groups_are_in_order_of_appearance():
    series = [Series("b", [1], [1]), Series("a", [1], [1]), Series("c", [1], [1], group="b")]
    assert figure(series=series).groups() == ["b", "a"]


def test_the_lead_is_the_first_figure_of_a_page():
    page = Page("p", "", [Section("s", "", [figure("second")])], lead=figure("first"))
    assert [drawing.name for drawing in page.figures()] == ["first", "second"]
