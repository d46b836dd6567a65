"""A counter-based hash instead of a random generator: every draw is a pure function of (seed, stream, epoch, index).

Nothing has to be restored on resume, nothing depends on the number of workers, and the same draws come out on any device. The
finalizer is that of SplitMix64 (Steele, Lea, Flood 2014): two's complement int64 stands for uint64, products wrap around.
"""

import math
from enum import IntEnum

import torch
from jaxtyping import Float64, Int64
from torch import Tensor

_GOLDEN = 0x9E3779B97F4A7C15 - 2**64  # 2^64 over the golden ratio, as a signed number
_FIRST = 0xBF58476D1CE4E5B9 - 2**64
_SECOND = 0x94D049BB133111EB - 2**64


class Stream(IntEnum):
    """What is drawn: each its own stream, so that a new one never moves the others. Numbers are for ever."""

    ORDER = 0
    ROW = 1
    COLUMN = 2
    FLIP = 3
    SPLIT = 4
    SHORTER = 5
    COLOUR_RADIUS = 6
    COLOUR_ANGLE = 7


def _logical_shift_right(word: Tensor, bits: int) -> Tensor:
    """`>>` on int64 copies the sign; the mask takes the copies away again."""
    return (word >> bits) & ((1 << (64 - bits)) - 1)


def _finalize(word: Tensor) -> Tensor:
    word = (word ^ _logical_shift_right(word, 30)) * _FIRST
    word = (word ^ _logical_shift_right(word, 27)) * _SECOND
    return word ^ _logical_shift_right(word, 31)


def draw(
    seed: int, stream: Stream, epoch: int, index: Int64[Tensor, "*shape"]
) -> Int64[Tensor, "*shape"]:
    """64 well-mixed bits for each index, on its device. For a fixed (seed, stream, epoch) different indices never collide."""
    state = torch.zeros((), dtype=torch.int64)
    for word in (seed, stream, epoch):
        signed = (word + 2**63) % 2**64 - 2**63  # any Python integer is a valid seed
        state = _finalize((state + _GOLDEN) ^ signed)
    return _finalize((int(state) + index) ^ _GOLDEN)


def below(limit: int, bits: Int64[Tensor, "*shape"]) -> Int64[Tensor, "*shape"]:
    """Uniform on 0 ... limit - 1 from the upper 31 bits of a draw; the bias is below limit / 2^31."""
    assert 1 <= limit < 2**31, limit
    return (_logical_shift_right(bits, 33) * limit) >> 31


def normal(
    seed: int, streams: tuple[Stream, Stream], epoch: int, index: Int64[Tensor, "*shape"]
) -> Float64[Tensor, "*shape"]:
    """Standard normal numbers by Box and Muller, from the upper 53 bits of two draws for each index."""
    radius, angle = (
        _logical_shift_right(draw(seed, stream, epoch, index), 11).double() * 2.0**-53
        for stream in streams
    )
    return (-2 * torch.log1p(-radius)).sqrt() * (2 * math.pi * angle).cos()  # 1 - radius is never 0


def permutation(
    seed: int, epoch: int, num_images: int, device: torch.device | str = "cpu"
) -> Int64[Tensor, "n"]:
    """The order of an epoch: image indices sorted by their draw. Draws never tie, so every device sorts alike."""
    return torch.argsort(draw(seed, Stream.ORDER, epoch, torch.arange(num_images, device=device)))


def held_out(labels: Int64[Tensor, "n"], every: int) -> torch.Tensor:
    """A fixed test split for sources that bring none: True for every `every`-th image of a list sorted by class, then by draw."""
    bits = draw(0, Stream.SPLIT, 0, torch.arange(len(labels)))
    drawn = torch.argsort(bits)
    listed = drawn[torch.argsort(labels[drawn], stable=True)]
    mask = torch.zeros(len(labels), dtype=torch.bool)
    mask[listed[::every]] = True
    return mask
