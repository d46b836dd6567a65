"""The rules for causes, sub-causes and suspicions, on either side of each margin.

Scores are written by hand, so nothing is trained.
"""

import math
from dataclasses import replace
from typing import Any

import pytest
from scipy.stats import fisher_exact

from reslearn.diagnose import Scores, decide
from reslearn.diagnose.plan import RateChoice, checked_rates, look_counts
from reslearn.diagnose.scores import AT_GIVEN_RATE, fails_more_often, fisher_p, is_worse
from reslearn.diagnose.suspicion import leading_suspicion
from reslearn.diagnose.verdict import is_plain, ruled_out, suspect
from reslearn.diagnose.verdict_rules import GRADIENT_RATIO

INSIDE, OUTSIDE = 0.049, 0.051
SEEDS = 3


def scores(looks: int = 1, half: dict[str, float] | None = None, **means: Any) -> Scores:
    """Return scores of SEEDS equal seeds; a list gives the score of each seed.

    Args:
        half: Training scores after half of the steps, where they differ from the end.
    """
    fields = {
        name: means.pop(name)
        for name in (
            *("num_layers", "linear", "is_short", "is_extended", "signal", "given_lr"),
            "dead_shares",
        )
        if name in means
    }
    values = {
        name: mean if isinstance(mean, list) else [mean] * SEEDS for name, mean in means.items()
    }
    at_half = {name: [mean] * SEEDS for name, mean in (half or {}).items()}
    return Scores(
        train=values,
        held_out=values,
        held_at_half=values,
        train_at_half=values | at_half,
        neighbors=0.3,
        looks=looks,
        best_lr=0.1,
        **fields,
    )


def at_given(name: str, mean: float) -> dict[str, float]:
    return {f"{name}{AT_GIVEN_RATE}": mean}


