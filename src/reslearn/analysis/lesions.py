"""Lesions: what a trained network loses with blocks dropped or changed in their order (Veit, Wilber, Belongie 2016, Sec. 4).

After "Residual Networks Behave Like Ensembles of Relatively Shallow Networks" (NIPS 2016): each block dropped on its own, k random
blocks dropped together, and k random swaps of two blocks of one shape; Kendall's tau says how much of the order is left (1: all,
0: none, -1: reversed). Nothing is trained again and batch norm keeps the statistics as trained, as there. A dropped residual block is its
shortcut; a plain block is taken out whole where it keeps the shape. Errors in per cent, losses in nats.
Shapes: x [B, C, H, W], y [B].
"""

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor, nn

from reslearn.analysis.blockwise import (
    assembled,
    block_shapes,
    droppable,
    interchangeable,
    without_body,
)
from reslearn.evaluate import evaluate
from reslearn.models import Network
from reslearn.progress import progress_bar

_MAX_NUMBERS = 10  # different numbers of dropped blocks that are tried


@dataclass(frozen=True, kw_only=True)
class LossAndError:
    """Loss (nats) and error (per cent) of one network on all images given."""

    loss: float
    top1_error_pct: float


@dataclass(frozen=True, kw_only=True)
class BlockDropped:
    """The network without one block; `number` is the block's place in the network, from 1."""

    block: str
    number: int
    loss: float
    top1_error_pct: float


@dataclass(frozen=True, kw_only=True)
class SomeDropped:
    """`num_blocks` random blocks dropped, one entry of `draws` for each choice of them; the deviation is None for a single draw."""

    num_blocks: int
    draws: tuple[LossAndError, ...]
    mean_top1_error_pct: float
    sd_top1_error_pct: float | None


@dataclass(frozen=True, kw_only=True)
class Reordered:
    """`num_swaps` random swaps of two blocks of one shape; one entry of `draws` and of `kendall_tau` for each new order."""

    num_swaps: int
    kendall_tau: tuple[float, ...]
    draws: tuple[LossAndError, ...]
    mean_kendall_tau: float
    mean_top1_error_pct: float
    sd_top1_error_pct: float | None


@dataclass(frozen=True, kw_only=True)
class Lesions:
    """`not_droppable` are plain blocks that change the shape. `some_dropped` and `reordered` by how much was done."""

    intact: LossAndError
    one_dropped: tuple[BlockDropped, ...]
    not_droppable: tuple[str, ...]
    some_dropped: tuple[SomeDropped, ...]
    reordered: tuple[Reordered, ...]


def lesions(
    net: Network, batches: Iterable[tuple[Tensor, Tensor]], *, draws: int = 5, seed: int = 0
) -> Lesions:
    """All lesions of `net`, each measured on all of `batches` in evaluation mode; the net is left as it was.

    `draws`: random choices for each number of blocks or swaps (fewer where there are no more). `seed` decides them.
    ValueError where there is no image, or `draws` is below 1.
    """
    if draws < 1:
        raise ValueError(f"draws = {draws}: allowed are 1 and more")
    kept = list(batches)
    if not kept:
        raise ValueError("no image to measure lesions on")
    names, blocks = zip(*net.blocks(), strict=True)
    shapes = block_shapes(net, kept[0][0])
    can_go, groups = droppable(net, shapes), interchangeable(shapes)
    choices = {
        number: choose(can_go, number, draws=draws, seed=seed) for number in _numbers(len(can_go))
    }
    orders = {
        swaps: [swap(len(blocks), groups, swaps, seed=seed, draw=draw) for draw in range(draws)]
        for swaps in _doublings(sum(map(len, groups)))
    }
    total = 1 + len(can_go) + sum(map(len, choices.values())) + sum(map(len, orders.values()))
    with progress_bar("lesions", total, after_seconds=2.0) as advance:

        def measure(chosen: Iterable[nn.Module]) -> LossAndError:
            found = evaluate(assembled(net, chosen), kept)
            advance(1)
            return LossAndError(loss=found.loss, top1_error_pct=found.top1_error_pct)

        def drop(gone: Sequence[int]) -> LossAndError:
            return measure(
                without_body(block) if index in gone else block
                for index, block in enumerate(blocks)
            )

        intact = measure(blocks)
        one = {index: drop([index]) for index in can_go}
        some = {number: [drop(gone) for gone in chosen] for number, chosen in choices.items()}
        changed = {
            swaps: [measure(blocks[index] for index in order) for order in tried]
            for swaps, tried in orders.items()
        }
    return Lesions(
        intact=intact,
        one_dropped=tuple(
            BlockDropped(
                block=names[index],
                number=index + 1,
                loss=found.loss,
                top1_error_pct=found.top1_error_pct,
            )
            for index, found in one.items()
        ),
        not_droppable=tuple(name for index, name in enumerate(names) if index not in can_go),
        some_dropped=tuple(_some_dropped(number, tried) for number, tried in some.items()),
        reordered=tuple(
            _reordered(swaps, orders[swaps], tried) for swaps, tried in changed.items()
        ),
    )


