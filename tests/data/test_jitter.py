"""The training view of Sec. 3.4: a pure function of (seed, epoch, index), checked step by step."""

from collections import Counter
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from reslearn import data
from reslearn.data import DataError, Files, Jitter, Preprocess, image_batches
from reslearn.data.batches import Stream, draw, integers_below, normal, permutation
from reslearn.data.jitter import JitteredImages, principal_colors

Make = Callable[..., Path]
SIZE, SHORTER = 16, (256, 480)  # shorter sides of 18 to 34


@pytest.fixture(scope="module")
def files(make_pictures: Make, tmp_path_factory: pytest.TempPathFactory) -> Files:
    train = data.load(
        make_pictures(tmp_path_factory.mktemp("pictures"), train=6, test=1),
        size_px=SIZE,
        stream=True,
    ).train
    assert isinstance(train, Files)
    return train


@pytest.fixture(scope="module")
def preprocess(files: Files) -> Preprocess:
    return Preprocess.fit(files, shorter_px=18)


@pytest.fixture(scope="module")
def jitter(files: Files) -> Jitter:
    return Jitter.fit(files, shorter=SHORTER, flip=True, color=0.1)


def test_batches_do_not_depend_on_workers_or_the_first_step(
    files: Files, preprocess: Preprocess, jitter: Jitter
) -> None:
    def batches(num_workers: int, start_step: int = 0) -> list[data.Batch]:
        iterator = image_batches(
            files,
            preprocess,
            batch_size=5,
            seed=3,
            start_step=start_step,
            augment=jitter,
            num_workers=num_workers,
        )
        return list(islice(iterator, 6 - start_step))

    before = torch.get_rng_state()
    without_workers = batches(0)
    assert torch.equal(torch.get_rng_state(), before)
    assert all(
        x.shape == (5, 3, SIZE, SIZE) and x.is_contiguous(memory_format=torch.channels_last)
        for x, _ in without_workers
    )
    for other in (
        batches(1),
        batches(2),
        [*without_workers[:2], *batches(0, 2)],
        [*without_workers[:4], *batches(2, 4)],
    ):
        for (x, y), (x_other, y_other) in zip(without_workers, other, strict=True):
            assert torch.equal(x, x_other)
            assert torch.equal(y, y_other)


def test_each_epoch_shows_every_image_once_in_a_new_view(
    files: Files, preprocess: Preprocess, jitter: Jitter
) -> None:
    batches = list(
        islice(image_batches(files, preprocess, batch_size=4, seed=0, augment=jitter), 9)
    )  # 36 images: two epochs
    labels = torch.cat([y for _, y in batches])
    assert Counter(labels[:18].tolist()) == Counter(labels[18:].tolist()) == {0: 6, 1: 6, 2: 6}
    x = torch.cat([x for x, _ in batches]).flatten(1)
    assert len(x.unique(dim=0)) == 36


