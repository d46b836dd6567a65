"""The loss along the straight line between two solutions, and across a solution in random directions.

Across: Li, Xu, Taylor, Studer, Goldstein 2018, "Visualizing the Loss Landscape of Neural Nets", Sec. 4. A direction is drawn from N(0, 1)
and each of its filters (a convolution's output channel, a fully connected layer's output) scaled to the norm of the net's own filter;
biases and batch norm's parameters stay where they are. So distance 1 is as far as the weights are long, in every filter, and nets can
be compared although ReLU and batch norm let weights be scaled freely. Along: all parameters move, theta(t) = (1 - t) start + t end.
At each point batch norm's statistics are computed anew on the images the loss is measured on: those of another point would be another
network's. Losses in nats, errors in per cent.
Shapes: x [B, C, H, W], y [B]; a direction is one tensor for each parameter.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass

import torch
from torch import Tensor

from reslearn.evaluate import evaluate, recompute_batch_norm
from reslearn.models import Network
from reslearn.progress import progress_bar

Direction = Mapping[str, Tensor]
Batches = Sequence[tuple[Tensor, Tensor]]


@dataclass(frozen=True, kw_only=True)
class Point:
    """Loss and error at `at`: t on the line, the distance on a curve across."""

    at: float
    loss: float
    top1_error_pct: float


@dataclass(frozen=True, kw_only=True)
class LossLine:
    """From start (t = 0) to end (t = 1). Barriers: the most by which loss (nats) and error (points) exceed the line between the ends'."""

    points: tuple[Point, ...]
    barrier_loss: float
    barrier_top1_error_pct: float


@dataclass(frozen=True, kw_only=True)
class Grid:
    """Rows by distance along the second direction, columns by distance along the first."""

    distances: tuple[float, ...]
    loss: tuple[tuple[float, ...], ...]
    top1_error_pct: tuple[tuple[float, ...], ...]


def along(start: Network, end: Network, batches: Batches, *, num_points: int = 11) -> LossLine:
    """Loss and error at `num_points` evenly spaced t from 0 to 1, ends included. ValueError for fewer than 3, or two different nets."""
    places = _places(num_points, 0.0, 1.0)
    found = []
    with progress_bar("along the line", num_points, after_seconds=2.0) as advance:
        for t in places:
            found.append(_measured(between(start, end, t), batches, at=t))
            advance(1)
    return LossLine(
        points=tuple(found),
        barrier_loss=barrier([(point.at, point.loss) for point in found]),
        barrier_top1_error_pct=barrier([(point.at, point.top1_error_pct) for point in found]),
    )


def across(
    net: Network, direction: Direction, batches: Batches, *, num_points: int = 11
) -> tuple[Point, ...]:
    """Loss and error at `num_points` evenly spaced distances from -1 to 1. ValueError for fewer than 3."""
    found = []
    with progress_bar("across", num_points, after_seconds=2.0) as advance:
        for distance in _places(num_points, -1.0, 1.0):
            found.append(_measured(moved(net, [(direction, distance)]), batches, at=distance))
            advance(1)
    return tuple(found)


def grid(
    net: Network, first: Direction, second: Direction, batches: Batches, *, num_points: int = 7
) -> Grid:
    """Loss and error over the square of distances -1 to 1 in two directions. ValueError for fewer than 3 a side."""
    places = _places(num_points, -1.0, 1.0)
    rows: list[list[Point]] = []
    with progress_bar("grid", num_points**2, after_seconds=2.0) as advance:
        for up in places:
            rows.append([])
            for right in places:
                rows[-1].append(
                    _measured(moved(net, [(first, right), (second, up)]), batches, at=right)
                )
                advance(1)
    return Grid(
        distances=tuple(places),
        loss=tuple(tuple(point.loss for point in row) for row in rows),
        top1_error_pct=tuple(tuple(point.top1_error_pct for point in row) for row in rows),
    )


@torch.no_grad()
def between(start: Network, end: Network, t: float) -> Network:
    """A new network with parameters (1 - t) start + t end; exactly theirs at 0 and 1. Its batch norm statistics are those of `start`."""
    ours, theirs = dict(start.named_parameters()), dict(end.named_parameters())
    if {name: value.shape for name, value in ours.items()} != {
        name: value.shape for name, value in theirs.items()
    }:
        raise ValueError(
            f"{start.name} and {end.name} have different parameters: there is no line between them"
        )
    net = deepcopy(start)
    for name, parameter in net.named_parameters():
        parameter.copy_(torch.lerp(ours[name], theirs[name], t))
    return net


@torch.no_grad()
def moved(net: Network, steps: Iterable[tuple[Direction, float]]) -> Network:
    """A new network with its parameters moved by the given distances along directions."""
    twin = deepcopy(net)
    for direction, distance in steps:
        for name, parameter in twin.named_parameters():
            parameter.add_(direction[name], alpha=distance)
    return twin


@torch.no_grad()
def filter_normalized(net: Network, *, seed: int, number: int = 0) -> dict[str, Tensor]:
    """The random direction `number` of a seed: each filter as long as the net's own; zero for biases and batch norm."""
    generator = torch.Generator().manual_seed(seed * 1_000 + number)
    direction = {}
    for name, parameter in net.named_parameters():
        if parameter.ndim < 2:
            direction[name] = torch.zeros_like(parameter)
            continue
        drawn = torch.randn(parameter.shape, generator=generator)
        wanted, had = (
            value.flatten(1).norm(dim=1).view(-1, *[1] * (value.ndim - 1))
            for value in (parameter, drawn)
        )
        direction[name] = drawn * (wanted / had)
    return direction


def barrier(points: Sequence[tuple[float, float]]) -> float:
    """The most by which a value exceeds the straight line between the first and the last; infinite where one is not finite."""
    if not all(math.isfinite(value) for _, value in points):
        return math.inf
    (_, first), (_, last) = points[0], points[-1]
    return max(value - ((1 - t) * first + t * last) for t, value in points)


def _measured(net: Network, batches: Batches, *, at: float) -> Point:
    recompute_batch_norm(net, batches)
    found = evaluate(net, batches)
    return Point(at=at, loss=found.loss, top1_error_pct=found.top1_error_pct)


def _places(num_points: int, low: float, high: float) -> list[float]:
    if num_points < 3:
        raise ValueError(
            f"{num_points} points: allowed are 3 and more, for the ends and what lies between"
        )
    return [low + (high - low) * index / (num_points - 1) for index in range(num_points)]
