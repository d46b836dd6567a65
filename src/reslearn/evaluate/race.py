"""A race between choices: their errors on the same images, until one choice is clearly the best.

All choices are tried on a few images. After each round a choice is dropped if it errs significantly
more often than the best one. The test is exact and paired: it counts the images on which only one
of the two errs (McNemar 1947). Then the number of images is doubled. So a choice that is far off
costs few images. Of the choices that remain at the end, the one with the lowest loss is taken.

Shapes: N images.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt

from reslearn.study import compare

FIRST_IMAGES = 50
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
    """

    misses: Misses = field(default_factory=lambda: np.zeros(0, dtype=np.bool_))
    losses: Losses = field(default_factory=lambda: np.zeros(0))
    is_left: bool = True

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
        decided_by: "error" if no other choice is left. "loss" if the losses of all others that are
            left are significantly higher. Else "nothing".
    """

    racers: Sequence[Racer]
    winner: int
    decided_by: DecidedBy

    @property
    def num_left(self) -> int:
        return sum(racer.is_left for racer in self.racers)


def race(num_choices: int, measure: Measure, num_images: int) -> RaceResult:
    """Try choices on up to `num_images` images, and take the best.

    Of equal choices the first is taken.

    Args:
        num_choices: At least one.
        measure: Computes errors and losses of one choice, of the same images for every choice.
    """
    racers = [Racer() for _ in range(num_choices)]
    start, stop = 0, min(FIRST_IMAGES, num_images)
    while True:
        for number, racer in enumerate(racers):
            if racer.is_left:
                misses, losses = measure(number, start, stop)
                racer.misses = np.concatenate([racer.misses, misses])
                racer.losses = np.concatenate([racer.losses, losses])
        best = min((racer for racer in racers if racer.is_left), key=_errors_and_loss)
        for racer in racers:
            racer.is_left &= p_of_more_errors(racer.misses, best.misses) >= SIGNIFICANCE
        if sum(racer.is_left for racer in racers) == 1 or stop == num_images:
            break
        start, stop = stop, min(2 * stop, num_images)
    remaining = [number for number, racer in enumerate(racers) if racer.is_left]
    winner = min(remaining, key=lambda number: racers[number].loss)
    losses_of_rivals = [racers[number].losses for number in remaining if number != winner]
    return RaceResult(
        racers=racers,
        winner=winner,
        decided_by=_decided_by(racers[winner].losses, losses_of_rivals),
    )


def _errors_and_loss(racer: Racer) -> tuple[int, float]:
    return racer.num_errors, racer.loss


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


def _decided_by(losses: Losses, losses_of_rivals: Sequence[Losses]) -> DecidedBy:
    """Return what separates the winner from the other choices that are left."""
    if not losses_of_rivals:
        return "error"
    for rival_losses in losses_of_rivals:
        p = compare(rival_losses.tolist(), losses.tolist(), paired=True).p
        if p is None or p >= SIGNIFICANCE:
            return "nothing"
    return "loss"


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