def choose(blocks: Sequence[int], number: int, *, draws: int, seed: int) -> list[tuple[int, ...]]:
    """`draws` different choices of `number` of `blocks`, fewer where there are no more; a pure function of seed and number."""
    random = np.random.default_rng((seed, number))
    found: dict[tuple[int, ...], None] = {}
    while len(found) < min(draws, math.comb(len(blocks), number)):
        found[tuple(sorted(random.choice(blocks, number, replace=False).tolist()))] = None
    return list(found)


def swap(
    num_blocks: int, groups: Sequence[Sequence[int]], num_swaps: int, *, seed: int, draw: int
) -> list[int]:
    """An order of blocks after `num_swaps` random swaps, each of two places of one group; a pure function of all its arguments."""
    random = np.random.default_rng((seed, num_swaps, draw))
    pairs = [(one, other) for group in groups for one in group for other in group if one < other]
    order = list(range(num_blocks))
    for index in random.integers(len(pairs), size=num_swaps):
        one, other = pairs[index]
        order[one], order[other] = order[other], order[one]
    return order


def kendall_tau(order: Sequence[int]) -> float:
    """Kendall's rank correlation of an order with the rising one: 1 unchanged, -1 reversed; 1 where there is nothing to order."""
    if len(order) < 2:
        return 1.0
    from scipy.stats import kendalltau

    return float(kendalltau(range(len(order)), order).statistic)


def _some_dropped(number: int, found: Sequence[LossAndError]) -> SomeDropped:
    mean, deviation = _mean_and_deviation(found)
    return SomeDropped(
        num_blocks=number, draws=tuple(found), mean_top1_error_pct=mean, sd_top1_error_pct=deviation
    )


def _reordered(
    swaps: int, orders: Sequence[Sequence[int]], found: Sequence[LossAndError]
) -> Reordered:
    mean, deviation = _mean_and_deviation(found)
    taus = tuple(kendall_tau(order) for order in orders)
    return Reordered(
        num_swaps=swaps,
        kendall_tau=taus,
        draws=tuple(found),
        mean_kendall_tau=statistics.fmean(taus),
        mean_top1_error_pct=mean,
        sd_top1_error_pct=deviation,
    )


def _mean_and_deviation(found: Sequence[LossAndError]) -> tuple[float, float | None]:
    errors = [one.top1_error_pct for one in found]
    return statistics.fmean(errors), statistics.stdev(errors) if len(errors) > 1 else None


def _numbers(most: int) -> list[int]:
    """1 to `most`, thinned evenly to at most ten numbers."""
    count = min(most, _MAX_NUMBERS)
    return sorted({round(1 + index * (most - 1) / max(1, count - 1)) for index in range(count)})


def _doublings(num_blocks: int) -> list[int]:
    """1, 2, 4, ... swaps, up to one for each block that can change places."""
    return [2**power for power in range(num_blocks.bit_length())]
