"""Images that cannot be read: left out, replaced, counted; refused only where they are too many."""

import pickle
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import pytest
import torch

from reslearn import data
from reslearn.data import Augment, DataError, Files, Jitter, Preprocess, image_batches
from reslearn.data.errors import PictureError
from reslearn.data.skipped import SkipLog, SkippedImage
from reslearn.evaluate import metrics_of_scores, scores, views

Make = Callable[..., Path]
SIZE = 12


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:200])


@pytest.fixture
def folder(make_pictures: Make, tmp_path: Path) -> Path:
    """Return a folder with two broken training images of 24 and one broken test image of 12."""
    make_pictures(tmp_path, train=8, test=4)
    cut(tmp_path / "train" / "red" / "0.jpg")
    (tmp_path / "train" / "blue" / "5.jpg").write_bytes(b"")
    cut(tmp_path / "test" / "green" / "0.jpg")
    return tmp_path


def test_in_memory_they_are_left_out_and_listed(folder: Path) -> None:
    with pytest.warns(UserWarning, match="cannot be read and are left out; the first is") as caught:
        dataset = data.load(folder, size_px=SIZE)
    lines = [str(warning.message) for warning in caught]
    assert [line.partition(" cannot")[0] for line in lines] == [
        "2 of 24 training images",
        "1 of 12 test images",
    ]
    assert (len(dataset.train), len(dataset.test)) == (22, 11)
    names = [str(image.path.relative_to(folder)) for image in dataset.skipped]
    assert names == ["test/green/0.jpg", "train/blue/5.jpg", "train/red/0.jpg"]
    assert dataset.skipped[1].reason == "the file is empty"
    record = dataset.skip_log.record()
    assert record["count"] == 3
    assert record["first"][1]["path"] == str(folder / "train/blue/5.jpg")


@pytest.mark.filterwarnings("ignore:.*are left out")
@pytest.mark.parametrize("kind", ["jitter", "augment"])
def test_streamed_they_are_replaced_by_the_next_of_the_epoch(folder: Path, kind: str) -> None:
    """The batches do not depend on workers or resuming, and contain the neighboring images."""
    files = data.load(folder, size_px=SIZE, stream=True).train
    assert isinstance(files, Files)
    preprocess = Preprocess.fit(files, mean="imagenet", std="imagenet")
    if kind == "jitter":
        augment: Jitter | Augment = Jitter.fit(files, shorter=(256, 480), flip=True, color=None)
    else:
        files = data.load(folder, size_px=SIZE, stream=True).train
        assert isinstance(files, Files)
        augment = Augment(pad_px=0)

    def batches(start_step: int = 0, num_workers: int = 0) -> list[tuple[torch.Tensor, ...]]:
        iterator = image_batches(
            source,
            preprocess,
            batch_size=6,
            seed=3,
            augment=augment,
            start_step=start_step,
            num_workers=num_workers,
        )
        return list(islice(iterator, 8 - start_step))

    source = files if kind == "jitter" else Squares(files)
    expected = batches()
    for start_step, num_workers in ((0, 2), (3, 0), (5, 1)):
        actual = batches(start_step, num_workers)
        for (x, y), (x_expected, y_expected) in zip(actual, expected[start_step:], strict=True):
            assert torch.equal(x, x_expected)
            assert torch.equal(y, y_expected)
    broken = [index for index in range(23) if files.path(index).name == "0.jpg"]
    broken = [index for index in broken if files.path(index).parent.name == "red"]
    order = data.permutation(3, 0, 23).tolist()
    position = order.index(broken[0])
    x = torch.cat([batch for batch, _ in expected])
    assert torch.equal(x[position], x[position + 1 if position < 22 else 0])
    assert [image.path for image in files.skip_log.images()][-1] == folder / "train/red/0.jpg"


