"""Balanced sampling: all classes equally often, images in turn, a pure function of the epoch."""

from itertools import islice

import pytest
import torch

from reslearn import data
from reslearn.data import Images
from reslearn.data.balanced_order import BalancedOrder
from reslearn.data.batches import balanced_order
from reslearn.data.per_image import AugmentedImages
from reslearn.data.photo_views import PhotoAugment, PhotoSequence

COUNTS = (1, 0, 4, 30)
LABELS = torch.repeat_interleave(torch.arange(4), torch.tensor(COUNTS))
BALANCED = data.Augment(balance=True, pad_px=1)


def images() -> Images:
    random = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (35, 8, 8, 3), generator=random, dtype=torch.uint8)
    return Images(pixels, LABELS)


def test_classes_are_equally_frequent_and_images_of_a_class_too() -> None:
    order = balanced_order(LABELS, seed=3)
    shown = torch.cat([order.images(epoch) for epoch in range(6)])
    by_class = torch.bincount(LABELS[shown], minlength=4)
    assert by_class.tolist() == [72, 0, 72, 66]  # 35 slots are 12, 12 and 11
    assert set(torch.bincount(shown, minlength=35)[1:5].tolist()) == {18}
    assert set(torch.bincount(shown, minlength=35)[5:].tolist()) == {2, 3}  # 66 slots for 30


def test_an_epoch_does_not_depend_on_those_before() -> None:
    once, again = balanced_order(LABELS, seed=3), balanced_order(LABELS, seed=3)
    first = once.images(0)
    assert not torch.equal(first, once.images(1))
    assert torch.equal(once.images(4), again.images(4))
    assert torch.equal(first, once.images(0))
    assert not torch.equal(first, balanced_order(LABELS, seed=4).images(0))


def test_few_images_of_many_classes() -> None:
    order = BalancedOrder(torch.tensor([5, 9]), torch.tensor([1, 0]))
    assert sorted(order.images(7).tolist()) == [0, 1]


def test_batches_resume_in_the_middle_of_an_epoch() -> None:
    preprocess = data.Preprocess.fit(images(), mean="per-channel", std="scalar", padding="black")
    options = {"batch_size": 10, "seed": 1, "augment": BALANCED}
    batches = list(islice(data.train_batches(images(), preprocess, **options), 9))
    labels = torch.cat([y for _, y in batches])
    shares = torch.bincount(labels, minlength=4) / len(labels)
    assert shares.tolist() == pytest.approx([1 / 3, 0, 1 / 3, 1 / 3], abs=0.05)
    resumed = next(data.train_batches(images(), preprocess, start_step=5, **options))
    assert torch.equal(resumed[0], batches[5][0])
    assert torch.equal(resumed[1], batches[5][1])


def test_photos_are_balanced_alike_and_each_repetition_has_its_own_crop() -> None:
    augment = PhotoAugment(crop_area=(0.3, 1.0), base=BALANCED)
    order = balanced_order(LABELS, seed=1)
    views = PhotoSequence(seed=1, num_images=35, augment=augment, balanced=order).between(0, 35)
    labels = LABELS[torch.tensor([view.index for view in views])]
    assert torch.bincount(labels).tolist() == [12, 0, 12, 11]
    areas = [view.area for view in views if view.index == 0]
    assert len(set(areas)) == len(areas) == 12


def test_a_reader_of_single_images_refuses() -> None:
    preprocess = data.Preprocess.fit(images(), mean="per-channel", std="scalar", padding="black")
    with pytest.raises(ValueError, match="balanced classes need images in memory"):
        AugmentedImages(images(), preprocess, seed=0, augment=BALANCED)
