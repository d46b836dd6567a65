"""The race between choices: who leaves it, who is taken, and what is said to have decided."""

import numpy as np
import pytest

from reslearn.evaluate import race as race_module
from reslearn.evaluate.race import Losses, Measure, Misses, is_above_chance, p_of_more_errors, race

NUM_IMAGES = 800


def choices_of(*racers: tuple[Misses, Losses]) -> tuple[Measure, list[tuple[int, int, int]]]:
    """Return a measure of choices with these misses and losses, and the calls that it gets."""
    calls: list[tuple[int, int, int]] = []

    def measure(number: int, start: int, stop: int) -> tuple[Misses, Losses]:
        calls.append((number, start, stop))
        misses, losses = racers[number]
        return misses[start:stop], losses[start:stop]

    return measure, calls


def choice(error: float, loss: float, *, seed: int = 0) -> tuple[Misses, Losses]:
    draw = np.random.default_rng(seed)
    return draw.random(NUM_IMAGES) < error, loss + 0.01 * draw.standard_normal(NUM_IMAGES)


def test_a_choice_that_is_far_off_costs_few_images() -> None:
    measure, calls = choices_of(choice(0.8, 3.0), choice(0.1, 0.4, seed=1), choice(0.9, 9, seed=2))
    result = race(3, measure, NUM_IMAGES)
    assert (result.winner, result.num_equal) == (1, 1)
    assert [racer.num_images for racer in result.racers] == [race_module.FIRST_IMAGES] * 3
    assert calls == [(number, 0, race_module.FIRST_IMAGES) for number in range(3)]


def test_the_loss_decides_between_equal_errors() -> None:
    misses, losses = choice(0.05, 0.3)
    measure, calls = choices_of((misses, losses + 0.01), (misses, losses))
    result = race(2, measure, NUM_IMAGES)
    assert (result.winner, result.decided_by) == (1, "loss")
    assert result.num_equal == 1
    assert calls == [(0, 0, 20), (1, 0, 20)], "a clearly higher loss costs few images"


@pytest.mark.parametrize("seed", [0, 1])
def test_equal_choices_are_undecided(seed: int) -> None:
    """With equal losses the first is taken, the usual one."""
    first = choice(0.05, 0.3)
    measure, calls = choices_of(first, first if seed == 0 else choice(0.05, 0.3, seed=seed))
    result = race(2, measure, NUM_IMAGES)
    assert (result.decided_by, result.num_equal) == ("nothing", 2)
    assert calls[-1] == (1, 640, 800), "each image is computed once"
    assert seed == 1 or result.winner == 0


@pytest.mark.parametrize(("budget", "num_images"), [(0, 80), (639, 80), (640, 160), (641, 160)])
def test_equal_choices_stop_when_the_budget_is_used(budget: float, num_images: int) -> None:
    """Two choices that cost 1 and 3 cost 320 for 80 images, and 640 for 160."""
    first = choice(0.05, 0.3)
    measure, _ = choices_of(first, first)
    result = race(2, measure, NUM_IMAGES, costs=[1, 3], budget=budget)
    assert [racer.num_images for racer in result.racers] == [num_images] * 2


def test_a_lower_loss_does_not_outweigh_errors() -> None:
    confident_errors = choice(0.3, 0.1)
    measure, _ = choices_of(confident_errors, choice(0.05, 0.5, seed=1))
    result = race(2, measure, NUM_IMAGES)
    assert (result.winner, result.decided_by) == (1, "error")


def test_one_choice_needs_no_comparison() -> None:
    measure, _ = choices_of(choice(0.5, 1.0))
    result = race(1, measure, 10)
    assert (result.winner, result.decided_by, result.racers[0].num_images) == (0, "error", 10)


def test_the_paired_test_counts_images_on_which_one_errs() -> None:
    """13 of 13 have a chance of 2^-13, just above 1e-4; 14 of 14 are below."""
    for count, is_significant in ((13, False), (14, True)):
        misses = np.arange(100) < count
        none = np.zeros(100, dtype=np.bool_)
        p = p_of_more_errors(misses, none)
        assert p == pytest.approx(0.5**count)
        assert (p < race_module.SIGNIFICANCE) == is_significant
        assert p_of_more_errors(none, misses) == 1.0
    both = np.ones(100, dtype=np.bool_)
    assert p_of_more_errors(both, both) == 1.0


def test_chance_is_the_share_of_the_most_frequent_class() -> None:
    for num_right, is_above in ((30, False), (50, True)):
        assert is_above_chance(np.arange(100) >= num_right, 0.25) == is_above
    assert not is_above_chance(np.ones(100, dtype=np.bool_), 0.1)
