"""Lesions have the known effects of special cases (Veit et al. 2016)."""

import math
from copy import deepcopy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from reslearn.analysis import lesions
from reslearn.analysis.blockwise import (
    assemble,
    block_shapes,
    droppable,
    interchangeable,
    without_body,
)
from reslearn.analysis.lesions import choose, kendall_tau, swap
from reslearn.evaluate import evaluate
from reslearn.models import Network, build, last_batch_norm

Batches = list[tuple[torch.Tensor, torch.Tensor]]


@pytest.fixture
def batches() -> Batches:
    x = torch.randn(60, 1, 8, 8)
    return [(x[:40], torch.arange(40) % 10), (x[40:], torch.arange(20) % 10)]


def made(name: str, batches: Batches) -> Network:
    """Return a network whose running statistics differ from their initial values."""
    net = build(name, num_classes=10, in_channels=1).train()
    for x, _ in batches:
        net(x)
    return net.eval()


def zeroed(net: Network, index: int) -> None:
    norm = last_batch_norm(net.blocks()[index][1])
    nn.init.zeros_(norm.weight)
    nn.init.zeros_(norm.bias)


def test_dropping_a_block_whose_body_is_zero_changes_nothing(batches: Batches) -> None:
    net = made("resnet14", batches)
    for index in (1, 2, 4):  # 2 and 4 halve the maps: their shortcut pads with zeros
        zeroed(net, index)
    found = lesions(net, batches, draws=2)
    intact = (found.intact.loss, found.intact.top1_error_pct)
    unchanged = [(block.loss, block.top1_error_pct) == intact for block in found.one_dropped]
    assert unchanged == [False, True, True, False, True, False]
    assert found.not_droppable == ()


@pytest.mark.parametrize("name", ["plain14", "resnet14"])
def test_a_network_without_its_last_blocks_is_the_shallower_network(
    name: str, batches: Batches
) -> None:
    """plain14 without the second block of each stage is plain8 with the weights of the others."""
    net, shallow = made(name, batches), build(f"{name[:-2]}8", num_classes=10, in_channels=1)
    shallow.load_state_dict(
        {key: value for key, value in net.state_dict().items() if key in shallow.state_dict()}
    )
    second = [
        index for index, (block_name, _) in enumerate(net.blocks()) if block_name.endswith(".1")
    ]
    damaged = assemble(
        net,
        [
            without_body(block) if index in second else block
            for index, (_, block) in enumerate(net.blocks())
        ],
    )
    assert evaluate(damaged, batches) == evaluate(shallow, batches)


def test_plain_blocks_that_change_the_shape_cannot_be_dropped(batches: Batches) -> None:
    net = made("plain14", batches)
    found = lesions(net, batches, draws=2)
    assert found.not_droppable == ("stage2.0", "stage3.0")
    assert [block.block for block in found.one_dropped] == [
        "stage1.0",
        "stage1.1",
        "stage2.1",
        "stage3.1",
    ]
    assert [entry.num_blocks for entry in found.some_dropped] == [1, 2, 3, 4]
    assert [len(entry.draws) for entry in found.some_dropped] == [2, 2, 2, 1]
    shapes = block_shapes(net, batches[0][0])
    assert shapes[2] == ((16, 8, 8), (32, 4, 4))
    assert interchangeable(shapes) == [[0, 1]]
    assert droppable(made("resnet14", batches), shapes) == [0, 1, 2, 3, 4, 5]


def test_a_swap_of_two_equal_blocks_changes_nothing(batches: Batches) -> None:
    net = made("resnet14", batches)
    first, second = net.get_submodule("stage1.0"), net.get_submodule("stage1.1")
    second.load_state_dict(first.state_dict())
    same = lesions(net, batches, draws=3)
    assert [entry.num_swaps for entry in same.reordered] == [1, 2]
    assert all(draw.loss == same.intact.loss for entry in same.reordered for draw in entry.draws)
    with torch.no_grad():
        second.get_parameter("body.conv1.weight").mul_(-3)
    other = lesions(net, batches, draws=3)
    assert all(draw.loss != other.intact.loss for draw in other.reordered[0].draws)
    assert all(
        tau == pytest.approx(1 - 2 / 15) for tau in other.reordered[0].kendall_tau
    )  # one of 15 pairs is reversed
    assert other.reordered[1].kendall_tau == pytest.approx(
        (1, 1, 1)
    )  # only one pair can be swapped: two swaps restore the order


def test_means_and_deviations_summarize_the_draws(batches: Batches) -> None:
    entry = lesions(made("resnet14", batches), batches, draws=4).some_dropped[1]
    errors = torch.tensor([draw.top1_error_pct for draw in entry.draws], dtype=torch.float64)
    assert len(errors) == 4
    assert entry.mean_top1_error_pct == pytest.approx(float(errors.mean()))
    assert entry.sd_top1_error_pct == pytest.approx(float(errors.std()))


def test_draws_depend_on_the_seed_only_and_the_network_is_not_changed(batches: Batches) -> None:
    net = made("resnet14", batches).train()
    before = deepcopy(net.state_dict())
    first = lesions(net, batches, draws=3, seed=1)
    torch.manual_seed(99)
    assert lesions(net, batches, draws=3, seed=1) == first
    assert lesions(net, batches, draws=3, seed=2) != first
    assert net.training and net.get_submodule("stage1.0.body").training
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())


@settings(max_examples=40)
@given(st.integers(1, 9), st.data(), st.integers(1, 6), st.integers(0, 50))
def test_choices_are_different_and_as_many_as_there_are(
    num_blocks: int, data: st.DataObject, draws: int, seed: int
) -> None:
    number = data.draw(st.integers(1, num_blocks))
    chosen = choose(range(num_blocks), number, draws=draws, seed=seed)
    assert len(set(chosen)) == len(chosen) == min(draws, math.comb(num_blocks, number))
    assert all(
        len(set(choice)) == number and set(choice) <= set(range(num_blocks)) for choice in chosen
    )


@settings(max_examples=40)
@given(st.integers(1, 20), st.integers(0, 50), st.integers(0, 5))
def test_swaps_stay_within_their_group(num_swaps: int, seed: int, draw: int) -> None:
    groups = [[0, 1, 2], [4, 5]]
    order = swap(7, groups, num_swaps, seed=seed, draw=draw)
    assert sorted(order) == list(range(7))
    assert all({order[place] for place in group} == set(group) for group in [*groups, [3], [6]])


def test_kendalls_tau_is_1_unchanged_and_minus_1_reversed() -> None:
    assert kendall_tau([0, 1, 2, 3]) == pytest.approx(1)
    assert kendall_tau([3, 2, 1, 0]) == pytest.approx(-1)
    assert kendall_tau([0]) == 1


def test_impossible_arguments_are_refused(batches: Batches) -> None:
    net = build("resnet8", num_classes=10, in_channels=1)
    with pytest.raises(ValueError, match="draws = 0"):
        lesions(net, batches, draws=0)
    with pytest.raises(ValueError, match="no image"):
        lesions(net, [])
    assert lesions(net, batches, draws=1).reordered == ()  # resnet8 has no two blocks of one shape
