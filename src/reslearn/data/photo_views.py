"""Modern augmentation as data: all draws of an image come before its pixels.

A `PhotoView` holds all draws of one shown image: crop, mirror image, change of TrivialAugment and
erased rectangle. Every draw is a pure function of (seed, stream, epoch, index of the image), so the
images are the same for any number of workers and in a resumed run.

Shapes: S = size_px, the side of the image for the network; B images a batch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

from jaxtyping import Int64
from torch import Tensor

from reslearn.data.balanced_order import BalancedOrder
from reslearn.data.batches import (
    PAPER_AUGMENT,
    Augment,
    Stream,
    draw,
    integers_below,
    permutation,
    uniform,
)

Policy = Literal["none", "trivial"]

# The changes of TrivialAugment, in the order of the draw. Recorded results depend on it.
CHANGES = (
    "identity",
    "shear_x",
    "shear_y",
    "translate_x",
    "translate_y",
    "rotate",
    "brightness",
    "color",
    "contrast",
    "sharpness",
    "posterize",
    "solarize",
    "auto_contrast",
    "equalize",
)
GEOMETRIC = frozenset(("shear_x", "shear_y", "translate_x", "translate_y", "rotate"))
_NUM_STRENGTHS = 31
_CROP_RATIO = (3 / 4, 4 / 3)  # width by height, Szegedy et al. 2015
_ERASED_AREA = (0.02, 1 / 3)  # Zhong et al. 2020, Sec. 4.1
_ERASED_RATIO = (0.3, 1 / 0.3)


@dataclass(frozen=True, kw_only=True)
class PhotoAugment:
    """Augmentation of one training; see the table [augment] of a recipe.

    Attributes:
        crop_area: Range of the share of the area that a crop covers. None: `base` crops.
        policy: "trivial" makes one random change per image (Mueller and Hutter 2021).
        erase: Chance that a rectangle is erased.
        mixup, cutmix: Parameter of the Beta distribution. None: not used.
        base: Mirror images, and the crops if `crop_area` is None.
        num_classes: Number of classes, needed to mix labels.
    """

    crop_area: tuple[float, float] | None = None
    policy: Policy = "none"
    erase: float = 0.0
    mixup: float | None = None
    cutmix: float | None = None
    base: Augment = PAPER_AUGMENT
    num_classes: int = 0

    def __post_init__(self) -> None:
        if self.mixes and self.num_classes < 2:
            raise ValueError("mixup and cutmix need num_classes, the number of classes")

    @property
    def mixes(self) -> bool:
        """Return whether pairs of images are mixed, so that labels are probabilities."""
        return self.mixup is not None or self.cutmix is not None


class Rectangle(NamedTuple):
    """A rectangle: its left upper corner and its size, in pixels or in shares of a side."""

    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True, kw_only=True)
class PhotoView:
    """The draws of one shown image.

    Attributes:
        index: Index of the image.
        area: Share of the area of the picture that the crop covers. None: no such crop.
        ratio, column, row: Uniform numbers in [0, 1) that choose shape and place of the crop.
        shift_px: Offset of the crop of `Augment` from the center, in rows and columns.
        flip: Whether the image is mirrored.
        change: A name of `CHANGES`.
        strength: -1 to 1, or 0 to 1 for a change without a direction.
        erased: The erased rectangle in shares of the sides. None: nothing is erased.
    """

    index: int
    area: float | None = None
    ratio: float = 0.0
    column: float = 0.0
    row: float = 0.0
    shift_px: tuple[int, int] = (0, 0)
    flip: bool = False
    change: str = "identity"
    strength: float = 0.0
    erased: Rectangle | None = None

    @property
    def is_geometric(self) -> bool:
        return self.change in GEOMETRIC

    def half_shorter_px(self, size_px: int) -> int:
        """Return half of the shorter side at which a picture has enough pixels for the crop.

        Both sides of a crop are at least sqrt(3/4 area) of the picture's shorter side. So a large
        JPEG can be decoded at the smallest fraction at which the crop still has `size_px` pixels.
        """
        assert self.area is not None
        return math.ceil(size_px / math.sqrt(self.area * _CROP_RATIO[0]) / 2)

    def crop_box(self, width: float, height: float) -> Rectangle:
        """Return the crop of a picture of this size, which lies wholly inside.

        The logarithm of the ratio of sides is uniform over the ratios that fit into the picture.
        Deviates: torchvision draws again until a crop fits.
        """
        assert self.area is not None
        shape = width / height
        low, high = (math.log(limit) for limit in _CROP_RATIO)
        low = max(low, min(high, math.log(self.area * shape)))
        high = min(high, max(low, math.log(shape / self.area)))
        ratio = math.exp(low + self.ratio * (high - low))
        crop_width = min(width, math.sqrt(self.area * width * height * ratio))
        crop_height = min(height, math.sqrt(self.area * width * height / ratio))
        return Rectangle(
            self.column * (width - crop_width),
            self.row * (height - crop_height),
            crop_width,
            crop_height,
        )


@dataclass(frozen=True, kw_only=True)
class PhotoSequence:
    """The endless sequence of views of a training. It has no state, so any worker can hold one."""

    seed: int
    num_images: int
    augment: PhotoAugment
    balanced: BalancedOrder | None = None

    def between(self, start: int, stop: int) -> list[PhotoView]:
        """Return the views at positions `start` to `stop - 1`, over as many epochs as needed."""
        views: list[PhotoView] = []
        while start < stop:
            epoch, start_in_epoch = divmod(start, self.num_images)
            end = min(self.num_images, start_in_epoch + stop - start)
            order = _order(self.seed, epoch, self.num_images)
            drawn = draw_views(self.augment, self.seed, epoch, order[start_in_epoch:end])
            if self.balanced is not None:
                images = self.balanced.images(epoch)
                drawn = [replace(view, index=int(images[view.index])) for view in drawn]
            views += drawn
            start += end - start_in_epoch
        return views


# One epoch is shown, and the next is read ahead.
_ORDERS: dict[tuple[int, int, int], Int64[Tensor, n]] = {}


def _order(seed: int, epoch: int, num_images: int) -> Int64[Tensor, n]:
    key = (seed, epoch, num_images)
    if key not in _ORDERS:
        while len(_ORDERS) > 1:
            del _ORDERS[next(iter(_ORDERS))]
        _ORDERS[key] = permutation(seed, epoch, num_images)
    return _ORDERS[key]


def draw_views(
    augment: PhotoAugment, seed: int, epoch: int, index: Int64[Tensor, b]
) -> list[PhotoView]:
    """Return the views of the images `index` in an epoch."""

    def numbers(stream: Stream) -> list[float]:
        return uniform(draw(seed, stream, epoch, index)).tolist()

    def integers(limit: int, stream: Stream) -> list[int]:
        return integers_below(limit, draw(seed, stream, epoch, index)).tolist()

    indices: list[int] = index.tolist()
    columns: dict[str, Sequence[object]] = {"index": indices}
    if augment.base.flip:
        columns["flip"] = [bool(bit) for bit in integers(2, Stream.FLIP)]
    if augment.crop_area is not None:
        low, high = augment.crop_area
        columns["area"] = [low + share * (high - low) for share in numbers(Stream.CROP_AREA)]
        columns["ratio"] = numbers(Stream.CROP_RATIO)
        columns["column"], columns["row"] = numbers(Stream.COLUMN), numbers(Stream.ROW)
    else:
        largest = augment.base.max_shift_px
        columns["shift_px"] = [
            (row - largest, column - largest)
            for row, column in zip(
                integers(2 * largest + 1, Stream.ROW),
                integers(2 * largest + 1, Stream.COLUMN),
                strict=True,
            )
        ]
    if augment.policy == "trivial":
        changes = integers(len(CHANGES), Stream.CHANGE)
        columns["change"] = [CHANGES[number] for number in changes]
        signs = integers(2, Stream.CHANGE_SIGN)
        strengths = integers(_NUM_STRENGTHS, Stream.CHANGE_STRENGTH)
        columns["strength"] = [
            (1 - 2 * sign) * strength / (_NUM_STRENGTHS - 1)
            for sign, strength in zip(signs, strengths, strict=True)
        ]
    if augment.erase:
        columns["erased"] = _erased(augment.erase, numbers)
    keys = tuple(columns)
    rows_of_values = zip(*columns.values(), strict=True)
    return [PhotoView(**dict(zip(keys, values, strict=True))) for values in rows_of_values]


def _erased(chance: float, numbers: Callable[[Stream], list[float]]) -> list[Rectangle | None]:
    """Return the rectangle of each image in shares of its sides."""
    streams = (Stream.ERASE, Stream.ERASE_AREA, Stream.ERASE_RATIO, Stream.ERASE_COLUMN)
    boxes: list[Rectangle | None] = []
    columns = [numbers(stream) for stream in (*streams, Stream.ERASE_ROW)]
    for is_erased, area_draw, ratio_draw, column, row in zip(*columns, strict=True):
        if is_erased >= chance:
            boxes.append(None)
            continue
        area = _ERASED_AREA[0] + area_draw * (_ERASED_AREA[1] - _ERASED_AREA[0])
        low, high = (math.log(limit) for limit in _ERASED_RATIO)
        # The ratio is limited to those whose rectangle fits.
        low, high = max(low, math.log(area)), min(high, -math.log(area))
        ratio = math.exp(low + ratio_draw * (high - low))
        width, height = math.sqrt(area * ratio), math.sqrt(area / ratio)
        boxes.append(Rectangle(column * (1 - width), row * (1 - height), width, height))
    return boxes
