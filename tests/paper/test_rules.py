"""The decision rules: every outcome, and a case on either side of every margin."""

import math

import pytest
from stub_engine import around

from reslearn.paper.experiment import Line
from reslearn.paper.rules import (
    against_paper,
    all_of,
    degrades,
    effect_test,
    exact,
    moves,
    rises,
    verdict_on_claim,
)
from reslearn.study import Answer, Spread, degradation_verdict, summary

NAN = math.nan


@pytest.mark.parametrize(
    ("values", "scale", "answer"),
    [
        (around(1.01), 1, "yes"),
        (around(0.99), 1, "no"),
        (around(0.101), 10, "yes"),
        (around(-1.01), -1, "yes"),
        (around(-1.01), 1, "no"),
        (
            [0.2, 1.5, 2.0],
            1,
            "undecided",
        ),  # the mean is above the margin, the interval is not above 0
        ([0.8, 0.9, 1.2], 1, "undecided"),  # the interval is above 0, the mean is below the margin
        ([5.0], 1, "undecided"),
        ([NAN], 1, "undecided"),
    ],
)
def test_an_effect_needs_an_interval_above_0_and_a_mean_above_the_margin(
    values: list[float], scale: float, answer: str
) -> None:
    assert effect_test(summary(values), 1.0, scale=scale) == answer


@pytest.mark.parametrize(
    ("answers", "answer"),
    [
        (("yes", "yes"), "yes"),
        (("yes", "undecided"), "undecided"),
        (("undecided", "no"), "no"),
        (("yes", "no"), "no"),
    ],
)
def test_one_no_decides_and_yes_needs_all(answers: tuple[Answer, ...], answer: str) -> None:
    assert all_of(*answers) == answer


def test_verdicts_on_claims() -> None:
    answers: tuple[Answer, ...] = ("yes", "no", "undecided")
    assert [verdict_on_claim(answer) for answer in answers] == ["shown", "not shown", "undecided"]


@pytest.mark.parametrize(
    ("ours", "paper", "within", "outcome"),
    [
        (3.858, 3.8, 0.1, "reproduced"),
        (3.701, 3.8, 0.1, "reproduced"),
        (3.901, 3.8, 0.1, "not reproduced"),
        (3.699, 3.8, 0.1, "not reproduced"),
        (1.75, 1.7, 0.05, "reproduced"),  # exactly at the margin, up to rounding
        (1.751, 1.7, 0.05, "not reproduced"),
    ],
)
def test_an_exact_number_agrees_to_its_last_digit(
    ours: float, paper: float, within: float, outcome: str
) -> None:
    assert exact("", "10^9", ours, paper, within=within).outcome == outcome


def agreement(*values: float, same_protocol: bool = True, spread: Spread | None = None) -> Line:
    return against_paper("", values, 8.75, same_protocol=same_protocol, spread=spread)


@pytest.mark.parametrize(
    ("values", "outcome"),
    [
        ((8.7, 8.8, 8.75), "reproduced"),
        (around(9.24), "reproduced"),
        (around(8.26), "reproduced"),
        (around(9.26), "not reproduced"),
        (around(8.24), "not reproduced"),
        ((8.0, 9.0, 10.0), "undecided"),
        ((8.75,), "undecided"),
        ((8.7, 8.8, 8.75, NAN), "undecided"),
        ((), "not run here"),
    ],
)
def test_an_error_is_the_papers_within_half_a_point(
    values: tuple[float, ...], outcome: str
) -> None:
    assert agreement(*values).outcome == outcome


def test_runs_of_another_protocol_get_no_verdict() -> None:
    line = agreement(8.7, 8.8, 8.75, same_protocol=False)
    assert (line.outcome, line.values) == ("not run here", (8.7, 8.8, 8.75))


def test_runs_that_all_gave_one_number_reproduce_nothing() -> None:
    line = agreement(8.9, 8.9)
    assert (line.outcome, line.because) == ("undecided", "2 runs gave exactly the same number")


def test_the_spread_of_the_papers_number_counts() -> None:
    close = (8.34, 8.39, 8.44)
    assert agreement(*close).outcome == "reproduced"
    assert agreement(*close, spread=Spread(0.16, 5)).outcome == "undecided"


@pytest.mark.parametrize(
    ("differences", "outcome"),
    [
        ([5.0, 6.0, 7.0], "reproduced"),
        (around(1.01), "reproduced"),
        (around(0.99), "not reproduced"),
        ([1.0, 1.0], "not reproduced"),  # the interval ends exactly at the margin
        ([-5.0, -6.0, -7.0], "not reproduced"),
        ([-5.0, 6.0, 7.0], "undecided"),
        ([0.8, 0.9, 1.2], "undecided"),
        ([5.0], "undecided"),
        ([5.0, 6.0, 7.0, NAN], "undecided"),
        ([0.1, 0.2, 0.15, NAN], "undecided"),
    ],
)
def test_a_rise_of_more_than_a_point(differences: list[float], outcome: str) -> None:
    assert rises("", differences, same_protocol=True).outcome == outcome
    other = {"reproduced": "shown", "not reproduced": "not shown", "undecided": "undecided"}
    assert rises("", differences, same_protocol=False).outcome == other[outcome]


def test_a_rise_without_a_margin() -> None:
    def outcome(values: list[float]) -> str:
        return rises("", values, same_protocol=True, margin=0.0).outcome

    assert outcome(around(0.01)) == "reproduced"
    assert outcome(around(-0.01)) == outcome([0.0, 0.0]) == "not reproduced"
    assert outcome(around(0.0)) == "undecided"


def test_only_a_rise_is_told_how_many_seeds_would_show_it() -> None:
    rise = rises("", [9.0, -1.0, 4.0], same_protocol=False)
    fall = rises("", [-9.0, 1.0, -4.0], same_protocol=False)
    assert (fall.outcome, rise.outcome) == ("undecided", "undecided")
    assert rise.because.endswith("15 seeds are needed to tell 4 points from 0 with a power of 80 %")
    assert "seeds" not in fall.because


def test_a_degradation_verdict_is_compared_with_the_paper() -> None:
    rows = [
        (depth, seed, error + 0.1 * seed)
        for depth, error in ((20, 5.0), (56, 20.0))
        for seed in range(3)
    ]
    verdict = degradation_verdict(rows, margin_pct=1.0)
    line = degrades("", verdict, paper_says="yes", same_protocol=True)
    assert (line.outcome, line.values) == ("reproduced", pytest.approx((15.0, 15.0, 15.0)))
    assert line.difference == pytest.approx(15)
    assert degrades("", verdict, paper_says="no", same_protocol=True).outcome == "not reproduced"
    assert degrades("", verdict, paper_says="no", same_protocol=False).outcome == "not shown"
    undecided = degradation_verdict(rows[::3], margin_pct=1.0)
    assert degrades("", undecided, paper_says="no", same_protocol=True).outcome == "undecided"


@pytest.mark.parametrize(
    ("differences", "p", "outcome"),
    [
        (around(0.01), 0.049, "shown"),
        (around(0.01), 0.051, "not shown"),
        (around(0.29), 0.051, "not shown"),
        (around(-0.29), 0.051, "not shown"),
        (around(0.31), 0.051, "undecided"),
        (around(-0.31), 0.051, "undecided"),
        ([0.1], None, "undecided"),
        ([*around(0.5), NAN], 0.001, "undecided"),
    ],
)
def test_a_switch_moves_the_error(differences: list[float], p: float | None, outcome: str) -> None:
    assert moves("", differences, p=p, margin=0.3).outcome == outcome
