"""Advice on input size, stem, crop, splits and weights, as sentences with reasons."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain

from reslearn.survey.facts import ALL, FolderFacts

INPUT_SIZES_PX = (32, 48, 64, 96, 128, 160, 192, 224)
"""Sides of the square that a network sees. The paper's networks are for 32 and 224."""
SMALL_INPUT_PX = 64
"""Up to this side the CIFAR stem keeps maps large enough."""
LARGE_LOSS_PCT = 20.0
FEW_IMAGES_PER_CLASS = 1000
_ASSUMED_ACCURACY = 0.9


@dataclass(frozen=True, kw_only=True)
class Advice:
    """What to choose, and why.

    Attributes:
        topic: "input size", "stem", "crop", "split", "test" or "weights".
        value: The choice in a word or number, for scripts.
        text: Full sentences.
    """

    topic: str
    value: str
    text: str


def advise(facts: FolderFacts) -> tuple[Advice, ...]:
    """Return the advice for a folder; none if no image can be read."""
    if not facts.num_images:
        return ()
    rules = (_size_and_stem, _crop, _split, _weights)
    return tuple(chain.from_iterable(rule(facts) for rule in rules))


def advised_size_px(shorter_px: int) -> int:
    """Return the largest input size that enlarges at most half of the images.

    Args:
        shorter_px: Median of their shorter sides.
    """
    fitting = [size for size in INPUT_SIZES_PX if size <= shorter_px]
    return max(fitting, default=INPUT_SIZES_PX[0])


def _size_and_stem(facts: FolderFacts) -> Iterator[Advice]:
    shorter = facts.sizes["shorter side"]
    size_px = advised_size_px(shorter.median)
    text = (
        f"Use an input size of at most {size_px} pixels. The shorter side of half of the images "
        f"has {shorter.median:,} pixels or more, so a larger input would only enlarge them."
    )
    if size_px > shorter.median:
        text = (
            f"Use an input size of {size_px} pixels, the smallest that the networks are made for. "
            f"The median of the shorter sides is {shorter.median:,} pixels, so most images are "
            "enlarged."
        )
    if size_px > SMALL_INPUT_PX:
        text += " A smaller input trains faster: half the side is a quarter of the work."
    yield Advice(topic="input size", value=str(size_px), text=text)
    if size_px <= SMALL_INPUT_PX:
        text = (
            "Use the `cifar` stem. It keeps the full resolution, while the `imagenet` stem divides "
            f"it by 4 and the network by 32: of {size_px} pixels, {math.ceil(size_px / 32)} would "
            "remain in the last stage."
        )
        yield Advice(topic="stem", value="cifar", text=text)
        return
    text = (
        "Use the `imagenet` stem. It divides the resolution by 4 at once, which makes "
        f"{size_px} pixels affordable. Take the `cifar` stem only with an input of "
        f"{SMALL_INPUT_PX} pixels or less."
    )
    yield Advice(topic="stem", value="imagenet", text=text)


def _crop(facts: FolderFacts) -> Iterator[Advice]:
    lost = f"A center crop removes {facts.lost_pct:.0f} % of the area of the median image"
    if facts.lost_pct < LARGE_LOSS_PCT:
        text = f"{lost}, so center crops are safe if the object is in the middle."
        yield Advice(topic="crop", value="center", text=text)
        return
    text = (
        f"{lost}. Look at the examples: if the object fills the frame, its ends are cut off. In "
        "training, random crops of varying area show all parts."
    )
    yield Advice(topic="crop", value="check", text=text)


def _split(facts: FolderFacts) -> Iterator[Advice]:
    if facts.is_drawn or ALL in facts.counts:
        text = (
            "Training draws the missing splits by the content of the files: 15 % for testing, and "
            "15 % for validation where no split is given. More photos move no other photo, and "
            "exact copies stay together. Make split folders yourself if several photos show the "
            "same object or person, and keep those together."
        )
        yield Advice(topic="split", value="draw", text=text)
    elif "validation" not in facts.counts:
        text = (
            "Add a folder validation/ with about 15 % of the training images. Choices such as the "
            "learning rate need it, because the test images must not decide anything."
        )
        yield Advice(topic="split", value="add validation", text=text)
    num_test = sum(facts.counts.get("test", {}).values())
    if num_test:
        spread = 1.96 * math.sqrt(_ASSUMED_ACCURACY * (1 - _ASSUMED_ACCURACY) / num_test)
        text = (
            f"{num_test:,} test images measure an accuracy of 90 % to within ±{100 * spread:.1f} "
            "points (95 % interval). Two networks that differ by less cannot be told apart by it."
        )
        yield Advice(topic="test", value=f"{100 * spread:.1f}", text=text)


def _weights(facts: FolderFacts) -> Iterator[Advice]:
    numbers = facts.counts.get("train") or next(iter(facts.counts.values()))
    with_images = [number for number in numbers.values() if number]
    if not with_images:
        return
    per_class = sum(with_images) / len(with_images)
    if per_class < FEW_IMAGES_PER_CLASS:
        text = (
            f"Start from trained weights (`--init`). A class has {per_class:,.0f} training images "
            "on average, which are few for training from random weights."
        )
        yield Advice(topic="weights", value="trained", text=text)
    ratio = max(with_images) / min(with_images)
    if ratio >= 3:
        text = (
            f"Try `train.class_weights=balanced` if the small classes matter as much as the large "
            f"ones: the largest class has {ratio:.1f} times the images of the smallest."
        )
        yield Advice(topic="class weights", value="balanced", text=text)