# Name of the rule: a verdict with its sub-cause and scores on one side of a margin, then the other.
Side = tuple[str, str, Scores]
SIDES: dict[str, tuple[Side, Side]] = {
    "nothing could be better": (
        ("healthy", "", scores(deep=INSIDE)),
        ("undecided", "", scores(deep=OUTSIDE)),
    ),
    "worse than without its output activation": (
        ("healthy", "", scores(deep=0.3, shallow=0.3, bare=0.3 - INSIDE)),
        ("output layer", "output activation", scores(deep=0.3, shallow=0.3, bare=0.3 - OUTSIDE)),
    ),
    "the cause that helps most": (
        ("output layer", "output activation", scores(deep=0.9, bare=0.3, initialized=0.3 - INSIDE)),
        (
            "vanishing or exploding signal",
            "initialization",
            scores(deep=0.9, bare=0.3, initialized=0.3 - OUTSIDE),
        ),
    ),
    "regularized too much: it learns little": (
        ("healthy", "", scores(deep=0.699, shallow=0.699, unregularized=0.1)),
        ("too much regularization", "", scores(deep=0.701, shallow=0.701, unregularized=0.1)),
    ),
    "regularized too much: without, it learns": (
        ("too much regularization", "", scores(deep=1.0, shallow=1.0, unregularized=0.699)),
        ("undecided", "", scores(deep=1.0, shallow=1.0, unregularized=0.701)),
    ),
    "units die of a signal that vanishes": (
        (
            "dead units",
            "initialization",
            scores(deep=1.0, initialized=0.1, dead_shares=[1.0] * SEEDS),
        ),
        (
            "vanishing or exploding signal",
            "vanishing",
            scores(deep=1.0, initialized=0.1, dead_shares=[1.0] * SEEDS, signal="vanishing"),
        ),
    ),
    "the deep network is still falling": (
        ("degradation", "", scores(deep=0.3, shallow=0.0, half={"deep": 0.3 + INSIDE})),
        ("undecided", "", scores(deep=0.3, shallow=0.0, half={"deep": 0.3 + OUTSIDE})),
    ),
    "still falling, with further steps": (
        ("undecided", "", scores(deep=0.3, shallow=0.0, half={"deep": 0.5})),
        ("degradation", "", scores(deep=0.3, shallow=0.0, half={"deep": 0.5}, is_extended=True)),
    ),
    "too small only if every seed learns": (
        ("capacity too small", "", scores(deep=[0.9, 0.94, 0.95], wide=0.1, num_layers=4)),
        ("undecided", "", scores(deep=[0.9, 0.94, 0.951], wide=0.1, num_layers=4)),
    ),
    "too small only if no linear model is better": (
        ("capacity too small", "", scores(deep=0.5, wide=0.1, num_layers=4, linear=0.5 - INSIDE)),
        ("undecided", "", scores(deep=0.5, wide=0.1, num_layers=4, linear=0.5 - OUTSIDE)),
    ),
    "the rate fails before it falls: the given one": (
        ("healthy", "", scores(deep=0.02, given=0.02, half={"given": 0.95, "deep": 0.5})),
        (
            "bad learning rate",
            "too high",
            scores(deep=0.02, given=0.02, half={"given": 0.951, "deep": 0.5}, given_lr=1.0),
        ),
    ),
    "the rate fails before it falls: the best one": (
        ("healthy", "", scores(deep=0.02, given=0.02, half={"given": 2.0, "deep": 0.901})),
        (
            "bad learning rate",
            "too high",
            scores(deep=0.02, given=0.02, half={"given": 2.0, "deep": 0.899}, given_lr=1.0),
        ),
    ),
    "too low or too high": (
        ("bad learning rate", "too low", scores(deep=0.1, shallow=0.1, given=0.9, given_lr=0.09)),
        ("bad learning rate", "too high", scores(deep=0.1, shallow=0.1, given=0.9, given_lr=0.11)),
    ),
    "a slow rate comes at least halfway": (
        ("healthy", "", scores(deep=0.1, shallow=0.1, given=0.5, given_lr=0.05)),
        ("bad learning rate", "too low", scores(deep=0.1, shallow=0.1, given=0.51, given_lr=0.05)),
    ),
    "a slow rate is at most four times smaller": (
        ("healthy", "", scores(deep=0.1, shallow=0.1, given=0.5, given_lr=0.025)),
        ("bad learning rate", "too low", scores(deep=0.1, shallow=0.1, given=0.5, given_lr=0.0249)),
    ),
    "a rate that is too high after short trials": (
        (
            "bad learning rate",
            "too high",
            scores(deep=0.5, shallow=0.5, given=0.951, given_lr=1.0, is_short=True),
        ),
        (
            "undecided",
            "too high",
            scores(deep=0.5, shallow=0.5, given=0.949, given_lr=1.0, is_short=True),
        ),
    ),
    "standardized inputs cure the network at the given rate": (
        (
            "data fault",
            "scale of the inputs",
            scores(deep=0.1, given=0.9, given_lr=1.0, **at_given("standardized", 0.1 + INSIDE)),
        ),
        (
            "bad learning rate",
            "too high",
            scores(deep=0.1, given=0.9, given_lr=1.0, **at_given("standardized", 0.1 + OUTSIDE)),
        ),
    ),
    "warm-up cures the network at the given rate": (
        (
            "bad learning rate",
            "warm-up missing",
            scores(deep=0.1, given=0.9, given_lr=1.0, **at_given("warm-up", 0.1 + INSIDE)),
        ),
        (
            "bad learning rate",
            "too high",
            scores(deep=0.1, given=0.9, given_lr=1.0, **at_given("warm-up", 0.1 + OUTSIDE)),
        ),
    ),
    "warm-up where no rate learns": (
        ("undecided", "", scores(deep=0.99, **{"warm-up": 0.99 - INSIDE})),
        ("bad learning rate", "warm-up missing", scores(deep=0.99, **{"warm-up": 0.99 - OUTSIDE})),
    ),
    "new weights after short trials": (
        (
            "vanishing or exploding signal",
            "vanishing",
            scores(deep=0.951, initialized=0.1, is_short=True, signal="vanishing"),
        ),
        (
            "undecided",
            "vanishing",
            scores(deep=0.949, initialized=0.1, is_short=True, signal="vanishing"),
        ),
    ),
}


@pytest.mark.parametrize("name", SIDES)
def test_a_rule_separates_both_sides_of_its_margin(name: str) -> None:
    for verdict_name, subcause, side in SIDES[name]:
        verdict = decide(side)
        assert (verdict.name, verdict.subcause) == (verdict_name, subcause), verdict.reason


@pytest.mark.parametrize(
    ("expected", "side"),
    [
        (True, scores(deep=0.951, initialized=0.7, signal="vanishing")),
        (False, scores(deep=0.951, initialized=0.701, signal="vanishing")),
        (False, scores(deep=0.949, initialized=0.1, signal="vanishing")),
        (False, scores(deep=0.951, initialized=0.1)),  # no signal was measured before training
        (True, replace(scores(deep=0.951, initialized=0.1), dead_shares=[0.6] * SEEDS)),
        (True, scores(deep=0.951, bare=0.7)),
        (False, scores(deep=0.951, bare=0.701)),
        (True, scores(deep=0.301, standardized=0.1)),
        (False, scores(deep=0.299, standardized=0.1)),
        (False, scores(deep=0.02)),
    ],
)
def test_a_plain_verdict_needs_a_network_that_learns_nothing_and_a_cure(
    expected: bool, side: Scores
) -> None:
    assert is_plain(side, suspect(side)) == expected


