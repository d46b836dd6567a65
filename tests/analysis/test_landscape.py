"""Lines, random directions and barriers agree with direct computation (Li et al. 2018)."""

import math
from copy import deepcopy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from reslearn.analysis.landscape import (
    barrier,
    interpolate,
    loss_along_direction,
    loss_along_line,
    loss_grid,
    move,
    random_direction,
)
from reslearn.evaluate import evaluate, recompute_batch_norm
from reslearn.models import Network, build

Batches = list[tuple[torch.Tensor, torch.Tensor]]


@pytest.fixture
def batches() -> Batches:
    return [(torch.randn(40, 1, 8, 8), torch.arange(40) % 10)]


def net(seed: int, name: str = "resnet8", **switches: object) -> Network:
    torch.manual_seed(seed)
    return build(name, num_classes=10, in_channels=1, **switches).eval()


def by_hand(given: Network, batches: Batches) -> tuple[float, float]:
    twin = deepcopy(given)
    recompute_batch_norm(twin, batches)
    found = evaluate(twin, batches)
    return found.loss, found.top1_error_pct


def test_the_ends_of_the_line_are_the_networks_and_its_middle_the_mean(batches: Batches) -> None:
    start, end = net(0), net(1)
    found = loss_along_line(start, end, batches, num_points=5)
    assert [point.at for point in found.points] == [0, 0.25, 0.5, 0.75, 1]
    assert (found.points[0].loss, found.points[0].top1_error_pct) == by_hand(start, batches)
    assert (found.points[-1].loss, found.points[-1].top1_error_pct) == by_hand(end, batches)
    middle = deepcopy(start)
    with torch.no_grad():
        for name, parameter in middle.named_parameters():
            parameter.copy_((parameter + end.get_parameter(name)) / 2)
    assert found.points[2].loss == pytest.approx(by_hand(middle, batches)[0], rel=1e-5)
    assert found.barrier_loss == barrier([(point.at, point.loss) for point in found.points])
    for at, whole in ((0.0, start), (1.0, end)):
        moved_to = interpolate(start, end, at)
        assert all(
            torch.equal(value, whole.get_parameter(name))
            for name, value in moved_to.named_parameters()
        )


def test_a_line_from_a_network_to_itself_has_no_barrier(batches: Batches) -> None:
    found = loss_along_line(net(0), net(0), batches, num_points=3)
    assert found.barrier_loss == 0 == found.barrier_top1_error_pct
    assert len({point.loss for point in found.points}) == 1


@pytest.mark.parametrize("switches", [{}, {"normalize": False}], ids=str)
def test_each_filter_of_a_direction_is_as_long_as_the_filter_of_the_network(
    switches: dict[str, object],
) -> None:
    trained = net(0, **switches)
    direction = random_direction(trained, seed=3)
    assert direction.keys() == dict(trained.named_parameters()).keys()
    for name, parameter in trained.named_parameters():
        if parameter.ndim < 2:
            assert not direction[name].any(), name
        else:
            torch.testing.assert_close(
                direction[name].flatten(1).norm(dim=1), parameter.detach().flatten(1).norm(dim=1)
            )
    again, second, other = (
        random_direction(trained, seed=seed, number=number)
        for seed, number in ((3, 0), (3, 1), (4, 0))
    )
    name = "head.fc.weight"
    assert torch.equal(again[name], direction[name])
    assert not torch.equal(second[name], direction[name]) and not torch.equal(
        other[name], direction[name]
    )


def test_scaled_filters_do_not_change_the_landscape(batches: Batches) -> None:
    """Before batch norm, weights that are ten times as long compute the same function.

    Filter normalization therefore gives them the same landscape.
    """
    one, other = net(0), net(0)
    with torch.no_grad():
        for parameter in other.parameters():
            if parameter.ndim == 4:
                parameter.mul_(10)
    curves = [
        loss_along_direction(each, random_direction(each, seed=1), batches, num_points=3)
        for each in (one, other)
    ]
    assert [point.loss for point in curves[0]] == pytest.approx(
        [point.loss for point in curves[1]], rel=1e-3
    )


def test_the_middle_of_curve_and_grid_is_the_network(batches: Batches) -> None:
    trained = net(0)
    before = deepcopy(trained.state_dict())
    first, second = (random_direction(trained, seed=0, number=number) for number in range(2))
    loss, error = by_hand(trained, batches)
    curve, square = (
        loss_along_direction(trained, first, batches, num_points=3),
        loss_grid(trained, first, second, batches, num_points=3),
    )
    assert [point.at for point in curve] == [-1, 0, 1]
    assert (curve[1].loss, curve[1].top1_error_pct) == (loss, error)
    assert square.distances == (-1, 0, 1)
    assert square.loss[1][1] == loss and square.top1_error_pct[1][1] == error
    assert square.loss[1] == tuple(
        point.loss for point in curve
    )  # a row: the second direction at 0
    assert square.loss[2][1] == by_hand(move(trained, [(second, 1.0)]), batches)[0]
    assert all(torch.equal(value, before[key]) for key, value in trained.state_dict().items())


@settings(max_examples=60)
@given(
    st.lists(st.floats(-1e3, 1e3), min_size=3, max_size=12), st.floats(-10, 10), st.floats(-10, 10)
)
def test_adding_a_straight_line_does_not_change_a_barrier(
    values: list[float], height: float, slope: float
) -> None:
    places = [index / (len(values) - 1) for index in range(len(values))]
    found = barrier(list(zip(places, values, strict=True)))
    tilted = barrier(
        [(t, value + height + slope * t) for t, value in zip(places, values, strict=True)]
    )
    assert found >= 0
    assert tilted == pytest.approx(found, abs=1e-6)


def test_a_barrier_by_hand() -> None:
    assert barrier([(0, 1.0), (0.5, 5.0), (1, 3.0)]) == 3
    assert barrier([(0, 1.0), (0.5, -5.0), (1, 3.0)]) == 0
    assert barrier([(0, 1.0), (0.5, math.nan), (1, 3.0)]) == math.inf


def test_impossible_arguments_are_refused(batches: Batches) -> None:
    with pytest.raises(ValueError, match="no line between"):
        loss_along_line(net(0), net(0, "resnet14"), batches)
    with pytest.raises(ValueError, match="2 points"):
        loss_along_line(net(0), net(1), batches, num_points=2)
