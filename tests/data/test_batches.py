"""Loaders: both give the same batches, bit for bit, as a pure function of (seed, step)."""

from collections import Counter
from itertools import islice
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from reslearn.data import (
    Augment,
    DataError,
    Images,
    Preprocess,
    eval_batches,
    image_batches,
    train_batches,
)
from reslearn.data.batches import ViewSequence, ViewTable, crop_and_flip, epoch_views
from reslearn.data.preprocess import Padding

means = st.sampled_from(["per-pixel", "per-channel", "none"])
stds = st.sampled_from(["scalar", "per-channel", "none"])
paddings = st.sampled_from(["after-mean", "black"])
augments = st.builds(Augment, pad_px=st.integers(0, 5), flip=st.booleans(), crop=st.booleans())


def make_images(num_images: int, size_px: int = 6, channels: int = 3, seed: int = 0) -> Images:
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(
        0, 256, (num_images, size_px, size_px, channels), dtype=torch.uint8, generator=generator
    )
    return Images(pixels, torch.arange(num_images))


@settings(max_examples=30)
@given(
    num_images=st.integers(1, 40),
    size_px=st.integers(1, 9),
    channels=st.sampled_from([1, 3]),
    options=st.fixed_dictionaries(
        {
            "batch_size": st.integers(1, 30),
            "seed": st.integers(0, 2**31 - 1),
            "start_step": st.integers(0, 10**7),
            "augment": augments,
        }
    ),
    statistics=st.fixed_dictionaries({"mean": means, "std": stds, "padding": paddings}),
)
def test_the_per_image_loader_gives_the_same_batches(
    num_images: int,
    size_px: int,
    channels: int,
    options: dict[str, Any],
    statistics: dict[str, Any],
) -> None:
    images = make_images(num_images, size_px, channels, options["seed"])
    preprocess = Preprocess.fit(images, **statistics)
    in_memory = train_batches(images, preprocess, **options)
    per_image = image_batches(images, preprocess, **options)
    for (x, y), (x_single, y_single) in islice(zip(in_memory, per_image, strict=False), 3):
        assert x.shape == (options["batch_size"], channels, size_px, size_px)
        assert x.dtype == torch.float32
        assert x.permute(0, 2, 3, 1).is_contiguous()  # channels_last
        assert torch.equal(x.view(torch.int32), x_single.view(torch.int32))
        assert torch.equal(y, y_single)


def test_workers_give_the_same_batches_and_leave_the_global_generator_unchanged() -> None:
    images = make_images(10)
    preprocess = Preprocess.fit(images)
    before = torch.get_rng_state()
    parallel = list(
        islice(
            image_batches(images, preprocess, batch_size=4, seed=1, start_step=3, num_workers=2), 4
        )
    )
    assert torch.equal(before, torch.get_rng_state())
    whole = islice(train_batches(images, preprocess, batch_size=4, seed=1, start_step=3), 4)
    for (x, y), (x_parallel, y_parallel) in zip(whole, parallel, strict=True):
        assert torch.equal(x, x_parallel)
        assert torch.equal(y, y_parallel)


@settings(max_examples=30)
@given(
    num_images=st.integers(1, 30),
    batch_size=st.integers(1, 40),
    step=st.integers(0, 12),
    augment=augments,
)
def test_a_step_does_not_depend_on_where_the_loader_started(
    num_images: int, batch_size: int, step: int, augment: Augment
) -> None:
    images = make_images(num_images)
    preprocess = Preprocess.fit(images)
    from_start = next(
        islice(
            train_batches(images, preprocess, batch_size=batch_size, seed=7, augment=augment),
            step,
            None,
        )
    )
    resumed = next(
        train_batches(
            images, preprocess, batch_size=batch_size, seed=7, start_step=step, augment=augment
        )
    )
    assert torch.equal(from_start[0], resumed[0])
    assert torch.equal(from_start[1], resumed[1])