@pytest.mark.filterwarnings("ignore:.*are left out")
def test_photo_batches_replace_them_too(folder: Path) -> None:
    files = data.load(folder, size_px=SIZE, stream=True).train
    assert isinstance(files, Files)
    preprocess = Preprocess.fit(files, mean="imagenet", std="imagenet")
    augment = data.PhotoAugment(crop_area=(0.25, 1.0))

    def batches(start_step: int, num_workers: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
        iterator = data.photo_batches(
            files,
            preprocess,
            augment=augment,
            batch_size=6,
            seed=3,
            start_step=start_step,
            num_workers=num_workers,
        )
        return list(islice(iterator, 8 - start_step))

    expected = batches(0, 1)
    for (x, y), (x_expected, y_expected) in zip(batches(3, 3), expected[3:], strict=True):
        assert torch.equal(x, x_expected)
        assert torch.equal(y, y_expected)
    broken = next(index for index in range(23) if files.path(index) in files.skip_log)
    position = data.permutation(3, 0, 23).tolist().index(broken)
    x, y = torch.cat([x for x, _ in expected]), torch.cat([y for _, y in expected])
    following = position + 1 if position < 22 else 0
    assert torch.equal(x[position], x[following])
    assert y[position] == y[following]


class Squares:
    """Pictures as a source of images of one size, as a user may write it."""

    def __init__(self, files: Files) -> None:
        self.files = files

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[object, int]:
        try:
            pixels = data.read_picture(self.files.path(index), SIZE)
        except PictureError as error:
            self.files.skip_log.add(SkippedImage(self.files.path(index), error.reason))
            raise
        return pixels, int(self.files.labels[index])


@pytest.mark.filterwarnings("ignore:.*are left out")
@pytest.mark.parametrize("protocol", ["single", "ten-crop", "multi-scale"])
def test_evaluation_leaves_them_out_of_the_mean(folder: Path, protocol: str) -> None:
    test = data.load(folder, size_px=SIZE, stream=True).test
    assert isinstance(test, Files)
    preprocess = Preprocess.fit(test, mean="per-channel")
    torch.manual_seed(0)
    network = torch.nn.Sequential(
        torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(3, 3)
    )

    def metrics(images: Files) -> data.ImageSet:
        batches = views(protocol, images, preprocess, batch_size=5)
        averages = scores(network, batches, num_images=len(images))
        return metrics_of_scores(averages, images.labels)

    everything = metrics(test)
    assert everything.num_images == 11
    readable = test.readable()
    assert len(readable) == 11
    assert metrics(readable) == everything


def test_more_than_half_or_a_whole_class_are_refused(make_pictures: Make, tmp_path: Path) -> None:
    make_pictures(tmp_path, train=6, test=4)
    for path in (tmp_path / "train" / "red").iterdir():
        path.write_text("no picture")
    with pytest.raises(
        DataError, match=r"^none of the 6 training images of class 'red' can be read, the first is"
    ):
        data.load(tmp_path, size_px=SIZE)
    (tmp_path / "train" / "red" / "good.jpg").write_bytes(
        (tmp_path / "train" / "blue" / "0.jpg").read_bytes()
    )
    for path in (*(tmp_path / "test" / "blue").iterdir(), *(tmp_path / "test" / "red").iterdir()):
        path.write_text("no picture")
    with (
        pytest.warns(UserWarning, match="6 of 19 training images"),
        pytest.raises(DataError, match=r"^8 of 12 test images cannot be read, more than half"),
    ):
        data.load(tmp_path, size_px=SIZE)
    streamed = data.load(tmp_path, size_px=SIZE, stream=True)
    with (
        pytest.warns(UserWarning, match="6 of 19 images"),
    ):
        preprocess = Preprocess.fit(streamed.train)
    with pytest.raises(DataError, match=r"^8 of 12 images of \S+ cannot be read, more than half"):
        list(data.eval_batches(streamed.test, preprocess))


def test_a_folder_of_nothing_readable_ends_a_streamed_training(
    make_pictures: Make, tmp_path: Path
) -> None:
    make_pictures(tmp_path, train=40, test=1)
    files = data.load(tmp_path, size_px=SIZE, stream=True).train
    assert isinstance(files, Files)
    preprocess = Preprocess.fit(files, mean="imagenet", std="imagenet")
    jitter = Jitter.fit(files, shorter=(256, 480), flip=True, color=None)
    for path in (tmp_path / "train").rglob("*.*"):
        path.write_text("no picture")
    batches = image_batches(files, preprocess, batch_size=2, seed=0, augment=jitter)
    with pytest.raises(DataError, match=r"^100 images in a row, or all of them, cannot be read"):
        next(batches)


def test_errors_and_logs_can_be_sent_between_processes() -> None:
    error = PictureError(Path("a.jpg"), "cut")
    copy = pickle.loads(pickle.dumps(error))
    assert (str(copy), copy.path, copy.reason) == (str(error), Path("a.jpg"), "cut")
    log = SkipLog([SkippedImage(Path("a.jpg"), "cut")])
    received = pickle.loads(pickle.dumps(log))
    received.add(SkippedImage(Path("b.jpg"), "cut"))
    assert (len(received), len(log), Path("a.jpg") in log) == (2, 1, True)
