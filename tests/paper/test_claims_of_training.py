"""The rules of the claims that rest on training, on made-up numbers: every outcome can be reached, and each by what it says."""

import math
import random

import pytest

from reslearn.paper.claims import c01, c02, c04, c05, c07, c08, c13
from reslearn.study import Steps, summary

DEPTHS = (8, 14, 20, 32, 56)
NAN = math.nan


def curves(*means: float, seeds: int = 4, spread: float = 0.3) -> list[list[float]]:
    """One curve a seed around `means`."""
    noise = random.Random(0)
    return [[mean + noise.uniform(-spread, spread) for mean in means] for _ in range(seeds)]


RISING, FLAT, FALLING = (
    curves(1, 2, 9, 60, 80),
    curves(2, 2, 2, 2, 2, spread=0.05),
    curves(9, 6, 4, 3, 2),
)
WILD = curves(10, 10, 10, 10, 12, spread=20)


@pytest.mark.parametrize(
    ("given", "outcome"),
    [
        (RISING, "shown"),
        (FLAT, "not shown"),
        (FALLING, "not shown"),
        (WILD, "undecided"),
        (RISING[:1], "undecided"),
        ([*FLAT, [2, 2, 2, 2, NAN]], "undecided"),
        ([[NAN] * 5] * 3, "undecided"),
    ],
)
def test_c1_reads_the_slope_of_plain_training_error(given: list[list[float]], outcome: str) -> None:
    assert c01.decide(DEPTHS, given)[0] == outcome


def test_c1_needs_more_than_its_margin() -> None:
    barely = curves(1, 1.1, 1.2, 1.4, 1.9, spread=0.001)
    assert c01.decide(DEPTHS, barely)[0] == "not shown"  # a clear rise, of less than one point


@pytest.mark.parametrize(
    ("plain", "residual", "outcome"),
    [
        (RISING, FLAT, "shown"),
        (FLAT, FLAT, "not shown"),
        (FLAT, RISING, "not shown"),
        (WILD, FLAT, "undecided"),
        ([*RISING, RISING[0]], [*FLAT, [NAN, 2, 2, 2, 2]], "undecided"),
        ([*FLAT, [NAN, 2, 2, 2, 2]], [*FLAT, FLAT[0]], "undecided"),
    ],
)
def test_c2_compares_slopes_by_seed(
    plain: list[list[float]], residual: list[list[float]], outcome: str
) -> None:
    assert c02.decide(DEPTHS, plain, residual)[0] == outcome


def steps(*values: float, censored: int = 0) -> list[Steps]:
    return [
        *(Steps(value, True) for value in values),
        *(Steps(500, False) for _ in range(censored)),
    ]


@pytest.mark.parametrize(
    ("residual", "plain", "outcome"),
    [
        (steps(20, 40, 40, 60, 60), steps(200, 300, censored=3), "shown"),
        (steps(200, 300, censored=3), steps(20, 40, 40, 60, 60), "not shown"),
        (steps(20, 40, 60, 80), steps(20, 40, 60, 80), "not shown"),
        (steps(20, 40), steps(200, 300), "undecided"),
        (steps(censored=4), steps(censored=4), "undecided"),
        (steps(20, 40, 60, 80), steps(20, 40, 60, censored=1), "undecided"),
    ],
)
def test_c4_counts_runs_that_never_arrive(
    residual: list[Steps], plain: list[Steps], outcome: str
) -> None:
    assert c04.decide(residual, plain)[0] == outcome


@pytest.mark.parametrize(
    ("given", "outcome"),
    [
        (FALLING, "shown"),
        (RISING, "not shown"),
        (FLAT, "not shown"),
        (WILD, "undecided"),
        (FALLING[:1], "undecided"),
        ([*FALLING, [9, 6, 4, 3, NAN]], "undecided"),
    ],
)
def test_c5_reads_the_slope_of_residual_test_error(given: list[list[float]], outcome: str) -> None:
    assert c05.decide(DEPTHS, given)[0] == outcome


@pytest.mark.parametrize(
    ("given", "outcome"),
    [
        (RISING, "shown"),
        (curves(9, 2, 9, 60, 80), "shown"),
        (FLAT, "not shown"),
        (FALLING, "not shown"),
        (curves(5, 65, 70, 75, 80), "not shown"),
        (WILD, "undecided"),
        (RISING[:1], "undecided"),
        ([*FLAT, [2, 2, 2, 2, NAN]], "undecided"),
    ],
)
def test_c7_wants_a_rise_and_a_bend(given: list[list[float]], outcome: str) -> None:
    assert c07.decide(DEPTHS, given)[0] == outcome


def test_c7_does_not_take_a_straight_line_for_a_bend() -> None:
    line = [[depth + shift for depth in DEPTHS] for shift in (0.0, 0.1, 0.2)]
    assert c07.decide(DEPTHS, line)[0] == "undecided"


@pytest.mark.parametrize(
    ("training", "test", "outcome"),
    [
        (curves(1, 60), curves(4, 62), "shown"),
        (curves(1, 0.1), curves(4, 9), "not shown"),
        (curves(1, 60), curves(4, 4.1), "undecided"),
        (curves(10, 12, spread=20), curves(4, 62), "undecided"),
        ([*curves(1, 0.1), [1, NAN]], [*curves(4, 9), [4, NAN]], "undecided"),
    ],
)
def test_c8_tells_degradation_from_overfitting(
    training: list[list[float]], test: list[list[float]], outcome: str
) -> None:
    assert c08.decide(training, test)[0] == outcome


@pytest.mark.parametrize(
    ("changes", "errors", "outcome"),
    [
        ([], {8: [1, 2, 1], 56: [3, 4, 5]}, "shown"),
        (["nesterov"], {8: [1, 2, 1]}, "not shown"),
        ([], {8: [1, 2, 1], 56: [80, 81, 82]}, "not shown"),
        ([], {8: [1, 2, 1], 56: [3, 80, 5]}, "undecided"),
        ([], {8: [1, 2, NAN]}, "undecided"),
        ([], {8: [1]}, "undecided"),
    ],
)
def test_c13_wants_the_solver_unchanged_and_the_nets_trained(
    changes: list[str], errors: dict[int, list[float]], outcome: str
) -> None:
    assert (
        c13.decide(
            changes, {depth: summary(values) for depth, values in errors.items()}, guessing_pct=90
        )
        == outcome
    )


def test_c13_names_what_was_changed() -> None:
    recipe = {
        "model": {"name": "resnet56"},
        "optimizer": {"name": "sgd", "nesterov": False, "momentum": 0.9},
        "schedule": {"warm_up_lr": None},
        "train": {"ema": None},
    }
    assert c13.changes_to_the_solver(recipe) == []
    assert c13.changes_to_the_solver(
        {**recipe, "optimizer": {"name": "muon", "nesterov": True, "momentum": 0}}
    ) == [
        "optimizer.name = muon",
        "optimizer.momentum = 0",
        "optimizer.nesterov = true",
    ]
    warmed = {**recipe, "schedule": {"warm_up_lr": 0.01}}
    assert c13.changes_to_the_solver(warmed) == ["schedule.warm_up_lr is set"]
    assert (
        c13.changes_to_the_solver({**warmed, "model": {"name": "resnet110"}}) == []
    )  # the paper's own


def test_the_rules_are_told_in_words() -> None:
    for module in (c01, c02, c04, c05, c07, c08, c13):
        assert "Shown" in module.CLAIM.rule or module is c13
        assert module.CLAIM.identifier == f"C{int(module.__name__[-2:])}"
