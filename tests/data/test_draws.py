"""Random draws: the hash equals SplitMix64's finalizer, and draws are uniform and distinct."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from reslearn.data.batches import (
    Stream,
    draw,
    held_out_mask,
    integers_below,
    normal,
    permutation,
)

_MASK = 2**64 - 1


def _finalize(word: int) -> int:
    word = ((word ^ (word >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    word = ((word ^ (word >> 27)) * 0x94D049BB133111EB) & _MASK
    return word ^ (word >> 31)


def _reference(seed: int, stream: int, epoch: int, index: int) -> int:
    golden, state = 0x9E3779B97F4A7C15, 0
    for word in (seed, stream, epoch):
        state = _finalize(((state + golden) & _MASK) ^ (word & _MASK))
    return _finalize(((state + index) & _MASK) ^ golden)


@given(
    seed=st.integers(-(2**70), 2**70),
    stream=st.sampled_from(Stream),
    epoch=st.integers(0, 2**40),
    index=st.integers(0, 2**62),
)
def test_a_draw_equals_the_hash_in_unbounded_integers(
    seed: int, stream: Stream, epoch: int, index: int
) -> None:
    assert int(draw(seed, stream, epoch, torch.tensor([index]))) & _MASK == _reference(
        seed, stream, epoch, index
    )


def test_the_finalizer_is_splitmix64() -> None:
    # The first outputs of the published generator from state 0.
    assert _finalize(0x9E3779B97F4A7C15) == 0xE220A8397B1DCDAF
    assert _finalize(2 * 0x9E3779B97F4A7C15 & _MASK) == 0x6E789E6AA1B965F4


@pytest.mark.parametrize("stream", list(Stream))
def test_draws_are_uniform_over_images_and_over_epochs(stream: Stream) -> None:
    over_images = draw(3, stream, 5, torch.arange(20_000))
    over_epochs = torch.cat([draw(3, stream, epoch, torch.tensor([7])) for epoch in range(300)])
    for limit in (2, 3, 9):
        for draws in (over_images, over_epochs):
            values = integers_below(limit, draws)
            assert int(values.min()) >= 0
            assert stats.chisquare(torch.bincount(values, minlength=limit).numpy()).pvalue > 1e-4
            assert len(torch.bincount(values)) == limit


def test_streams_seeds_epochs_and_neighbors_are_independent() -> None:
    index = torch.arange(20_000)
    base = integers_below(9, draw(0, Stream.ROW, 0, index))
    other_draws = [
        draw(0, Stream.COLUMN, 0, index),
        draw(1, Stream.ROW, 0, index),
        draw(0, Stream.ROW, 1, index),
        draw(0, Stream.ROW, 0, index + 1),
    ]
    for other in other_draws:
        table = torch.bincount(base * 9 + integers_below(9, other), minlength=81).view(9, 9)
        assert stats.chi2_contingency(table.numpy()).pvalue > 1e-4


@given(seed=st.integers(0, 2**31 - 1), epoch=st.integers(0, 500), num_images=st.integers(1, 3000))
def test_a_permutation_has_each_image_once_and_is_repeatable(
    seed: int, epoch: int, num_images: int
) -> None:
    order = permutation(seed, epoch, num_images)
    assert torch.equal(order.sort().values, torch.arange(num_images))
    assert torch.equal(order, permutation(seed, epoch, num_images))


def test_permutations_are_uniform() -> None:
    first = torch.tensor([int(permutation(0, epoch, 6)[0]) for epoch in range(1000)])
    assert stats.chisquare(torch.bincount(first, minlength=6).numpy()).pvalue > 1e-4
    order = permutation(0, 0, 50_000)
    assert abs(stats.spearmanr(order.numpy(), range(50_000)).statistic) < 0.02


def test_the_held_out_mask_is_a_fixed_fraction_of_every_class() -> None:
    labels = torch.arange(1000) % 7
    mask = held_out_mask(labels, every=5)
    assert int(mask.sum()) == 200
    assert all(
        abs(int(mask[labels == label].sum()) - int((labels == label).sum()) / 5) < 1
        for label in range(7)
    )
    assert torch.equal(mask, held_out_mask(labels, every=5))


def test_normal_draws_are_normal_and_independent() -> None:
    streams = (Stream.COLOR_RADIUS, Stream.COLOR_ANGLE)
    values, next_epoch = (normal(0, streams, epoch, torch.arange(20_000)) for epoch in (0, 1))
    assert values.isfinite().all()
    assert stats.kstest(values.numpy(), "norm").pvalue > 1e-4
    assert abs(float(torch.corrcoef(torch.stack([values, next_epoch]))[0, 1])) < 0.03
    assert torch.equal(values[5:9], normal(0, streams, 0, torch.arange(5, 9)))
