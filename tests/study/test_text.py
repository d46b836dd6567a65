"""Numbers with intervals have one form in all outputs."""

import math

import pytest

from reslearn.study import Interval, compare, count_text, interval_text, number_text, summary


def test_a_value_with_everything() -> None:
    text = number_text(
        8.75, deviation=0.308, unit="%", interval=Interval(8.4, 9.1), confidence=1 - 0.05 / 3
    )
    assert text == "8.75 ± 0.31 % [8.40, 9.10] (98.33 %)"


def test_a_difference_has_signs_and_the_digits_of_the_caller() -> None:
    interval = Interval(-0.3, 0.54)
    assert number_text(0.12, signed=True, interval=interval) == "+0.12 [-0.30, +0.54]"
    assert number_text(0.12, digits=1, signed=True, interval=interval) == "+0.1 [-0.3, +0.5]"


def test_the_usual_confidence_is_not_printed() -> None:
    assert interval_text(Interval(1, 2), confidence=1 - 0.05) == "[1.00, 2.00]"
    assert interval_text(Interval(1, 2), confidence=0.9) == "[1.00, 2.00] (90 %)"


def test_a_missing_interval_is_left_out_or_explained() -> None:
    assert interval_text(None) == ""
    assert number_text(8.75) == "8.75"
    assert number_text(8.75, unit="%", no_interval="(no interval)") == "8.75 % (no interval)"


@pytest.mark.parametrize("value", [None, math.nan])
def test_a_missing_value_is_no_number(value: float | None) -> None:
    assert number_text(value, unit="%", no_interval="(no interval)") == "no value"


def test_counts_name_diverged_runs() -> None:
    assert count_text(1) == "1 seed"
    assert count_text(3, 2) == "3 seeds, 2 diverged"
    assert count_text(2, noun="pair") == "2 pairs"


def test_statistics_fit_into_text() -> None:
    seeds = summary([8.0, math.nan, 9.0])
    text = number_text(seeds.mean, deviation=seeds.standard_deviation, interval=seeds.interval)
    assert text == "8.50 ± 0.71 [2.15, 14.85]"
    assert number_text(summary([math.nan]).mean) == "no value"
    gain = compare([1.0, 2.0], [2.0, 3.0], paired=True)
    assert number_text(gain.difference, signed=True) == "-1.00"
