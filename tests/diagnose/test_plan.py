"""Learning rates and the number of steps that fit into the time."""

import math

import pytest
import torch
from torch import nn

from reslearn.diagnose import DiagnosisError, diagnose, experiment, make_problem, make_variants
from reslearn.diagnose.plan import (
    MIN_STEPS,
    Candidate,
    Deadline,
    RateChoice,
    TrialGroup,
    chosen_rate,
    fitting_steps,
    further_rates,
    learns,
    retune_rates,
)
from reslearn.diagnose.scores import MARGIN
from reslearn.diagnose.stages import trial_groups

torch.manual_seed(0)
X = torch.randn(200, 6)
Y = (X[:, 0] > 0).long() + 2 * (X[:, 1] > 0).long()


def plain(depth: int = 4) -> nn.Module:
    layers: list[nn.Module] = [nn.Linear(6, 12), nn.ReLU()]
    for _ in range(depth):
        layers += [nn.Linear(12, 12), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(12, 4))


@pytest.mark.parametrize(
    ("scores", "further"),
    [
        ({0.01: 0.9, 0.04: 0.5, 0.16: 0.2}, [0.64]),  # the score still improves
        ({0.01: 0.9, 0.04: 0.25, 0.16: 0.22}, []),  # it no longer improves by the margin
        ({0.01: 0.9, 0.04: 0.2, 0.16: 0.5}, []),  # the best rate is in the middle
        ({0.01: 0.2, 0.04: 0.5, 0.16: 2.0}, [0.0025]),
        ({0.01: 2.0, 0.04: 2.0, 0.16: 2.0}, [0.0025, 0.64]),  # no direction: too low or too high
        ({0.01: 1.0, 0.04: 0.999, 0.16: 0.99}, [0.64]),  # nothing learns yet
    ],
)
def test_a_further_rate_is_tried_if_the_best_one_lies_at_an_end(
    scores: dict[float, float], further: list[float]
) -> None:
    assert further_rates(scores) == pytest.approx(further)


@pytest.mark.parametrize(
    ("scores", "chosen"),
    [
        ({0.01: 0.9, 0.04: 0.5, 0.16: 0.2}, 0.16),
        ({0.01: 0.02, 0.04: 0.001, 0.16: 0.0}, 0.01),  # equal within half the margin
        ({0.01: 0.3, 0.04: 0.22, 0.16: 0.2}, 0.04),
        ({0.01: MARGIN / 2, 0.04: 0.0}, 0.01),  # just inside half the margin
        ({0.01: MARGIN / 2 + 1e-3, 0.04: 0.0}, 0.04),  # just outside
    ],
)
def test_the_smallest_rate_that_is_as_good_as_the_best_is_chosen(
    scores: dict[float, float], chosen: float
) -> None:
    assert chosen_rate(scores, usual=0.04) == chosen


def test_the_usual_rate_is_chosen_if_no_rate_learns() -> None:
    assert chosen_rate({0.01: 1.001, 0.04: 1.004, 0.16: 1.0}, usual=0.04) == 0.04
    assert chosen_rate({0.01: 2.0, 0.04: 2.0, 0.16: 2.0}, usual=0.04) == 0.01  # all diverge


def test_learning_means_to_beat_guessing_by_the_margin() -> None:
    assert learns({0.1: 1 - MARGIN - 1e-3, 0.4: 2.0})
    assert not learns({0.1: 1 - MARGIN + 1e-3, 0.4: 2.0})


