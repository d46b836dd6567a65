"""Lesions: how much a trained network loses if blocks are dropped or reordered.

After Veit, Wilber, Belongie 2016, "Residual Networks Behave Like Ensembles of Relatively Shallow
Networks", Sec. 4. The lesions are: each block dropped alone, k random blocks dropped together, and
k random swaps of two blocks of equal shape. Kendall's tau measures how much of the order remains
(1: all, 0: none, -1: reversed). As in that paper, nothing is trained again, and the batch-norm
statistics remain. A dropped residual block is its shortcut. A plain block is dropped as a whole,
if it keeps the shape. Errors are in percent, losses in nats.

Shapes: x [B, C, H, W], y [B].
"""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor, nn

from reslearn.analysis.blockwise import (
    assemble,
    block_shapes,
    droppable,
    interchangeable,
    without_body,
)
from reslearn.evaluate import evaluate
from reslearn.models import Network
from reslearn.progress import progress_bar

_MAX_NUMBERS = 10  # at most so many different numbers of dropped blocks are measured


@dataclass(frozen=True, kw_only=True)
class LossAndError:
    """Loss (nats) and error (percent) of one network over all images."""

    loss: float
    top1_error_pct: float


@dataclass(frozen=True, kw_only=True)
class BlockDropped:
    """The network without one block; `number` is the position of the block, from 1."""

    block: str
    number: int
    loss: float
    top1_error_pct: float


@dataclass(frozen=True, kw_only=True)
class SomeDropped:
    """`num_blocks` random blocks dropped together, with one entry of `draws` for each choice.

    The standard deviation is None for a single draw.
    """

    num_blocks: int
    draws: tuple[LossAndError, ...]
    mean_top1_error_pct: float
    sd_top1_error_pct: float | None


@dataclass(frozen=True, kw_only=True)
class Reordered:
    """`num_swaps` random swaps of two blocks of equal shape.

    `draws` and `kendall_tau` have one entry for each order. The standard deviation is None for a
    single draw.
    """

    num_swaps: int
    kendall_tau: tuple[float, ...]
    draws: tuple[LossAndError, ...]
    mean_kendall_tau: float
    mean_top1_error_pct: float
    sd_top1_error_pct: float | None


@dataclass(frozen=True, kw_only=True)
class Lesions:
    """All lesions of a network.

    Attributes:
        intact: The network without lesions.
        one_dropped: Each block dropped alone.
        not_droppable: Names of plain blocks that change the shape.
        some_dropped: Random blocks dropped together, by their number.
        reordered: Random swaps, by their number.
    """

    intact: LossAndError
    one_dropped: tuple[BlockDropped, ...]
    not_droppable: tuple[str, ...]
    some_dropped: tuple[SomeDropped, ...]
    reordered: tuple[Reordered, ...]


def lesions(
    net: Network, batches: Iterable[tuple[Tensor, Tensor]], *, draws: int = 5, seed: int = 0
) -> Lesions:
    """Measure all lesions of a network over all images, in evaluation mode.

    Args:
        net: Not changed.
        batches: Images and labels.
        draws: Random choices for each number of blocks or swaps, fewer if there are no more.
        seed: Seed of the choices.

    Raises:
        ValueError: If there are no images, or `draws` is below 1.
    """
    if draws < 1:
        raise ValueError(f"draws = {draws}: it must be at least 1")
    batches = list(batches)
    if not batches:
        raise ValueError("no images: at least one is needed to measure lesions")
    blocks = dict(net.blocks())
    shapes = block_shapes(net, batches[0][0])
    indices, groups = droppable(net, shapes), interchangeable(shapes)
    choices = {
        number: choose(indices, number, draws=draws, seed=seed) for number in _numbers(len(indices))
    }
    orders: dict[int, list[list[int]]] = {}
    for num_swaps in _doublings(sum(map(len, groups))):
        orders[num_swaps] = [
            swap(len(blocks), groups, num_swaps, seed=seed, draw=draw) for draw in range(draws)
        ]
    num_choices, num_orders = sum(map(len, choices.values())), sum(map(len, orders.values()))
    total = 1 + len(indices) + num_choices + num_orders
    with progress_bar("lesions", total, after_seconds=2.0) as advance:
        measure = _Measurement(net, batches, advance)
        return Lesions(
            intact=measure.order(range(len(blocks))),
            one_dropped=tuple(measure.one_dropped(index) for index in indices),
            not_droppable=tuple(name for index, name in enumerate(blocks) if index not in indices),
            some_dropped=tuple(
                measure.some_dropped(number, selections) for number, selections in choices.items()
            ),
            reordered=tuple(
                measure.reordered(num_swaps, swapped) for num_swaps, swapped in orders.items()
            ),
        )