def test_a_view_equals_resizing_cropping_and_mirroring(tmp_path: Path) -> None:
    """Compare with Pillow and numpy, step by step.

    The pictures are square, so resizing to whole pixels does not distort them. Pillow rounds after
    each of two passes, so single pixels differ by two gray levels.
    """
    random = np.random.default_rng(1)
    for name in ("one", "two"):
        for number in range(6):
            (tmp_path / "train" / name).mkdir(parents=True, exist_ok=True)
            side = int(random.integers(20, 70))
            pixels = random.integers(0, 256, (side, side, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "train" / name / f"{number}.png")
    files = data.load(tmp_path, size_px=SIZE, stream=True).train
    assert isinstance(files, Files)
    preprocess = Preprocess.fit(files, shorter_px=18)
    jitter = Jitter.fit(files, shorter=SHORTER, flip=True, color=0.1)
    assert (jitter.shortest_px, jitter.longest_px) == (18, 34)
    assert jitter.color is not None
    x, y = next(image_batches(files, preprocess, batch_size=27, seed=5, augment=jitter))
    cases = Counter[str]()
    for position in range(27):
        epoch, place_in_epoch = divmod(position, len(files))
        index = permutation(5, epoch, len(files))[place_in_epoch]

        def draw_below(
            stream: Stream, limit: int, epoch: int = epoch, index: torch.Tensor = index
        ) -> int:
            return int(integers_below(limit, draw(5, stream, epoch, index)))

        side = 18 + draw_below(Stream.SHORTER_SIDE, 17)
        with Image.open(files.path(int(index))) as image:
            resized = np.asarray(image.resize((side, side), Image.Resampling.BILINEAR)).astype(
                np.float64
            )
        top, left = (
            draw_below(Stream.ROW, side - SIZE + 1),
            draw_below(Stream.COLUMN, side - SIZE + 1),
        )
        pixels = resized[top : top + SIZE, left : left + SIZE]
        mirrored = draw_below(Stream.FLIP, 2)
        pixels = pixels[:, ::-1] if mirrored else pixels
        alpha = normal(
            5, (Stream.COLOR_RADIUS, Stream.COLOR_ANGLE), epoch, 3 * index + torch.arange(3)
        ).numpy()
        expected = (
            pixels + alpha @ jitter.color.double().numpy() - preprocess.mean.numpy()
        ) / preprocess.scale.numpy()
        np.testing.assert_allclose(
            x[position].permute(1, 2, 0), expected, atol=2.001 / float(preprocess.scale.min())
        )
        assert (
            np.abs(x[position].permute(1, 2, 0).numpy() - expected).mean() < 6e-3
        )  # rounding differs in a few pixels
        assert y[position] == files.labels[index]
        cases.update([f"flip {mirrored}", f"side {side}"])
    assert {"flip 0", "flip 1"} <= set(cases)
    assert len(cases) > 8


def test_draws_fill_their_range(files: Files, preprocess: Preprocess) -> None:
    narrow = JitteredImages(
        files, preprocess, seed=0, jitter=Jitter(shortest_px=SIZE, longest_px=SIZE)
    )
    assert all(narrow[position][0].shape == (SIZE, SIZE, 3) for position in range(18))
    index = torch.arange(30_000)
    sides = 256 + integers_below(480 - 256 + 1, draw(0, Stream.SHORTER_SIDE, 0, index))
    assert (int(sides.min()), int(sides.max())) == (256, 480)


def test_without_flip_and_color_only_scale_and_position_vary(
    files: Files, preprocess: Preprocess
) -> None:
    jitter = Jitter.fit(files, shorter=SHORTER, flip=False, color=None)
    assert jitter.color is None
    flipped = JitteredImages(
        files, preprocess, seed=0, jitter=Jitter.fit(files, shorter=SHORTER, flip=True, color=None)
    )
    views = JitteredImages(files, preprocess, seed=0, jitter=jitter)
    mirrored = 0
    for position in range(18):
        pixels, shift, _ = views[position]
        other, _, _ = flipped[position]
        assert not shift.any()
        mirrored += torch.equal(other, pixels.flip(1))
        assert torch.equal(other, pixels) or torch.equal(other, pixels.flip(1))
    assert 0 < mirrored < 18


def test_principal_colors_equal_numpy(files: Files) -> None:
    pixels = (
        np.concatenate(
            [
                data.read_picture(files.path(index), SIZE).reshape(-1, 3)
                for index in range(len(files))
            ]
        )
        / 255
    )
    values, vectors = np.linalg.eigh(np.cov(pixels.T, bias=True))
    colors = principal_colors(files).numpy()
    for row, value, vector in zip(colors, values[::-1], vectors.T[::-1], strict=True):
        np.testing.assert_allclose(
            np.outer(row, row), np.outer(vector, vector) * (255 * value) ** 2, rtol=1e-4, atol=1e-6
        )
    np.testing.assert_allclose(np.linalg.norm(colors, axis=1), 255 * values[::-1], rtol=1e-5)
    assert all(row[np.abs(row).argmax()] > 0 for row in colors)


def test_images_in_memory_are_refused(preprocess: Preprocess, jitter: Jitter) -> None:
    images = data.Images(
        torch.zeros(2, SIZE, SIZE, 3, dtype=torch.uint8), torch.zeros(2, dtype=torch.int64)
    )
    with pytest.raises(DataError, match="needs a folder of images"):
        image_batches(images, preprocess, batch_size=1, seed=0, augment=jitter)