@pytest.mark.parametrize(
    ("short_scores", "long_scores", "chosen"),
    [
        # A rate that is stable in a short trial diverges in a long one.
        ({0.04: 0.3, 0.16: 0.4}, {0.01: 0.1, 0.04: 2.0}, 0.01),
        ({0.04: 0.3, 0.16: 0.4}, {0.01: 0.5, 0.04: 0.1}, 0.04),
        ({0.04: 0.3, 0.16: 0.4}, {0.01: 0.11, 0.04: 0.1}, 0.01),
        # Nothing learned in short trials, so all rates are tried again.
        ({0.01: 1.0, 0.04: 1.0}, {0.0025: 1.0, 0.01: 1.0, 0.04: 1.0, 0.16: 0.1}, 0.16),
    ],
)
def test_rates_are_tuned_again_at_the_longer_trial_length(
    short_scores: dict[float, float], long_scores: dict[float, float], chosen: float
) -> None:
    problem = make_problem(plain, (X, Y), lr=0.04)
    variants = list(make_variants(problem).by_name.values())[:2]
    choices = {variant.name: RateChoice(0.04, short_scores) for variant in variants}

    def try_rates(candidates: list[Candidate]) -> list[float]:
        return [long_scores[lr] for _, lr in candidates]

    retuned = retune_rates(variants, choices, try_rates)  # type: ignore[arg-type]
    assert {name: choice.lr for name, choice in retuned.items()} == {
        "deep": chosen,
        "shallow": chosen,
    }
    assert all(choice.scores == short_scores for choice in retuned.values())


@pytest.mark.parametrize("jobs", [1, 2, 5])
def test_steps_are_chosen_so_that_all_trials_and_the_proof_fit_into_the_time(jobs: int) -> None:
    problem = make_problem(plain, (X, Y), batch_size=32)
    variants = make_variants(problem)
    steps: dict[bool, int] = {}
    groups: dict[bool, list[TrialGroup]] = {}
    for with_proof in (False, True):
        deadline = Deadline(seconds=120)
        runner = experiment.TrialRunner(
            problem=problem,
            variants=variants,
            response_ratio=None,
            deadline=deadline,
            say=print,
            with_proof=with_proof,
            jobs=jobs,
        )
        groups[with_proof] = trial_groups(runner, len(variants.by_name))
        steps[with_proof] = fitting_steps(
            groups[with_proof], deadline, lambda num: 0.1 + 0.01 * num, jobs=jobs
        )
    # The network at the given rate, and a variant that comes up during the diagnosis.
    num = len(variants.by_name) + 2
    num_trials = sum(group.num_trials for group in groups[True])
    total_length = sum(group.num_trials * group.length for group in groups[True])
    assert num_trials == num * (5 + 4) + 4 + 12 + 2  # four choose rates in longer trials
    assert total_length == num * (2.5 + 4) + 4 * (4 + 12 + 2)

    def seconds(with_proof: bool, steps: int) -> float:
        total = 0.0
        for group in groups[with_proof]:
            rounds = math.ceil(group.num_trials / jobs)
            total += rounds * (0.12 + 0.01 * group.length * steps)
        return total

    assert seconds(True, steps[True]) <= 0.9 * 120 < seconds(True, steps[False] + 1)
    assert seconds(True, steps[True] + 1) > 0.9 * 119


def test_the_advised_minutes_are_those_of_the_shortest_diagnosis() -> None:
    """A trial of 30 steps takes about 7 s, so 22 required trials take 160 s."""
    groups = [
        TrialGroup(10, 0.5, required=True),
        TrialGroup(12, 1, required=True),
        TrialGroup(20, 4),  # 20 trials of 120 steps take 500 s
    ]

    def steps_in(minutes: float) -> int:
        return fitting_steps(groups, Deadline(seconds=60 * minutes), lambda num: 0.9 + 0.2 * num)

    with pytest.raises(DiagnosisError, match=r"give 3 or more, and 13 for all trials .*0.2 s per"):
        steps_in(0.1)
    with pytest.raises(DiagnosisError, match="give 3 or more"):
        steps_in(2.5)
    assert steps_in(3) == MIN_STEPS  # the other trials are made while time is left
    assert steps_in(12) == MIN_STEPS
    assert steps_in(13) > MIN_STEPS


def test_too_little_time_is_refused_with_the_time_that_is_needed() -> None:
    with pytest.raises(DiagnosisError, match=r"minutes is 0.01: too few .*; give \d+ or more"):
        diagnose(make_problem(plain, (X, Y)), minutes=0.01)
