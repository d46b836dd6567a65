"""The rules of C1 to C8 on made-up numbers, with cases on either side of every margin."""

import math
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from stub_engine import around, trained_in_memory

from reslearn import models, paper
from reslearn.paper.claims import (
    c01,
    c02,
    c03,
    c04,
    c05,
    c06,
    c07,
    c08,
)
from reslearn.paper.trained import Trained
from reslearn.study import Steps, StepsComparison, compare_steps

DEPTHS = (8, 14, 20, 32, 56)
NAN = math.nan
Curves = list[list[float]]


def curves(*means: float, seeds: int = 4, spread: float = 0.3) -> Curves:
    """Return one curve per seed around `means`."""
    noise = random.Random(0)
    return [[mean + noise.uniform(-spread, spread) for mean in means] for _ in range(seeds)]


RISING = curves(1, 2, 9, 60, 80)
FLAT = curves(2, 2, 2, 2, 2, spread=0.05)
FALLING = curves(9, 6, 4, 3, 2)
WILD = curves(20, 20, 20, 20, 22, spread=20)


def ends_at(*last: float, first: float = 10.0) -> Curves:
    """Return curves over two depths that begin at `first` and end at `last`, one per seed."""
    return [[first, value] for value in last]


def test_every_claim_has_its_name_and_states_its_outcomes() -> None:
    claims = [module.EXPERIMENT for module in paper.load_claims()]
    assert [claim.name for claim in claims] == [f"C{number}" for number in range(1, 15)]
    for claim in claims:
        assert "Shown: " in claim.rule and "Not shown: " in claim.rule
        assert "  " not in claim.rule and "{" not in claim.rule


@pytest.mark.parametrize(
    ("errors", "outcome"),
    [
        (RISING, "shown"),
        (FLAT, "not shown"),
        (FALLING, "not shown"),
        (WILD, "undecided"),
        (RISING[:1], "undecided"),
        ([*FLAT, [2, 2, 2, 2, NAN]], "undecided"),
        ([*RISING, [NAN, 2, 9, 60, 80]], "undecided"),  # a lost shallow run speaks for the claim
        ([*RISING, [1, 2, 9, 60, NAN]], "shown"),  # a lost deepest run speaks against it
        ([[NAN] * 5] * 3, "undecided"),
    ],
)
def test_c1_judges_the_slope_of_plain_training_error(errors: Curves, outcome: str) -> None:
    assert c01.measure(trained_in_memory(DEPTHS, plain=errors)).outcome == outcome


def test_c1_at_its_margin() -> None:
    def outcome(rise: float) -> str | None:
        errors = ends_at(*around(10 + rise))
        return c01.measure(trained_in_memory((8, 20), plain=errors)).outcome

    assert (outcome(1.01), outcome(0.99)) == ("shown", "not shown")


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
def test_c2_compares_slopes_by_seed(plain: Curves, residual: Curves, outcome: str) -> None:
    trained = trained_in_memory(DEPTHS, plain=plain, residual=residual)
    assert c02.measure(trained).outcome == outcome


def test_c2_at_its_margin() -> None:
    def outcome(difference: float) -> str | None:
        plain, residual = ends_at(*around(12 + difference)), ends_at(12, 12, 12)
        return c02.measure(trained_in_memory((8, 20), plain=plain, residual=residual)).outcome

    assert (outcome(1.01), outcome(0.99)) == ("shown", "not shown")


@pytest.fixture
def nothing_trained(tmp_path: Path) -> Trained:
    return Trained(budget=paper.demo(), folder=tmp_path, fit=lambda *_, **__: [])


def test_c3_holds_in_every_bit(nothing_trained: Trained) -> None:
    result = c03.measure(nothing_trained)
    assert result.outcome == "shown"
    assert result.numbers["resnet56 A"] == {
        "blocks": 27,
        "sums": 27,
        "identities_due": 25,
        "identities": 25,
    }
    assert result.numbers["resnet20 C"]["identities_due"] == 0