@pytest.mark.parametrize(
    ("ratio", "subcause"),
    [
        (GRADIENT_RATIO * 1.01, "exploding"),
        (GRADIENT_RATIO * 0.99, "initialization"),
        (1.01 / GRADIENT_RATIO, "initialization"),
        (0.99 / GRADIENT_RATIO, "vanishing"),
    ],
)
def test_gradients_name_the_kind_of_a_bad_initialization(ratio: float, subcause: str) -> None:
    side = replace(scores(deep=1.0, initialized=0.1), gradient_ratios=[(ratio, ratio)] * SEEDS)
    assert decide(side).subcause == subcause
    assert decide(replace(side, signal="equal units")).subcause == "equal units"


def test_nothing_is_ruled_out_by_two_networks_that_learn_nothing() -> None:
    for score, causes in ((0.95, {"depth", "the initialization"}), (0.951, set())):
        answers = set(ruled_out(scores(deep=score, shallow=score, initialized=score)))
        assert answers - {"inputs without information"} == causes


def test_the_chance_of_failures_is_that_of_fishers_exact_test() -> None:
    for failures, sizes in (([5, 0], [8, 8]), ([3, 1], [4, 6]), ([0, 0], [3, 3]), ([2, 3], [3, 3])):
        table = [[count, size - count] for count, size in zip(failures, sizes, strict=True)]
        expected = float(fisher_exact(table, alternative="greater").pvalue)
        assert math.isclose(fisher_p(failures, sizes), expected)


def test_seeds_that_learn_nothing_are_counted() -> None:
    """Two humps: a t interval of the difference reaches below 0, and the counts are clear."""
    for num_failures, answer in ((6, "undecided"), (7, "yes")):
        deep = [1.0] * num_failures + [0.0] * (8 - num_failures)
        side = scores(looks=20, deep=deep, shallow=[0.9] * 6 + [0.0] * 2)
        assert (is_worse(side, "deep", "shallow") == "yes") == fails_more_often(
            side, "deep", "shallow"
        )
        assert is_worse(side, "deep", "shallow") == answer


def test_the_leading_suspicion_is_what_helps_most() -> None:
    side = scores(deep=[0.9, 0.2, 0.9], shallow=[0.5, 0.6, 0.6], initialized=[0.3, 0.3, 0.9])
    suspicion = leading_suspicion(side)
    assert suspicion is not None and suspicion.name == "vanishing or exploding signal"
    assert "seeds disagree" in suspicion.against
    depth = leading_suspicion(side, "degradation")
    assert depth is not None and depth.cause == "depth"


def test_a_suspicion_needs_a_gain_above_the_margin() -> None:
    for gain, is_suspected in ((INSIDE, False), (OUTSIDE, True)):
        side = scores(deep=[0.5, 0.9, 0.1], shallow=[0.9 - 3 * gain, 0.5, 0.1])
        assert (leading_suspicion(side) is not None) == is_suspected


def test_short_trials_that_suggest_a_cause_name_it_as_suspicion() -> None:
    verdict = decide(scores(deep=0.9, shallow=0.1, is_short=True))
    assert (verdict.name, verdict.suspicion) == ("undecided", "degradation")
    assert suspect(scores(deep=0.9, shallow=0.1, is_short=True)).name == "degradation"


class NamedVariant:
    """Enough of a variant to choose its rate."""

    def __init__(self, name: str) -> None:
        self.name = name


@pytest.mark.parametrize(
    ("second_seed", "chosen"),
    [
        ({0.4: 0.95}, 0.4),
        ({0.4: 0.951, 0.1: 0.5}, 0.1),
        ({0.4: 2.0, 0.1: 2.0}, 0.4),  # no smaller rate that learned passes, so the choice stays
    ],
)
def test_a_rate_that_fails_on_a_second_seed_steps_down(
    second_seed: dict[float, float], chosen: float
) -> None:
    tried: list[float] = []

    def try_rates(candidates: Any) -> list[float]:
        tried.extend(lr for _, lr in candidates)
        return [second_seed[lr] for _, lr in candidates]

    choice = RateChoice(0.4, {0.025: 0.99, 0.1: 0.6, 0.4: 0.2, 1.6: 2.0})
    variants: Any = [NamedVariant("deep")]
    checked = checked_rates(variants, {"deep": choice}, try_rates)
    assert checked["deep"].lr == chosen and tried == list(second_seed)


def test_the_numbers_of_seeds_at_which_the_rules_are_applied() -> None:
    assert look_counts(3, 4) == [3, 4]
    assert look_counts(3, 8) == [3, 4, 6, 8]
    assert look_counts(1, 1) == [1]
