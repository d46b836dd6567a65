"""The search for near copies finds what a comparison of all pairs finds, each pair once."""

import itertools

import numpy as np
import pytest

from reslearn.survey.near import MAX_DISTANCE, NearSearch


def random_pictures(count, seed=0):
    rng = np.random.default_rng(seed)
    hashes = rng.integers(0, 2**64, count, dtype=np.uint64)
    tiny = rng.integers(0, 256, (count, 4, 4, 3), dtype=np.uint8)
    return hashes, tiny


def search(hashes, tiny, **options):
    nothing = np.zeros(len(hashes), bool)
    options = {"rows": np.arange(len(hashes)), "skip": nothing, "is_small": nothing} | options
    return NearSearch(hashes, tiny, **options)


def pairs_of(found):
    pairs = []
    for first, second in found.pairs():
        pairs += [tuple(sorted(pair)) for pair in zip(first.tolist(), second.tolist(), strict=True)]
    return pairs


@pytest.mark.parametrize("distance", [0, 1, MAX_DISTANCE, MAX_DISTANCE + 1])
def test_pairs_up_to_the_bound_are_found_once(distance: int) -> None:
    rng = np.random.default_rng(distance)
    hashes, tiny = random_pictures(120)
    copies = hashes.copy()
    for index in range(len(copies)):
        for bit in rng.choice(64, distance, replace=False):
            copies[index] ^= np.uint64(1 << int(bit))
    found = pairs_of(search(np.concatenate([hashes, copies]), np.concatenate([tiny, tiny])))
    expected = [(index, index + 120) for index in range(120)] if distance <= MAX_DISTANCE else []
    assert sorted(found) == expected


def test_groups_of_copies_give_all_their_pairs() -> None:
    hashes, tiny = random_pictures(3)
    members = [0, 1, 2, 0, 1, 0]
    assert sorted(pairs_of(search(hashes[members], tiny[members]))) == [
        (0, 3),
        (0, 5),
        (1, 4),
        (3, 5),
    ]


def test_an_equal_hash_is_no_copy_if_the_colors_differ() -> None:
    hashes, tiny = random_pictures(2)
    hashes[1] = hashes[0]
    assert pairs_of(search(hashes, tiny)) == []
    brighter = (tiny[0] // 2 + 60).astype(np.uint8)
    assert pairs_of(search(hashes, np.stack([tiny[0], brighter]))) == [(0, 1)]


def test_small_pictures_must_be_more_alike() -> None:
    hashes, tiny = random_pictures(1)
    noisy = tiny[0].astype(int) + np.random.default_rng(1).integers(-25, 26, tiny[0].shape)
    pair = np.stack([tiny[0], noisy.clip(0, 255).astype(np.uint8)])
    correlation = np.corrcoef(pair.reshape(2, -1))[0, 1]
    assert 0.96 < correlation < 0.99
    both = hashes[[0, 0]]
    assert pairs_of(search(both, pair)) == [(0, 1)]
    assert pairs_of(search(both, pair, is_small=np.array([True, False]))) == []


def test_skipped_pictures_have_no_copies() -> None:
    hashes, tiny = random_pictures(1)
    members = [0, 0, 0]
    skip = np.array([False, True, False])
    assert pairs_of(search(hashes[members], tiny[members], skip=skip)) == [(0, 2)]


def test_many_equal_pictures_are_compared_within_bounds() -> None:
    hashes, tiny = random_pictures(1)
    members = [0] * 300
    whole = search(hashes[members], tiny[members])
    assert len(pairs_of(whole)) == 300 * 299 // 2
    assert whole.is_complete
    bounded = search(hashes[members], tiny[members], max_comparisons=1000)
    found = pairs_of(bounded)
    assert not bounded.is_complete
    assert 0 < len(found) <= 1000
    # Each picture is still linked to another one.
    assert set(itertools.chain.from_iterable(found)) == set(range(300))