def test_c3_is_not_shown_if_one_block_is_different(
    nothing_trained: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torch import nn

    build = models.build

    def build_without_last_activation(*args: Any, **switches: Any) -> models.Network:
        network = build(*args, **switches)
        network.blocks()[-1][1].activation = nn.Identity()
        return network

    monkeypatch.setattr(models, "build", build_without_last_activation)
    monkeypatch.setattr(c03, "_NETWORKS", (("resnet20", "A"),))
    assert c03.measure(nothing_trained).outcome == "not shown"


def steps(*values: float, censored: int = 0) -> list[Steps]:
    return [*(Steps(value, True) for value in values), *[Steps(500, False)] * censored]


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
    assert c04.decide(compare_steps(residual, plain)) == outcome


@pytest.mark.parametrize(
    ("p", "residual_mean", "num_reached", "outcome"),
    [
        (0.049, 20.0, 3, "shown"),
        (0.051, 20.0, 3, "undecided"),
        (0.049, 40.0, 3, "not shown"),
        (0.051, 40.0, 3, "undecided"),
        (0.51, 20.0, 3, "not shown"),
        (0.49, 20.0, 3, "undecided"),
        (0.51, 20.0, 2, "undecided"),
    ],
)
def test_c4_at_its_margins(p: float, residual_mean: float, num_reached: int, outcome: str) -> None:
    comparison = StepsComparison(
        restricted_mean_a=residual_mean,
        restricted_mean_b=30.0,
        horizon=50.0,
        num_reached_a=num_reached,
        num_reached_b=3,
        n_a=3,
        n_b=3,
        p=p,
        p_exact=None,
    )
    assert c04.decide(comparison) == outcome
    assert c04.decide(replace(comparison, p=1.0, p_exact=p)) == outcome


@pytest.mark.parametrize(
    ("errors", "outcome"),
    [
        (FALLING, "shown"),
        (RISING, "not shown"),
        (FLAT, "not shown"),
        (WILD, "undecided"),
        (FALLING[:1], "undecided"),
        ([*FALLING, [9, 6, 4, 3, NAN]], "undecided"),
        ([*FLAT, [NAN, 2, 2, 2, 2]], "undecided"),
    ],
)
def test_c5_judges_the_slope_of_residual_test_error(errors: Curves, outcome: str) -> None:
    assert c05.measure(trained_in_memory(DEPTHS, residual=errors)).outcome == outcome


def test_c5_at_its_margin() -> None:
    def outcome(gain: float) -> str | None:
        errors = ends_at(*around(10 - gain))
        return c05.measure(trained_in_memory((8, 20), residual=errors)).outcome

    assert (outcome(0.51), outcome(0.49)) == ("shown", "not shown")


@pytest.mark.parametrize(
    ("modern", "old", "outcome"),
    [
        ([True, True], [False, False], "shown"),
        ([True, True], [True, False], "undecided"),
        ([True, False], [False, False], "undecided"),
        ([False, False], [False, False], "not shown"),
        ([True, True], [True, True], "not shown"),
    ],
)
def test_c6_wants_every_modern_start_and_no_old_one(
    modern: list[bool], old: list[bool], outcome: str
) -> None:
    assert c06.decide(modern, old) == outcome


@pytest.mark.parametrize(
    ("errors", "outcome"),
    [
        (RISING, "shown"),
        (curves(9, 2, 9, 60, 80), "shown"),
        (FLAT, "not shown"),
        (FALLING, "not shown"),
        (curves(5, 65, 70, 75, 80), "not shown"),
        (WILD, "undecided"),
        (RISING[:1], "undecided"),
        ([*FLAT, [2, 2, 2, 2, NAN]], "undecided"),
        ([*RISING, [NAN, 2, 9, 60, 80]], "undecided"),
        # A lost shallowest run would bend the curve upwards.
        (curves(1, 65, 70, 75, 80), "not shown"),
        ([*curves(1, 65, 70, 75, 80), [NAN, 65, 70, 75, 80]], "undecided"),
    ],
)
def test_c7_wants_a_rise_and_a_bend(errors: Curves, outcome: str) -> None:
    assert c07.measure(trained_in_memory(DEPTHS, plain=errors)).outcome == outcome


def test_c7_a_straight_line_is_no_bend() -> None:
    line = [[depth + shift for depth in DEPTHS] for shift in (0.0, 0.1, 0.2)]
    assert c07.measure(trained_in_memory(DEPTHS, plain=line)).outcome == "undecided"


def test_c7_at_its_margins() -> None:
    def outcome(early_rise: float, late_rise: float) -> str | None:
        errors = [[10, 10 + early_rise, 10 + early_rise + late] for late in around(late_rise)]
        return c07.measure(trained_in_memory((8, 14, 20), plain=errors)).outcome

    assert (outcome(0.0, 1.01), outcome(0.0, 0.99)) == ("shown", "not shown")
    assert (outcome(4.99, 5.0), outcome(5.01, 5.0)) == ("shown", "not shown")


@pytest.mark.parametrize(
    ("training", "test", "outcome"),
    [
        (curves(1, 60), curves(4, 62), "shown"),
        (curves(1, 1.1), curves(4, 9), "not shown"),
        (curves(1, 60), curves(4, 4.1), "undecided"),
        (curves(20, 22, spread=20), curves(4, 62), "undecided"),
        ([*curves(1, 1.1), [1, NAN]], [*curves(4, 9), [4, NAN]], "undecided"),
        ([*curves(1, 60), [NAN, 60]], [*curves(4, 62), [NAN, 62]], "undecided"),
    ],
)
def test_c8_separates_degradation_from_overfitting(
    training: Curves, test: Curves, outcome: str
) -> None:
    trained = trained_in_memory((8, 56), plain=training, plain_test=test)
    assert c08.measure(trained).outcome == outcome


def test_c8_at_its_margins() -> None:
    def outcome(training_rise: float, test_rise: float) -> str | None:
        training, test = (
            ends_at(*around(10 + training_rise)),
            ends_at(*around(10 + test_rise)),
        )
        return c08.measure(trained_in_memory((8, 56), plain=training, plain_test=test)).outcome

    assert (outcome(1.01, 5.0), outcome(0.99, 5.0)) == ("shown", "not shown")
    assert (outcome(5.0, 1.01), outcome(5.0, 0.99)) == ("shown", "undecided")
