"""Forest plots: positions of effects, intervals that are cut off, and effects without a number."""

import math
import re

import pytest

from reslearn.report import Effect, Forest, Page, Section, write_page
from reslearn.report.forest import draw_forest, forest_axis
from reslearn.report.png import figure_png
from reslearn.report.write import figure_csv

SHOWN = Effect("zero <init>", (2.0, 2.4), 2.2, 1.5, 2.9, decided=True)
OPEN = Effect("Nesterov", (-1.0, 1.0), 0.0, -100.0, 100.0, decided=False)
LOST = Effect("lost", (math.nan,), math.nan, math.nan, math.nan, decided=False)


def forest(*effects: Effect, margin: float = 0.5) -> Forest:
    return Forest("effects", "Effects", "caption", "points", effects, margin)


def test_effects_are_at_their_values_and_names_are_escaped() -> None:
    plot = forest(SHOWN, LOST)
    axis, svg = forest_axis(plot), str(draw_forest(plot))
    positions = [float(x) for x in re.findall(r'class="seed" cx="([\d.]+)%"', svg)]
    expected = [100 * axis.fraction(value) for value in SHOWN.values]
    assert positions == pytest.approx(expected, abs=0.01)
    assert "zero &lt;init&gt;: +2.20 [+1.50, +2.90]" in svg and "lost: no number" in svg
    assert svg.count("<use") == 1 and svg.count('class="interval"') == 1
    assert svg.count('class="effect"') == 1 and svg.count('class="effect open"') == 1


def test_an_interval_wider_than_the_figure_is_cut_off_and_does_not_widen_the_axis() -> None:
    plot = forest(SHOWN, OPEN)
    assert forest_axis(plot).high < 10
    assert 'class="interval" x1="0.00%" x2="100.00%"' in str(draw_forest(plot))


def test_the_margin_and_zero_are_within_the_axis() -> None:
    axis = forest_axis(forest(SHOWN, margin=3.0))
    assert axis.low <= -3 and axis.high >= 3
    assert 'class="margin"' not in str(draw_forest(forest(SHOWN, margin=0.0)))


def test_a_page_with_a_forest_plot_is_written_with_its_numbers(tmp_path) -> None:
    plot = forest(SHOWN, OPEN, LOST)
    path = write_page(Page("p", "", [Section("s", "", [plot])]), tmp_path)
    assert path.read_text().count("<figure") == 1
    assert figure_png(plot).startswith(b"\x89PNG") and figure_png(forest()).startswith(b"\x89PNG")
    head, first, _, last = figure_csv(plot).splitlines()
    assert head == "points,decided,mean,low,high,value 1,value 2"
    assert first == "zero <init>,True,2.2,1.5,2.9,2,2.4" and last == "lost,False,,,,"


def test_a_name_that_is_not_a_file_name_is_refused() -> None:
    with pytest.raises(ValueError, match="becomes a file name"):
        Forest("../x", "", "", "", [])