@settings(max_examples=40)
@given(num_images=st.integers(1, 30), batch_size=st.integers(1, 40))
def test_batches_are_full_and_epochs_are_joined(num_images: int, batch_size: int) -> None:
    images = make_images(num_images, size_px=1)
    num_steps = -(-3 * num_images // batch_size)
    batches = islice(
        train_batches(images, Preprocess.fit(images), batch_size=batch_size, seed=0), num_steps
    )
    labels = [label for _, y in batches for label in y.tolist()]
    assert len(labels) == num_steps * batch_size
    for epoch in range(3):
        assert sorted(labels[epoch * num_images : (epoch + 1) * num_images]) == list(
            range(num_images)
        )


def test_another_seed_or_epoch_gives_another_order() -> None:
    orders = [
        tuple(epoch_views(seed, epoch, 50, Augment()).index.tolist())
        for seed in range(4)
        for epoch in range(4)
    ]
    assert len(set(orders)) == 16


def test_all_offsets_and_mirror_images_are_equally_frequent() -> None:
    views = epoch_views(0, 0, 16_200, Augment(pad_px=4))
    cells = Counter(
        zip(views.top_px.tolist(), views.left_px.tolist(), views.flip.tolist(), strict=True)
    )
    assert len(cells) == 9 * 9 * 2
    assert 60 <= min(cells.values()) <= max(cells.values()) <= 145  # 100 expected


def test_without_crop_and_flip_images_are_unchanged() -> None:
    images = make_images(9)
    preprocess = Preprocess.fit(images)
    x, y = next(
        train_batches(
            images, preprocess, batch_size=9, seed=0, augment=Augment(crop=False, flip=False)
        )
    )
    assert torch.equal(x, preprocess(images.pixels[y]))


def test_crop_and_flip_of_a_small_image() -> None:
    image = torch.tensor([[1, 2], [3, 4]]).view(1, 2, 2, 1)
    corner = crop_and_flip(
        image,
        ViewTable(torch.tensor([0]), torch.tensor([0]), torch.tensor([0]), torch.tensor([False])),
        1,
    )
    assert corner.view(2, 2).tolist() == [[0, 0], [0, 1]]
    mirrored = crop_and_flip(
        image,
        ViewTable(torch.tensor([0]), torch.tensor([1]), torch.tensor([2]), torch.tensor([True])),
        1,
    )
    assert mirrored.view(2, 2).tolist() == [
        [0, 2],
        [0, 4],
    ]  # column 2 and padding, then mirrored


@pytest.mark.parametrize(("padding", "is_zero"), [("after-mean", True), ("black", False)])
def test_padding_is_exactly_zero_only_after_the_mean(padding: Padding, is_zero: bool) -> None:
    images = Images(
        torch.full((40, 4, 4, 3), 200, dtype=torch.uint8)
        + torch.arange(40, dtype=torch.uint8).view(-1, 1, 1, 1),
        torch.arange(40),
    )
    preprocess = Preprocess.fit(images, padding=padding)
    x, _ = next(
        train_batches(
            images, preprocess, batch_size=40, seed=0, augment=Augment(pad_px=4, flip=False)
        )
    )
    views = ViewSequence(seed=0, num_images=40, augment=Augment(pad_px=4, flip=False)).between(
        0, 40
    )
    outside = torch.stack(
        [(torch.arange(4) + top < 4) | (torch.arange(4) + top >= 8) for top in views.top_px]
    )  # [B, H]: padded rows
    assert outside.any()
    padded_rows = x.permute(0, 2, 1, 3)[outside]
    assert bool((padded_rows == 0).all()) is is_zero
    assert bool((padded_rows < -3).all()) is not is_zero


def test_a_subset_shares_memory_and_has_its_own_epochs() -> None:
    images = make_images(20)
    part = images.subset(0, 8)
    assert part.pixels.data_ptr() == images.pixels.data_ptr()
    _, y = next(train_batches(part, Preprocess.fit(part), batch_size=16, seed=0))
    assert sorted(y.tolist()) == sorted(2 * list(range(8)))


@settings(max_examples=40)
@given(num_images=st.integers(1, 30), batch_size=st.integers(1, 40))
def test_eval_batches_show_each_image_once_in_order(num_images: int, batch_size: int) -> None:
    images = make_images(num_images)
    preprocess = Preprocess.fit(images)
    batches = list(eval_batches(images, preprocess, batch_size=batch_size))
    assert torch.equal(torch.cat([y for _, y in batches]), images.labels)
    assert torch.equal(torch.cat([x for x, _ in batches]), preprocess(images.pixels))
    assert all(len(y) == batch_size for _, y in batches[:-1])
    assert all(x.permute(0, 2, 3, 1).is_contiguous() for x, _ in batches)


def test_wrong_use_is_refused_at_the_call() -> None:
    images = make_images(4)
    preprocess = Preprocess.fit(images)
    with pytest.raises(ValueError, match=r"batch_size = 0: allowed"):
        train_batches(images, preprocess, batch_size=0, seed=0)
    with pytest.raises(ValueError, match=r"start_step = -1: allowed"):
        image_batches(images, preprocess, batch_size=1, seed=0, start_step=-1)
    with pytest.raises(ValueError, match=r"pad_px = -1: allowed"):
        Augment(pad_px=-1)
    with pytest.raises(DataError, match=r"images are \(8, 8, 3\)"):
        train_batches(make_images(4, size_px=8), preprocess, batch_size=1, seed=0)
    with pytest.raises(DataError, match="images 0 to 9 are out of range: there are 4"):
        images.subset(0, 9)


def test_read_only_sources_do_not_warn() -> None:
    class ReadOnly:
        def __len__(self) -> int:
            return 3

        def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
            image = np.full((4, 4, 3), index, np.uint8)
            image.flags.writeable = False
            return image, index

    for padding in ("after-mean", "black"):
        preprocess = Preprocess.fit(make_images(4, 4), padding=padding)
        for augment in (Augment(), Augment(crop=False, flip=False)):
            x, _ = next(
                image_batches(ReadOnly(), preprocess, batch_size=3, seed=0, augment=augment)
            )
            assert x.shape == (3, 3, 4, 4)
