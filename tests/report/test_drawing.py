"""Axes, thinning, labels and colors, which the inline SVG and the PNG file share."""

import io
import itertools
import math
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from reslearn.report import Figure, Series
from reslearn.report.axes import x_axis, y_axis
from reslearn.report.palette import (
    DARK,
    DARK_GROUND,
    LIGHT,
    LIGHT_GROUND,
    MARKERS,
    NUM_COLORS,
    contrast,
    marker_of,
)
from reslearn.report.png import figure_png
from reslearn.report.svg import MIN_LABEL_GAP, SIDE, draw, end_labels, marked_points, thin

NUMBERS = st.floats(-1e9, 1e9, allow_nan=False) | st.sampled_from([math.nan, math.inf, 0.0])
POINTS = st.lists(st.tuples(NUMBERS, NUMBERS), min_size=0, max_size=40)


def figure(*series, **options):
    return Figure("f", "Title", "Caption", "x", "y", series, **options)


@settings(max_examples=60, deadline=None)
@given(POINTS, st.booleans())
def test_axes_contain_all_values_and_their_ticks_rise(points, log):
    x, y = [x for x, _ in points], [y for _, y in points]
    drawn = figure(Series("a", x, y), y_log=log)
    for axis, values in ((x_axis(drawn), x), (y_axis(drawn), y)):
        assert all(left < right for left, right in itertools.pairwise(axis.ticks))
        assert all(axis.low <= tick <= axis.high for tick in axis.ticks)
        assert len(axis.labels) == len(axis.ticks) >= 1
        for value in values:
            fraction = axis.fraction(value)
            is_drawable = math.isfinite(value) and (value > 0 or not axis.log)
            assert math.isfinite(fraction) == is_drawable
            assert not is_drawable or -1e-9 <= fraction <= 1 + 1e-9
    draw(drawn)


@pytest.mark.parametrize(
    ("x", "labels"),
    [
        ([20, 32, 44, 56], ("20", "32", "44", "56")),
        (range(390, 64_001, 390), ("0", "20k", "40k", "60k")),
        ([8, 14, 20, 1202], ("0", "500", "1000")),
        (range(1, 13), ("5", "10")),
        ([-1.5, 1.5], ("−1.5", "1.5")),
        ([200.0, 1375.5, 2947.22], ("1000", "2000", "3000")),
    ],
)
def test_ticks_are_labeled_as_in_the_paper(x, labels):
    assert x_axis(figure(Series("a", x, [1] * len(x)))).labels == labels


def test_a_log_axis_is_labeled_in_decades_and_an_error_axis_starts_at_zero():
    decades = figure(Series("a", [1, 2], [1e-8, 1.0]), y_log=True)
    assert y_axis(decades).labels == ("10⁻⁸", "10⁻⁶", "10⁻⁴", "10⁻²", "1")
    assert y_axis(figure(Series("a", [1, 2], [6.0, 20.0]))).low == 0
    assert y_axis(figure(Series("a", [1, 2], [18.0, 20.0]))).low > 10
    assert y_axis(figure(Series("a", [1, 2], [18.0, 90.0]), y_limits=(0, 25))).high == 25


def test_a_wide_band_does_not_flatten_its_curve():
    up = y_axis(figure(Series("a", [1, 2], [4.0, 10.0], low=[-400, -400], high=[400, 400])))
    assert up.low == 0
    assert up.high < 20


def test_thinning_keeps_ends_spikes_and_gaps():
    points = [(float(index), 1.0, math.nan, math.nan) for index in range(10_000)]
    points[4321] = (4321.0, 99.0, math.nan, math.nan)
    points[7777] = (7777.0, math.nan, math.nan, math.nan)
    thinned = thin(points, 200)
    assert len(thinned) <= 202
    assert {points[0], points[-1], points[4321]} <= set(thinned)
    assert any(math.isnan(y) for _, y, _, _ in thinned)
    assert thin(points[:50], 200) == points[:50]


def test_a_gap_splits_the_path_and_an_isolated_point_is_a_dot():
    svg = draw(figure(Series("a", range(5), [1, 2, math.nan, 3, math.inf]))).svg
    (path,) = re.findall(r'class="stroke" d="([^"]+)"', svg)
    assert path.count("M") == 2
    assert path.endswith("h0")
    assert "nan" not in svg and "inf" not in svg


