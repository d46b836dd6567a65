"""A race between choices: their errors on the same images, until one choice is clearly the best.

All choices are tried on a few images. After each round a choice is dropped if it errs significantly
more often than the best one. The test is exact and paired: it counts the images on which only one
of the two errs (McNemar 1947). A choice is also dropped if its loss is significantly higher than
that of the best one, and it errs at least as often. Then the number of images is doubled. So a
choice that is far off costs few images. Of the choices that remain at the end, the one with the
lowest loss is taken.

Shapes: N images.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt

from reslearn.study import compare

FIRST_IMAGES = 20
# The least images of the choices that are left, however much they cost.
FEWEST_IMAGES = 80
# Small, because many choices are compared in several rounds.
SIGNIFICANCE = 1e-4

DecidedBy = Literal["error", "loss", "nothing"]
Misses = npt.NDArray[np.bool_]
Losses = npt.NDArray[np.float64]
Measure = Callable[[int, int, int], tuple[Misses, Losses]]
"""measure(choice, start, stop): for the images from start to stop, which are wrong, and losses."""


@dataclass(eq=False)
class Racer:
    """A choice in a race.

    Attributes:
        misses: Whether each image is wrong, of the images that it was tried on.
        losses: Their cross-entropy in nats.
        is_left: Whether no other choice was significantly better.
        errs_more: Whether the best one erred significantly less often.
    """

    misses: Misses = field(default_factory=lambda: np.zeros(0, dtype=np.bool_))
    losses: Losses = field(default_factory=lambda: np.zeros(0))
    is_left: bool = True
    errs_more: bool = False

    @property
    def num_images(self) -> int:
        return len(self.misses)

    @property
    def num_errors(self) -> int:
        return int(self.misses.sum())

    @property
    def loss(self) -> float:
        """The mean of the losses."""
        return float(self.losses.mean())


@dataclass(frozen=True, kw_only=True)
class RaceResult:
    """The outcome of a race.

    Attributes:
        racers: The choices, in their order.
        winner: The number of the choice that is taken.
        decided_by: "error" if all others err significantly more often. "loss" if the losses of the
            others are significantly higher. Else "nothing".
        num_equal: Choices that differ from the best significantly neither in errors nor in losses,
            with the best.
    """

    racers: Sequence[Racer]
    winner: int
    decided_by: DecidedBy
    num_equal: int


def race(
    num_choices: int,
    measure: Measure,
    num_images: int,
    *,
    costs: Sequence[float] | None = None,
    budget: float = math.inf,
) -> RaceResult:
    """Try choices on up to `num_images` images, and take the best.

    Of equal choices the first is taken.

    Args:
        num_choices: At least one.
        measure: Computes errors and losses of one choice, of the same images for every choice.
        costs: Cost of an image for each choice. By default they are free.
        budget: What the race may cost. `FEWEST_IMAGES` are used in any case.
    """
    costs = [0.0] * num_choices if costs is None else costs
    racers = [Racer() for _ in range(num_choices)]
    remaining = list(range(num_choices))
    start, stop = 0, min(FIRST_IMAGES, num_images)
    while True:
        for number in remaining:
            racer = racers[number]
            misses, losses = measure(number, start, stop)
            racer.misses = np.concatenate([racer.misses, misses])
            racer.losses = np.concatenate([racer.losses, losses])
            budget -= costs[number] * (stop - start)
        _drop_worse([racers[number] for number in remaining])
        remaining = [number for number in remaining if racers[number].is_left]
        start, stop = stop, min(2 * stop, num_images)
        cost = sum(costs[number] for number in remaining) * (stop - start)
        if len(remaining) == 1 or start == stop or (stop > FEWEST_IMAGES and cost > budget):
            break
    return _result(racers, min(remaining, key=lambda number: racers[number].loss))


def _result(racers: Sequence[Racer], winner: int) -> RaceResult:
    """Return the result, with what separates the winner from all other choices."""
    best = racers[winner]
    alike = [racer for racer in racers if racer is not best and not racer.errs_more]
    num_equal = sum(not _has_higher_loss(racer, best) for racer in alike)
    decided_by: DecidedBy = "error"
    if alike:
        decided_by = "nothing" if num_equal else "loss"
    return RaceResult(
        racers=racers,
        winner=winner,
        decided_by=decided_by,
        num_equal=1 + num_equal,
    )


def _drop_worse(racers: Sequence[Racer]) -> None:
    """Drop racers that the best one is significantly better than."""
    best = min(racers, key=lambda racer: (racer.num_errors, racer.loss))
    for racer in racers:
        racer.errs_more = p_of_more_errors(racer.misses, best.misses) < SIGNIFICANCE
        racer.is_left = not racer.errs_more and not _has_higher_loss(racer, best)


def _has_higher_loss(racer: Racer, reference: Racer) -> bool:
    """Return whether the loss is significantly higher on the same images (paired t-test)."""
    losses = reference.losses[: racer.num_images]
    if racer is reference or racer.loss <= losses.mean():
        return False
    p = compare(racer.losses.tolist(), losses.tolist(), paired=True).p
    return p is not None and p < SIGNIFICANCE


def p_of_more_errors(misses: Misses, best_misses: Misses) -> float:
    """Return the one-sided p value of equal errors on the same images (McNemar 1947, exact).

    Small if the first errs clearly more often. Choices that left the race earlier were tried on
    fewer images, which are the first ones.
    """
    from scipy.special import bdtrc

    best_misses = best_misses[: len(misses)]
    only_first = int((misses & ~best_misses).sum())
    only_best = int((~misses & best_misses).sum())
    if only_first == 0:
        return 1.0
    return float(bdtrc(only_first - 1, only_first + only_best, 0.5))


def is_above_chance(misses: Misses, largest_share: float) -> bool:
    """Return whether a choice is right more often than the most frequent class is.

    Args:
        misses: Whether each image is wrong.
        largest_share: Share of the most frequent class, from 0 to 1.
    """
    from scipy.special import bdtrc

    num_right = int((~misses).sum())
    if num_right == 0:
        return False
    return float(bdtrc(num_right - 1, len(misses), largest_share)) < SIGNIFICANCE
