"""Near copies among many pictures, without comparing every pair.

Two pictures are near copies if their perceptual hashes (pHash, 64 bits) differ in at most
`MAX_DISTANCE` bits and their thumbnails correlate by at least `MIN_CORRELATION`. The hash alone is
not enough: photos of different shirts on one background often differ in six bits. Both bounds were
set on photos of clothing. They find every copy that was resized,
compressed again, or brightened by 20 %. They find four of five copies that were cropped by 2 % on
each side. They reject the pairs of different shirts. Pictures of at most `SMALL_PX` are
little more than thumbnails, so handwritten digits would look alike: they need a correlation of
0.99.

The search cuts a hash into nine bands. A difference of six bits leaves at least three bands equal,
so pictures are sorted by each choice of three bands, and only equal ones are compared. Where very
many are equal, each is compared with the next ones in the order of the hash, and the result says
that the search was limited.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

MAX_DISTANCE = 6
MIN_CORRELATION, MIN_CORRELATION_OF_SMALL = 0.95, 0.99
SMALL_PX = 32
"""Up to this shorter side a picture is small."""
_NUM_BANDS = 9
_BANDS_EQUAL = _NUM_BANDS - MAX_DISTANCE
BAND_CHOICES = tuple(itertools.combinations(range(_NUM_BANDS), _BANDS_EQUAL))
_EDGES = [64 * band // _NUM_BANDS for band in range(_NUM_BANDS + 1)]
_COMPARISONS_PER_PICTURE = 64  # for each choice of bands, on average
_FREE_COMPARISONS = 2_000_000  # for each choice of bands, however few pictures there are
_PAIRS_AT_ONCE = 8192

Rows = npt.NDArray[np.int64]
Hashes = npt.NDArray[np.uint64]
Tiny = npt.NDArray[np.uint8]


@dataclass
class NearSearch:
    """A search for near copies, and whether it compared all pairs that could be near copies.

    Args:
        hashes: Perceptual hashes, uint64 [N].
        tiny: Thumbnails, uint8 [M, S, S, 3]; they may stay on disk.
        rows: Picture i has the `rows[i]`-th thumbnail.
        skip: Pictures that are not compared, bool [N].
        is_small: Pictures of at most `SMALL_PX`, bool [N].
        max_comparisons: Bound of the comparisons for each choice of bands. None takes a bound in
            proportion to N.

    Attributes:
        is_complete: Whether no comparison was left out. It is known after `pairs` has ended.
    """

    hashes: Hashes
    tiny: Tiny
    rows: Rows
    skip: npt.NDArray[np.bool_]
    is_small: npt.NDArray[np.bool_]
    max_comparisons: int | None = None
    is_complete: bool = True

    def pairs(self) -> Iterator[tuple[Rows, Rows]]:
        """Yield the near copies as arrays of first and second pictures. Each pair appears once."""
        for bands in BAND_CHOICES:
            yield from self.pairs_with(bands)

    def pairs_with(self, bands: tuple[int, ...]) -> Iterator[tuple[Rows, Rows]]:
        """Yield the part of `pairs` that belongs to one of `BAND_CHOICES`."""
        for first, second in self._candidates(bands):
            for start in range(0, len(first), _PAIRS_AT_ONCE):
                chunk = slice(start, start + _PAIRS_AT_ONCE)
                is_near = self._correlate(first[chunk], second[chunk])
                if is_near.any():
                    yield first[chunk][is_near], second[chunk][is_near]

    def _candidates(self, bands: tuple[int, ...]) -> Iterator[tuple[Rows, Rows]]:
        """Yield pairs that agree in `bands`, differ in few bits, and are due for these bands."""
        limit = self.max_comparisons
        if limit is None:
            limit = _FREE_COMPARISONS + _COMPARISONS_PER_PICTURE * len(self.hashes)
        reordered = _bands_first(self.hashes, bands)
        order = np.argsort(reordered)
        order = order[~self.skip[order]]
        hashes = reordered[order]
        num_key_bits = sum(_EDGES[band + 1] - _EDGES[band] for band in bands)
        keys = hashes >> np.uint64(64 - num_key_bits)
        active = np.arange(len(keys) - 1)
        earlier = [band for band in range(bands[-1]) if band not in bands]
        masks = [_bands_first(_band_mask(band), bands) for band in earlier]
        num_compared = 0
        for offset in itertools.count(1):
            active = active[active < len(keys) - offset]
            active = active[keys[active] == keys[active + offset]]
            if not len(active):
                return
            if num_compared + len(active) > limit:
                self.is_complete = False
                return
            num_compared += len(active)
            difference = hashes[active] ^ hashes[active + offset]
            is_due = np.bitwise_count(difference) <= MAX_DISTANCE
            # A pair that agrees in more bands belongs to the first choice of them only.
            for mask in masks:
                is_due &= (difference & mask) != 0
            due = active[is_due]
            if len(due):
                yield order[due], order[due + offset]

    def _correlate(self, first: Rows, second: Rows) -> npt.NDArray[np.bool_]:
        """Return whether the thumbnails of each pair correlate enough, bool [K]."""
        correlation = np.einsum("ij,ij->i", self._standardized(first), self._standardized(second))
        has_small = self.is_small[first] | self.is_small[second]
        required = np.where(has_small, MIN_CORRELATION_OF_SMALL, MIN_CORRELATION)
        is_near: npt.NDArray[np.bool_] = correlation >= required
        return is_near

    def _standardized(self, pictures: Rows) -> npt.NDArray[np.float32]:
        """Return thumbnails with mean 0 in each channel and length 1, float32 [K, S * S * 3]."""
        pixels = self.tiny[self.rows[pictures]].astype(np.float32)
        pixels -= pixels.mean(axis=(1, 2), keepdims=True)
        flat = pixels.reshape(len(pictures), -1)
        flat /= np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-6)
        return flat


def _bands_first(hashes: Hashes, bands: tuple[int, ...]) -> Hashes:
    """Return the hashes with their bits in another order: the given bands are the highest bits."""
    reordered = np.zeros_like(hashes)
    shift = 64
    for band in (*bands, *(band for band in range(_NUM_BANDS) if band not in bands)):
        start, end = _EDGES[band], _EDGES[band + 1]
        shift -= end - start
        bits = (hashes >> np.uint64(start)) & np.uint64((1 << (end - start)) - 1)
        reordered |= bits << np.uint64(shift)
    return reordered


def _band_mask(band: int) -> Hashes:
    return np.array(((1 << _EDGES[band + 1]) - 1) ^ ((1 << _EDGES[band]) - 1), np.uint64)