@pytest.mark.parametrize(
    "drawn",
    [
        figure(),
        figure(Series("a", [], [])),
        figure(Series("a", [1], [math.nan])),
        figure(Series("a", [1], [-1]), y_log=True),
    ],
    ids=["no series", "no points", "no finite value", "no logarithm"],
)
def test_a_figure_without_a_drawable_point_is_still_a_picture(drawn):
    assert draw(drawn).svg
    assert figure_png(drawn).startswith(b"\x89PNG")


def test_values_far_outside_the_limits_remain_drawable():
    svg = draw(figure(Series("a", [0, 1, 2], [1, 1e300, 2]), y_limits=(0, 10))).svg
    path = re.findall(r'd="(M[^"]+)"', svg)[0]
    assert max(abs(int(number)) for number in re.findall(r"-?\d+", path)) <= 10 * SIDE


def test_end_labels_keep_their_distance_and_their_order():
    series = [Series(f"net-{index}", [1, 2], [50, 10 + 0.01 * index]) for index in range(6)]
    drawn = figure(*series, y_limits=(0, 100))
    positions = [label.y for label in end_labels(drawn, y_axis(drawn))]
    gaps = [upper - lower for lower, upper in itertools.pairwise(positions)]
    assert min(gaps) >= MIN_LABEL_GAP - 1e-9
    assert end_labels(figure(Series("only", [1], [1])), y_axis(drawn)) == []


@pytest.mark.parametrize(
    ("series", "labels"),
    [
        ([Series("a", [], []), Series("b", [], [])], []),
        ([Series("a", [], []), Series("b", [1, 2], [1, 2])], ["b"]),
        (
            [Series("a", [1, 9], [1, 2], "thin"), Series("b", [1, 2], [2, 3], "thin-dashed")],
            ["a", "b"],
        ),
        ([Series("a", [1, 9], [1, 2]), Series("b", [1, 2], [2, 3])], []),
        ([Series("a", [1, 2], [1, math.nan]), Series("b", [1, 2], [math.nan, math.nan])], ["a"]),
    ],
    ids=["all empty", "one empty", "all thin", "different ends", "without a value"],
)
def test_end_labels_of_empty_and_thin_curves(series: list[Series], labels: list[str]) -> None:
    drawn = figure(*series)
    assert [label.group for label in end_labels(drawn, y_axis(drawn))] == labels
    assert draw(drawn).svg and figure_png(drawn)


def test_a_point_without_a_line_to_another_point_has_a_marker() -> None:
    for style in ("thin", "thin-dashed", "line", "dashed"):
        series = Series("one seed", [1, 2], [math.nan, 5.0], style)  # type: ignore[arg-type]
        assert [point[:2] for point in marked_points(series, series.points())] == [(2, 5.0)]


def test_colors_have_contrast_on_their_background_and_differ_by_marker():
    assert min(contrast(color, LIGHT_GROUND) for color in LIGHT) >= 3
    assert min(contrast(color, DARK_GROUND) for color in DARK) >= 3
    assert len({name for name, _, _ in MARKERS}) == len(MARKERS) == len(LIGHT) == len(DARK)
    assert len({(group % NUM_COLORS, marker_of(group)) for group in range(64)}) == 64
    assert contrast("#000000", "#ffffff") == pytest.approx(21)


def longest_dark_row_px(num_series):
    """Return the length of the horizontal axis, which is the longest dark row of pixels."""
    series = [Series(f"net-{i} with a long name", [1, 2], [50, i]) for i in range(num_series)]
    png = figure_png(figure(*series, y_limits=(0, 100)), dots_per_inch=150)
    with Image.open(io.BytesIO(png)) as picture:
        return (np.asarray(picture.convert("L")) < 100).sum(axis=1).max()


def test_a_long_legend_is_beside_the_curves():
    assert longest_dark_row_px(20) < 0.85 * longest_dark_row_px(4)


def test_a_png_draws_hostile_names_literally():
    formula = Series("$\\frac{1}{", [1, 2], [1, 2])
    markup = Series("数字 <b>", [1, 2], [2, 1], "dashed")
    png = figure_png(figure(formula, markup, styles={"dashed": "$x"}))
    assert png.startswith(b"\x89PNG")
