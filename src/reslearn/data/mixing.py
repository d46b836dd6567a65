"""Erase rectangles, and mix pairs of images and of their labels: random erasing, mixup and CutMix.

Images 2k and 2k + 1 of a batch are a pair. Each becomes a mixture of both, with the same weight,
which is a pure function of (seed, step, k). The order of a batch is random, so these pairs are
random too. Every share of a batch with an even number of images holds whole pairs, so processes
that share a batch see the same mixtures as one process.

Shapes: B images a batch, S = size_px, K classes; normalized images float32 [B, S, S, C].
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float32, Int64
from torch import Tensor

from reslearn.data.batches import Stream, draw, uniform
from reslearn.data.errors import DataError
from reslearn.data.photo_views import PhotoAugment, PhotoView

Normalized = Float32[Tensor, "b s s c"]


def erase_rectangles(x: Normalized, views: Sequence[PhotoView]) -> Normalized:
    """Set the erased rectangle of each view to 0, the mean color, in place."""
    size_px = x.shape[1]
    for image, view in zip(x, views, strict=True):
        if view.erased is not None:
            left_px, top_px, width, height = (round(size_px * share) for share in view.erased)
            image[top_px : top_px + height, left_px : left_px + width] = 0
    return x


@dataclass(frozen=True, kw_only=True)
class Mixture:
    """How one pair of images is mixed.

    Attributes:
        weight: Share of an image in its own mixture. Its partner has the rest.
        box: [top, bottom, left, right] of the rectangle that the pair exchanges. None: blend.
    """

    weight: float
    box: tuple[int, int, int, int] | None = None


def draw_mixtures(
    augment: PhotoAugment, *, seed: int, step: int, first: int, num_pairs: int, size_px: int
) -> list[Mixture]:
    """Return the mixtures of the pairs `first` to `first + num_pairs - 1` of a step."""
    pairs = torch.arange(first, first + num_pairs)

    def numbers(stream: Stream) -> list[float]:
        return uniform(draw(seed, stream, step, pairs)).tolist()

    streams = (Stream.MIX_KIND, Stream.MIX_WEIGHT, Stream.MIX_ROW, Stream.MIX_COLUMN)
    mixtures = []
    for kind, level, row, column in zip(*map(numbers, streams), strict=True):
        is_cut = augment.mixup is None or (augment.cutmix is not None and kind < 0.5)
        alpha = augment.cutmix if is_cut else augment.mixup
        assert alpha is not None
        weight = beta_quantile(alpha, level)
        if is_cut:
            mixtures.append(_cut_mixture(weight, row, column, size_px))
        else:
            mixtures.append(Mixture(weight=weight))
    return mixtures


def _cut_mixture(weight: float, row: float, column: float, size_px: int) -> Mixture:
    """Return the exchange of a box that covers 1 - weight of the image, cut at its border.

    The center is uniform, as in the paper. The weight is the share of the pixels that remain.
    """
    half = size_px * math.sqrt(1 - weight) / 2
    top_px, bottom_px, left_px, right_px = (
        min(max(round(edge), 0), size_px)
        for edge in (
            row * size_px - half,
            row * size_px + half,
            column * size_px - half,
            column * size_px + half,
        )
    )
    exchanged = (bottom_px - top_px) * (right_px - left_px) / size_px**2
    return Mixture(weight=1 - exchanged, box=(top_px, bottom_px, left_px, right_px))


def beta_quantile(alpha: float, level: float) -> float:
    """Return the number below which Beta(alpha, alpha) lies with probability `level`."""
    # Importing scipy takes a third of a second, so only mixed batches pay for it.
    from scipy.special import betaincinv

    return float(betaincinv(alpha, alpha, level))


def mix_images(x: Normalized, mixtures: Sequence[Mixture]) -> Normalized:
    """Mix each pair of images, in place. A last image without a partner is unchanged."""
    for pair, mixture in enumerate(mixtures):
        first, second = x[2 * pair], x[2 * pair + 1]
        if mixture.box is None:
            difference = (second - first).mul_(1 - mixture.weight)
            first.add_(difference)
            second.sub_(difference)
        else:
            top_px, bottom_px, left_px, right_px = mixture.box
            part = first[top_px:bottom_px, left_px:right_px].clone()
            first[top_px:bottom_px, left_px:right_px] = second[top_px:bottom_px, left_px:right_px]
            second[top_px:bottom_px, left_px:right_px] = part
    return x


def mix_labels(
    labels: Int64[Tensor, b], mixtures: Sequence[Mixture], num_classes: int
) -> Float32[Tensor, "b k"]:
    """Return the probabilities of the classes: one for the label, or shared by a pair."""
    targets = torch.nn.functional.one_hot(labels, num_classes).float()
    num_mixed = 2 * len(mixtures)
    weights = torch.tensor([mixture.weight for mixture in mixtures]).repeat_interleave(2)
    weights = weights.to(labels.device).unsqueeze(1)
    pairs = targets[:num_mixed].view(-1, 2, num_classes)
    partners = pairs.flip(1).reshape(num_mixed, num_classes)
    mixed = weights * targets[:num_mixed] + (1 - weights) * partners
    return torch.cat([mixed, targets[num_mixed:]])


def check_pairs(batch_size: int, num_processes: int) -> None:
    """Raise DataError unless every share of a batch holds whole pairs.

    A single process may have an odd batch: its last image is not mixed.
    """
    if num_processes > 1 and (batch_size // num_processes) % 2:
        raise DataError(
            f"mixup and cutmix mix pairs of images, and {num_processes} processes that share "
            f"train.batch_size = {batch_size} have {batch_size // num_processes} images each: "
            f"set a multiple of {2 * num_processes}"
        )
