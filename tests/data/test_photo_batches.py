"""Modern augmentation: batches are a pure function of (seed, step), and each part does its work."""

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from reslearn import data
from reslearn.data import Augment, DataError, Files, Images, PhotoAugment, Preprocess, photo_batches
from reslearn.data.mixing import Mixture, beta_quantile, draw_mixtures, mix_images, mix_labels
from reslearn.data.photo_views import CHANGES, PhotoSequence, PhotoView, draw_views
from reslearn.data.resample import affine, render

Make = Callable[..., Path]
EVERYTHING = PhotoAugment(
    crop_area=(0.25, 1.0), policy="trivial", erase=0.5, mixup=0.2, cutmix=1.0, num_classes=3
)
NOTHING = PhotoAugment()
SIZE = 16


@pytest.fixture(scope="module")
def folder(make_pictures: Make, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_pictures(tmp_path_factory.mktemp("pictures"), train=7, test=2)


@pytest.fixture(scope="module")
def images(folder: Path) -> Images:
    train = data.load(folder, size_px=SIZE, keep_whole=True).train
    assert isinstance(train, Images)
    return train


@pytest.fixture(scope="module")
def files(folder: Path) -> Files:
    train = data.load(folder, size_px=SIZE, stream=True).train
    assert isinstance(train, Files)
    return train


@pytest.fixture(scope="module")
def preprocess(images: Images) -> Preprocess:
    return Preprocess.fit(images)


def take(number: int, *arguments: object, **options: object) -> list[data.SoftBatch]:
    options = {"batch_size": 6, "seed": 3, **options}
    return list(islice(photo_batches(*arguments, **options), number))  # type: ignore[arg-type]


def assert_equal(first: list[data.SoftBatch], second: list[data.SoftBatch]) -> None:
    assert len(first) == len(second) > 0
    for (x, y), (other_x, other_y) in zip(first, second, strict=True):
        assert torch.equal(x, other_x)
        assert torch.equal(y, other_y)


@pytest.mark.parametrize(
    "augment", [EVERYTHING, replace(EVERYTHING, crop_area=None)], ids=["cropped", "shifted"]
)
def test_a_batch_depends_on_seed_and_step_alone(
    images: Images, preprocess: Preprocess, augment: PhotoAugment
) -> None:
    batches = take(6, images, preprocess, augment=augment)  # 36 images of 21: almost two epochs
    assert_equal(batches[4:], take(2, images, preprocess, augment=augment, start_step=4))
    assert not torch.equal(
        batches[0][0], take(1, images, preprocess, augment=augment, seed=4)[0][0]
    )
    shares = [take(6, images, preprocess, augment=augment, share=(rank, 3)) for rank in range(3)]
    joined = [
        (torch.cat([x for x, _ in parts]), torch.cat([y for _, y in parts]))
        for parts in zip(*shares, strict=True)
    ]
    assert_equal(batches, joined)


def test_files_give_the_same_batches_for_any_number_of_workers(
    files: Files, preprocess: Preprocess
) -> None:
    batches = take(5, files, preprocess, augment=EVERYTHING)
    assert_equal(batches, take(5, files, preprocess, augment=EVERYTHING, num_workers=3))
    resumed = take(2, files, preprocess, augment=EVERYTHING, num_workers=2, start_step=3)
    assert_equal(batches[3:], resumed)


def test_memory_and_files_show_the_same_views(tmp_path: Path) -> None:
    """Pictures in memory were resized once more, so pixels differ a little."""
    rows, columns = np.mgrid[0:60, 0:90]
    for number, name in enumerate(("a", "b")):
        for split in ("train", "test"):
            (tmp_path / split / name).mkdir(parents=True)
            pixels = np.stack([rows * 4, columns * 2, rows + columns + 50 * number], axis=2)
            picture = Image.fromarray(pixels.astype(np.uint8))
            picture.save(tmp_path / split / name / "picture.png")
            picture.rotate(90, expand=True).save(tmp_path / split / name / "turned.png")
    in_memory, on_disk = (
        data.load(tmp_path, size_px=SIZE, keep_whole=not stream, stream=stream).train
        for stream in (False, True)
    )
    preprocess = Preprocess.fit(in_memory, std="none")
    for policy in ("none", "trivial"):
        augment = PhotoAugment(crop_area=(0.25, 1.0), policy=policy)
        for (x, y), (other_x, other_y) in zip(
            take(4, in_memory, preprocess, augment=augment, batch_size=8),
            take(4, on_disk, preprocess, augment=augment, batch_size=8),
            strict=True,
        ):
            assert torch.equal(y, other_y)
            difference = (x - other_x).abs().mean(dim=(1, 2, 3)) * 255
            assert difference.median() < 3
            assert (x - other_x.flip(3)).abs().mean() * 255 > 20


def test_without_any_part_the_batches_are_those_of_the_paper(
    images: Images, preprocess: Preprocess
) -> None:
    plain = data.train_batches(images, preprocess, batch_size=6, seed=3, augment=Augment(pad_px=2))
    augment = replace(NOTHING, base=Augment(pad_px=2))
    assert_equal(list(islice(plain, 5)), take(5, images, preprocess, augment=augment))


def test_evaluation_sees_the_center_that_a_picture_file_has(
    images: Images, files: Files, preprocess: Preprocess
) -> None:
    """Keeping whole pictures does not change what a network is evaluated on."""
    for index in range(len(files)):
        assert np.array_equal(images.pixels[index].numpy(), preprocess.read(files.path(index)))
    assert images.whole_pictures is not None
    assert images.whole_pictures.pixels.shape[1] == 20
    part = images.subset(3, 7)
    assert part.whole_pictures is not None
    assert torch.equal(part.whole_pictures.pixels, images.whole_pictures.pixels[3:7])
    assert torch.equal(part.whole_pictures.shapes, images.whole_pictures.shapes[3:7])


@pytest.mark.parametrize("size", [(640, 480), (480, 640), (100, 100), (900, 100), (30, 400)])
def test_a_crop_lies_inside_and_has_its_area(size: tuple[int, int]) -> None:
    views = draw_views(PhotoAugment(crop_area=(0.25, 1.0)), 0, 0, torch.arange(500))
    exact = 0
    for view in views:
        box = view.crop_box(*size)
        assert box.x >= 0 and box.y >= 0
        assert box.x + box.width <= size[0] + 1e-9 and box.y + box.height <= size[1] + 1e-9
        assert box.width / box.height < 4 / 3 + 1e-9 or box.height == size[1]
        assert box.height / box.width < 4 / 3 + 1e-9 or box.width == size[0]
        share = box.width * box.height / size[0] / size[1]
        assert view.area is not None
        exact += math.isclose(share, view.area)
    if max(size) / min(size) <= 4 / 3:
        assert exact == 500


def test_draws_are_uniform_and_never_change() -> None:
    views = draw_views(EVERYTHING, 0, 0, torch.arange(7_000))
    counts = Counter(view.change for view in views)
    assert set(counts) == set(CHANGES)
    assert min(counts.values()) > 400
    assert max(counts.values()) < 600
    areas = [view.area for view in views if view.area is not None]
    assert np.mean(areas) == pytest.approx(0.625, abs=0.01)
    strengths = {round(30 * view.strength) for view in views}
    assert strengths == set(range(-30, 31))
    assert np.mean([view.erased is not None for view in views]) == pytest.approx(0.5, abs=0.02)
    for view in views:
        if view.erased is not None:
            x, y, width, height = view.erased
            assert x >= 0 and x + width <= 1 and y >= 0 and y + height <= 1
            assert 0.02 <= width * height <= 1 / 3 + 1e-9
    # Committed runs depend on these numbers.
    view = draw_views(EVERYTHING, seed=1, epoch=2, index=torch.tensor([3]))[0]
    assert (view.change, view.flip, view.strength) == ("contrast", False, 1 / 30)
    numbers = (view.area, view.ratio, view.column, view.row)
    assert numbers == pytest.approx((0.6867157461, 0.0704611074, 0.7295227142, 0.9300537738))


def test_every_image_is_shown_once_per_epoch() -> None:
    sequence = PhotoSequence(seed=0, num_images=10, augment=NOTHING)
    indices = [view.index for view in sequence.between(0, 35)]
    assert sorted(indices[:10]) == sorted(indices[10:20]) == list(range(10))
    assert indices[10:20] == [view.index for view in sequence.between(10, 20)]


def test_a_whole_crop_is_the_image_and_a_mirror_image_is_mirrored() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    whole = render(pixels, PhotoView(index=0, area=1.0), 8, fill=(0, 0, 0))
    assert np.array_equal(whole.numpy(), pixels)
    mirrored = render(pixels, PhotoView(index=0, area=1.0, flip=True), 8, fill=(0, 0, 0))
    assert np.array_equal(mirrored.numpy(), pixels[:, ::-1])


@pytest.mark.parametrize("change", ["shear_x", "shear_y", "translate_x", "translate_y", "rotate"])
def test_a_geometric_change_of_strength_zero_changes_nothing(change: str) -> None:
    """The way over `affine` gives the same pixels as the quick way."""
    pixels = np.random.default_rng(0).integers(0, 256, (12, 12, 3), dtype=np.uint8)
    view = PhotoView(index=0, area=1.0, flip=True, change=change)
    assert np.array_equal(render(pixels, view, 12, fill=(0, 0, 0)).numpy(), pixels[:, ::-1])
    moved = render(pixels, replace(view, strength=1.0), 12, fill=(9, 9, 9)).numpy()
    assert not np.array_equal(moved, pixels[:, ::-1])
    assert (moved == 9).all(axis=2).any()  # something outside of the picture is seen


def test_a_rotation_turns_the_crop_and_shows_what_lies_around_it() -> None:
    """A gray picture stays gray in a small crop: nothing outside of the picture is seen."""
    pixels = np.full((64, 64, 3), 200, np.uint8)
    view = PhotoView(index=0, area=0.2, column=0.5, row=0.5, change="rotate", strength=1 / 3)
    assert (render(pixels, view, 16, fill=(0, 0, 0)) == 200).all()
    pixels[:, :32] = 0  # black at the left: after a turn by 90 degrees it is above or below
    turned = render(pixels, replace(view, strength=90 / 135), 16, fill=(0, 0, 0)).float().mean(2)
    assert {int(turned[:6].mean()), int(turned[-6:].mean())} == {0, 200}
    assert torch.equal(turned[:, 0], turned[:, -1])


def test_large_pictures_are_reduced_before_they_are_turned() -> None:
    """Otherwise bilinear sampling would take single pixels of the pattern."""
    pixels = np.zeros((400, 400, 3), np.uint8)
    pixels[::2] = 255
    view = PhotoView(index=0, area=1.0, change="rotate", strength=0.0)
    rendered = render(pixels, view, 20, fill=(0, 0, 0)).float()
    assert (rendered - 127.5).abs().max() < 20


def test_affine_moves_whole_pixels_and_fills() -> None:
    pixels = torch.arange(16, dtype=torch.uint8).view(1, 4, 4, 1)
    one_column = torch.tensor([[[1.0, 0.0, 0.5], [0.0, 1.0, 0.0]]])
    moved = affine(pixels, one_column, 4, fill=torch.tensor([99.0]))
    assert torch.equal(moved[0, :, :3, 0], pixels[0, :, 1:, 0])
    assert (moved[0, :, 3] == 99).all()


def test_mixed_images_and_labels_agree(images: Images, preprocess: Preprocess) -> None:
    """With images of one color each, the mixture can be read from the pixels."""
    colors = torch.arange(6).view(6, 1, 1, 1) * 40.0
    x = colors.expand(6, SIZE, SIZE, 1).clone()
    labels = torch.arange(6)
    augment = PhotoAugment(mixup=0.4, cutmix=1.0, num_classes=6)
    kinds = set()
    for step in range(20):
        mixtures = draw_mixtures(augment, seed=0, step=step, first=0, num_pairs=3, size_px=SIZE)
        kinds |= {mixture.box is None for mixture in mixtures}
        mixed = mix_images(x.clone(), mixtures)
        targets = mix_labels(labels, mixtures, 6)
        assert targets.sum(1).allclose(torch.ones(6))
        assert mixed.mean(dim=(1, 2, 3)).allclose(targets @ colors.view(6), atol=1e-2)
    assert kinds == {True, False}


def test_the_last_image_of_an_odd_batch_has_no_partner() -> None:
    x, mixtures = torch.randn(3, 4, 4, 1), [Mixture(weight=0.25)]
    mixed = mix_images(x.clone(), mixtures)
    assert torch.equal(mixed[2], x[2])
    assert mixed[0].allclose(0.25 * x[0] + 0.75 * x[1], atol=1e-6)
    assert mix_labels(torch.tensor([0, 1, 1]), mixtures, 2).tolist() == [
        [0.25, 0.75],
        [0.75, 0.25],
        [0, 1],
    ]


def test_processes_that_would_cut_a_pair_are_refused(
    images: Images, preprocess: Preprocess
) -> None:
    with pytest.raises(DataError, match="set a multiple of 4"):
        take(1, images, preprocess, augment=EVERYTHING, share=(0, 2))
    with pytest.raises(ValueError, match="num_classes"):
        PhotoAugment(mixup=0.2)


def test_weights_are_those_of_the_beta_distribution() -> None:
    assert beta_quantile(1.0, 0.3) == pytest.approx(0.3)
    assert beta_quantile(0.2, 0.5) == pytest.approx(0.5)
    levels = (np.arange(2_000) + 0.5) / 2_000
    weights = np.array([beta_quantile(0.2, level) for level in levels])
    assert weights.var() == pytest.approx(0.25 / 1.4, rel=0.01)  # 1 / (4 (2 alpha + 1))


def test_erased_pixels_are_zero(images: Images, preprocess: Preprocess) -> None:
    augment = PhotoAugment(erase=1.0)
    x, _ = take(1, images, preprocess, augment=augment)[0]
    plain, _ = take(1, images, preprocess, augment=NOTHING)[0]
    erased = (x == 0) & (plain != 0)
    assert torch.equal(x[~erased], plain[~erased])
    shares = erased.all(dim=1).float().mean(dim=(1, 2))
    assert (shares > 0).all()
    assert (shares < 0.5).all()
