"""Axes, thinning, labels, colors: what the inline SVG and the PNG share."""

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
    MARKS,
    NUM_COLORS,
    contrast,
    mark_of,
)
from reslearn.report.png import figure_png
from reslearn.report.svg import MIN_LABEL_GAP, SIDE, draw, end_labels, marked, thin

numbers = st.floats(-1e9, 1e9, allow_nan=False) | st.sampled_from([math.nan, math.inf, 0.0])


def figure(*series, **values):
    return Figure("f", "Title", "Caption", "x", "y", series, **values)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(numbers, numbers), min_size=0, max_size=40), st.booleans())
def test_axes_hold_all_values_and_ticks_rise_within(points, log):
    drawn = figure(Series("a", [x for x, _ in points], [y for _, y in points]), y_log=log)
    across, up = x_axis(drawn), y_axis(drawn)
    for axis, values in ((across, [x for x, _ in points]), (up, [y for _, y in points])):
        assert all(a < b for a, b in itertools.pairwise(axis.ticks))
        assert all(axis.low <= tick <= axis.high for tick in axis.ticks)
        assert len(axis.labels) == len(axis.ticks) >= 1
        fractions = [axis.fraction(value) for value in values]
        assert all(
            -1e-9 <= fraction <= 1 + 1e-9 for fraction in fractions if math.isfinite(fraction)
        )
        assert all(
            math.isfinite(f) == (math.isfinite(v) and (v > 0 or not axis.log))
            for f, v in zip(fractions, values, strict=True)
        )
    draw(drawn)


@pytest.mark.parametrize(
    ("x", "labels"),
    [
        ([20, 32, 44, 56], ("20", "32", "44", "56")),
        (range(390, 64_001, 390), ("0", "20k", "40k", "60k")),
        ([8, 14, 20, 1202], ("0", "500", "1000")),
        (range(1, 13), ("5", "10")),
        ([-1.5, 1.5], ("−1.5", "1.5")),
    ],
)
def test_ticks_read_as_the_paper_labels_them(x, labels):
    assert x_axis(figure(Series("a", x, [1] * len(x)))).labels == labels


def test_a_log_axis_is_labeled_in_decades_and_errors_start_at_zero():
    assert y_axis(figure(Series("a", [1, 2], [1e-8, 1.0]), y_log=True)).labels == (
        "10⁻⁸",
        "10⁻⁶",
        "10⁻⁴",
        "10⁻²",
        "1",
    )
    assert y_axis(figure(Series("a", [1, 2], [6.0, 20.0]))).low == 0
    assert y_axis(figure(Series("a", [1, 2], [18.0, 20.0]))).low > 10
    assert y_axis(figure(Series("a", [1, 2], [18.0, 90.0]), y_limits=(0, 25))).high == 25


def test_a_wide_band_does_not_flatten_its_curve():
    up = y_axis(figure(Series("a", [1, 2], [4.0, 10.0], low=[-400, -400], high=[400, 400])))
    assert up.low == 0
    assert up.high < 20


def test_thinning_keeps_ends_spikes_and_gaps():
    points = [(float(i), 1.0, math.nan, math.nan) for i in range(10_000)]
    points[4321] = (4321.0, 99.0, math.nan, math.nan)
    points[7777] = (7777.0, math.nan, math.nan, math.nan)
    kept = thin(points, 200)
    assert len(kept) <= 202
    assert {points[0], points[-1], points[4321]} <= set(kept)
    assert any(math.isnan(y) for _, y, _, _ in kept)
    assert thin(points[:50], 200) == points[:50]


def test_a_gap_parts_the_path_and_a_lonely_point_is_a_dot():
    svg = draw(figure(Series("a", range(5), [1, 2, math.nan, 3, math.inf]))).svg
    (path,) = re.findall(r'class="stroke" d="([^"]+)"', svg)
    assert path.count("M") == 2
    assert path.endswith("h0")
    assert "nan" not in svg and "inf" not in svg


def test_nothing_at_all_is_still_a_picture():
    for drawn in (
        figure(),
        figure(Series("a", [], [])),
        figure(Series("a", [1], [math.nan])),
        figure(Series("a", [1], [-1]), y_log=True),
    ):
        assert draw(drawn).svg
        assert figure_png(drawn).startswith(b"\x89PNG")


def test_far_outside_the_limits_stays_drawable():
    svg = draw(figure(Series("a", [0, 1, 2], [1, 1e300, 2]), y_limits=(0, 10))).svg
    assert (
        max(abs(int(n)) for n in re.findall(r"-?\d+", re.findall(r'd="(M[^"]+)"', svg)[0]))
        <= 10 * SIDE
    )


def test_end_labels_keep_their_distance_and_their_order():
    drawn = figure(
        *(Series(f"net-{i}", [1, 2], [50, 10 + 0.01 * i]) for i in range(6)), y_limits=(0, 100)
    )
    places = [label.y for label in end_labels(drawn, y_axis(drawn))]
    assert all(b - a >= MIN_LABEL_GAP - 1e-9 for a, b in itertools.pairwise(places))
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
    ids=["all empty", "one empty", "all thin", "ends at different places", "without a value"],
)
def test_end_labels_of_empty_and_thin_curves(series: list[Series], labels: list[str]) -> None:
    drawn = figure(*series)
    assert [label.group for label in end_labels(drawn, y_axis(drawn))] == labels
    assert draw(drawn).svg and figure_png(drawn)


def test_a_point_that_no_line_joins_to_another_has_a_marker() -> None:
    for style in ("thin", "thin-dashed", "line", "dashed"):
        drawn = Series("one seed", [1, 2], [math.nan, 5.0], style)  # type: ignore[arg-type]
        assert [point[:2] for point in marked(drawn, drawn.points())] == [(2, 5.0)]


def test_colors_have_contrast_on_their_ground_and_differ_by_marker():
    assert min(contrast(color, LIGHT_GROUND) for color in LIGHT) >= 3
    assert min(contrast(color, DARK_GROUND) for color in DARK) >= 3
    assert len({name for name, _, _ in MARKS}) == len(MARKS) == len(LIGHT) == len(DARK)
    assert len({(group % NUM_COLORS, mark_of(group)) for group in range(64)}) == 64
    assert contrast("#000000", "#ffffff") == pytest.approx(21)


def test_a_long_legend_stands_beside_the_curves():
    lengths = {}
    for number in (4, 20):
        drawn = figure(
            *(Series(f"net-{i} of a long name", [1, 2], [50, i]) for i in range(number)),
            y_limits=(0, 100),
        )
        with Image.open(io.BytesIO(figure_png(drawn))) as picture:
            lengths[number] = (
                (np.asarray(picture.convert("L")) < 100).sum(axis=1).max()
            )  # the horizontal axis, in pixels
    assert lengths[20] < 0.85 * lengths[4]


def test_png_draws_hostile_names_as_they_are():
    png = figure_png(
        figure(
            Series("$\\frac{1}{", [1, 2], [1, 2]),
            Series("数字 <b>", [1, 2], [2, 1], "dashed"),
            styles={"dashed": "$x"},
        )
    )
    assert png.startswith(b"\x89PNG")
