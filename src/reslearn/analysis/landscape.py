"""Loss along the line between two solutions, and across a solution in random directions.

Across: Li, Xu, Taylor, Studer, Goldstein 2018, "Visualizing the Loss Landscape of Neural Nets",
Sec. 4. A direction is drawn from N(0, 1). Each of its filters is scaled to the norm of the same
filter of the network. A filter is an output channel of a convolution or an output of a fully
connected layer. Biases and batch-norm parameters do not move. At distance 1 every filter has moved
by its own length. Networks therefore become comparable, although ReLU and batch norm allow weights
to be scaled freely.

Along: all parameters move, theta(t) = (1 - t) start + t end.

At each point, batch-norm statistics are recomputed on the images of the measurement: statistics of
another point would belong to another network. Losses are in nats, errors in percent.

Shapes: x [B, C, H, W], y [B]; a direction is one tensor for each parameter.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from operator import attrgetter

import torch
from torch import Tensor

from reslearn.evaluate import evaluate, recompute_batch_norm
from reslearn.models import Network
from reslearn.progress import progress_bar

Direction = Mapping[str, Tensor]
Batches = Sequence[tuple[Tensor, Tensor]]


@dataclass(frozen=True, kw_only=True)
class Point:
    """Loss and error at one point; `at` is t along a line, or the distance across a solution."""

    at: float
    loss: float
    top1_error_pct: float


@dataclass(frozen=True, kw_only=True)
class LossLine:
    """Loss and error along the line from start (t = 0) to end (t = 1).

    Attributes:
        points: Evenly spaced points, ends included.
        barrier_loss: Greatest excess of the loss over the straight line between the losses of the
            ends, in nats.
        barrier_top1_error_pct: The same for the error, in points.
    """

    points: tuple[Point, ...]
    barrier_loss: float
    barrier_top1_error_pct: float


@dataclass(frozen=True, kw_only=True)
class Grid:
    """Loss and error on a square. Rows follow the second direction, columns the first."""

    distances: tuple[float, ...]
    loss: tuple[tuple[float, ...], ...]
    top1_error_pct: tuple[tuple[float, ...], ...]


def loss_along_line(
    start: Network, end: Network, batches: Batches, *, num_points: int = 11
) -> LossLine:
    """Measure loss and error at evenly spaced points from `start` to `end`, ends included.

    Raises:
        ValueError: If there are fewer than 3 points, or the networks have different parameters.
    """
    points: list[Point] = []
    with progress_bar("along the line", num_points, after_seconds=2.0) as advance:
        for t in _positions(num_points, 0.0, 1.0):
            points.append(_measure(interpolate(start, end, t), batches, at=t))
            advance(1)
    return LossLine(
        points=tuple(points),
        barrier_loss=barrier([(point.at, point.loss) for point in points]),
        barrier_top1_error_pct=barrier([(point.at, point.top1_error_pct) for point in points]),
    )


def loss_along_direction(
    net: Network, direction: Direction, batches: Batches, *, num_points: int = 11
) -> tuple[Point, ...]:
    """Measure loss and error at evenly spaced distances from -1 to 1.

    Raises:
        ValueError: If there are fewer than 3 points.
    """
    points: list[Point] = []
    with progress_bar("across", num_points, after_seconds=2.0) as advance:
        for distance in _positions(num_points, -1.0, 1.0):
            points.append(_measure(move(net, [(direction, distance)]), batches, at=distance))
            advance(1)
    return tuple(points)


def loss_grid(
    net: Network, first: Direction, second: Direction, batches: Batches, *, num_points: int = 7
) -> Grid:
    """Measure loss and error on the square of distances -1 to 1 in two directions.

    Raises:
        ValueError: If there are fewer than 3 points per side.
    """
    distances = _positions(num_points, -1.0, 1.0)
    rows: list[list[Point]] = []
    with progress_bar("grid", num_points**2, after_seconds=2.0) as advance:
        for up in distances:
            row: list[Point] = []
            for right in distances:
                network = move(net, [(first, right), (second, up)])
                row.append(_measure(network, batches, at=right))
                advance(1)
            rows.append(row)
    return Grid(
        distances=tuple(distances),
        loss=_values(rows, "loss"),
        top1_error_pct=_values(rows, "top1_error_pct"),
    )


@torch.no_grad()
def interpolate(start: Network, end: Network, t: float) -> Network:
    """Return a new network with parameters (1 - t) start + t end, exact at t = 0 and t = 1.

    It has the batch-norm statistics of `start`.
    """
    start_values, end_values = dict(start.named_parameters()), dict(end.named_parameters())
    start_shapes = {name: value.shape for name, value in start_values.items()}
    if start_shapes != {name: value.shape for name, value in end_values.items()}:
        raise ValueError(
            f"{start.name} and {end.name} have different parameters: there is no line between them"
        )
    net = deepcopy(start)
    for name, parameter in net.named_parameters():
        parameter.copy_(torch.lerp(start_values[name], end_values[name], t))
    return net


@torch.no_grad()
def move(net: Network, steps: Iterable[tuple[Direction, float]]) -> Network:
    """Return a new network with its parameters moved by distances along directions."""
    twin = deepcopy(net)
    for direction, distance in steps:
        for name, parameter in twin.named_parameters():
            parameter.add_(direction[name], alpha=distance)
    return twin


@torch.no_grad()
def random_direction(net: Network, *, seed: int, number: int = 0) -> dict[str, Tensor]:
    """Draw a filter-normalized direction: each filter is as long as the same filter of `net`.

    It is zero for biases and batch norm.

    Args:
        net: The network.
        seed: Seed of the draw.
        number: Number of the direction for this seed, from 0.
    """
    generator = torch.Generator().manual_seed(seed * 1_000 + number)
    direction = {}
    for name, parameter in net.named_parameters():
        if parameter.ndim < 2:
            direction[name] = torch.zeros_like(parameter)
            continue
        drawn = torch.randn(parameter.shape, generator=generator)
        direction[name] = drawn * (_filter_norms(parameter) / _filter_norms(drawn))
    return direction


def barrier(points: Sequence[tuple[float, float]]) -> float:
    """Return the greatest excess of (t, value) points over the straight line between the ends.

    The result is infinite if a value is not finite.
    """
    if not all(math.isfinite(value) for _, value in points):
        return math.inf
    (_, first), (_, last) = points[0], points[-1]
    return max(value - ((1 - t) * first + t * last) for t, value in points)


def _measure(net: Network, batches: Batches, *, at: float) -> Point:
    recompute_batch_norm(net, batches)
    metrics = evaluate(net, batches)
    return Point(at=at, loss=metrics.loss, top1_error_pct=metrics.top1_error_pct)


def _values(rows: Sequence[Sequence[Point]], name: str) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(map(attrgetter(name), row)) for row in rows)


def _filter_norms(value: Tensor) -> Tensor:
    """Return the L2 norm of each filter, in a shape that broadcasts with `value`."""
    norms: Tensor = value.flatten(1).norm(dim=1)
    return norms.view(-1, *[1] * (value.ndim - 1))


def _positions(num_points: int, low: float, high: float) -> list[float]:
    if num_points < 3:
        raise ValueError(
            f"{num_points} points: at least 3 are needed, two ends and a point between them"
        )
    return [low + (high - low) * index / (num_points - 1) for index in range(num_points)]