class _Measurement:
    """Measures a network with some of its blocks dropped or reordered."""

    def __init__(
        self,
        net: Network,
        batches: Sequence[tuple[Tensor, Tensor]],
        advance: Callable[[int], None],
    ) -> None:
        self._net, self._batches, self._advance = net, batches, advance
        self._names = [name for name, _ in net.blocks()]
        self._blocks = [block for _, block in net.blocks()]

    def order(self, order: Iterable[int]) -> LossAndError:
        return self._measure([self._blocks[index] for index in order])

    def without(self, indices: Sequence[int]) -> LossAndError:
        parts: list[nn.Module] = []
        for index, block in enumerate(self._blocks):
            parts.append(without_body(block) if index in indices else block)
        return self._measure(parts)

    def one_dropped(self, index: int) -> BlockDropped:
        result = self.without([index])
        return BlockDropped(
            block=self._names[index],
            number=index + 1,
            loss=result.loss,
            top1_error_pct=result.top1_error_pct,
        )

    def some_dropped(self, number: int, choices: Sequence[Sequence[int]]) -> SomeDropped:
        results = tuple(self.without(indices) for indices in choices)
        mean, deviation = _mean_and_deviation(results)
        return SomeDropped(
            num_blocks=number,
            draws=results,
            mean_top1_error_pct=mean,
            sd_top1_error_pct=deviation,
        )

    def reordered(self, num_swaps: int, orders: Sequence[Sequence[int]]) -> Reordered:
        results = tuple(self.order(order) for order in orders)
        mean, deviation = _mean_and_deviation(results)
        taus = tuple(kendall_tau(order) for order in orders)
        return Reordered(
            num_swaps=num_swaps,
            kendall_tau=taus,
            draws=results,
            mean_kendall_tau=statistics.fmean(taus),
            mean_top1_error_pct=mean,
            sd_top1_error_pct=deviation,
        )

    def _measure(self, blocks: Sequence[nn.Module]) -> LossAndError:
        metrics = evaluate(assemble(self._net, blocks), self._batches)
        self._advance(1)
        return LossAndError(loss=metrics.loss, top1_error_pct=metrics.top1_error_pct)


def choose(blocks: Sequence[int], number: int, *, draws: int, seed: int) -> list[tuple[int, ...]]:
    """Draw different choices of `number` blocks; a pure function of seed and number.

    There are `draws` choices, or fewer if there are no more.
    """
    random = np.random.default_rng((seed, number))
    choices: dict[tuple[int, ...], None] = {}  # a set that keeps the order of insertion
    while len(choices) < min(draws, math.comb(len(blocks), number)):
        choices[tuple(sorted(random.choice(blocks, number, replace=False).tolist()))] = None
    return list(choices)


def swap(
    num_blocks: int, groups: Sequence[Sequence[int]], num_swaps: int, *, seed: int, draw: int
) -> list[int]:
    """Return an order of blocks after random swaps within groups; a pure function of its arguments.

    Args:
        num_blocks: Number of blocks of the network.
        groups: Groups of blocks that can be swapped with each other.
        num_swaps: Number of swaps, each of two positions of one group.
        seed: Seed of the swaps.
        draw: Number of the order for this seed.
    """
    random = np.random.default_rng((seed, num_swaps, draw))
    pairs: list[tuple[int, int]] = []
    for group in groups:
        pairs += itertools.combinations(group, 2)
    order = list(range(num_blocks))
    for index in random.integers(len(pairs), size=num_swaps):
        first, second = pairs[index]
        order[first], order[second] = order[second], order[first]
    return order


def kendall_tau(order: Sequence[int]) -> float:
    """Return Kendall's rank correlation of an order with 0, 1, 2, ...: 1 is unchanged, -1 reversed.

    The result is 1 for fewer than two elements.
    """
    if len(order) < 2:
        return 1.0
    from scipy.stats import kendalltau

    return float(kendalltau(range(len(order)), order).statistic)


def _mean_and_deviation(results: Sequence[LossAndError]) -> tuple[float, float | None]:
    errors = [result.top1_error_pct for result in results]
    return statistics.fmean(errors), statistics.stdev(errors) if len(errors) > 1 else None


def _numbers(highest: int) -> list[int]:
    """Return 1 to `highest`, thinned evenly to at most ten numbers."""
    count = min(highest, _MAX_NUMBERS)
    return sorted({round(1 + index * (highest - 1) / max(1, count - 1)) for index in range(count)})


def _doublings(num_blocks: int) -> list[int]:
    """Return 1, 2, 4, ... swaps, up to one for each block that can be swapped."""
    return [2**power for power in range(num_blocks.bit_length())]
