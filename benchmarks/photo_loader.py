"""The speed of the whole data path: images per second from JPEG files to batches for a network.

Four paths make batches of random resized crops, half of them mirrored and normalized:

- files: our loader, which reads every file again in each epoch (`data.store = "disk"`);
- memory: our loader on pictures that were decoded once (`data.store = "memory"`);
- DataLoader: PIL and a torch DataLoader, as in torchvision's reference, with the same number of
  workers;
- decoding: the JPEG library alone, with the same number of threads, at the scale of our loader. It
  is the limit of a loader that reads files.

The paths take turns, round by round, so that other load of the machine affects all. The main
process has one thread, since the workers need the cores. Files are read once before, so the disk is
not measured. Medians are reported. On a machine with other load, compare the CPU time per image:
images per second then depend on how many processes and threads a path has.
"""

import contextlib
import math
import multiprocessing
import random
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from benchmarks.measuring import median_ratio, process_seconds
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from reslearn import data
from reslearn.data import Files, Preprocess, photo_batches
from reslearn.data.jpeg import decode_bytes
from reslearn.data.photo_views import PhotoAugment, PhotoSequence
from reslearn.progress import print_progress
from reslearn.train.numerics import keep_freed_memory

AREA = (0.25, 1.0)
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
AUGMENT = PhotoAugment(crop_area=AREA)


@dataclass(frozen=True, kw_only=True)
class PhotoRow:
    """One path from files to batches.

    Attributes:
        images_per_second: Median over the rounds.
        cpu_milliseconds: CPU time per image, of all threads and processes. None where the system
            does not report the CPU time of other processes.
        times_dataloader: Speed in units of the DataLoader's speed, median of the rounds.
        share_of_decoding_pct: Speed in percent of the decoding's speed, median of the rounds.
    """

    path: str
    workers: int
    batch_size: int
    size_px: int
    images_per_second: float
    cpu_milliseconds: float | None
    times_dataloader: float
    share_of_decoding_pct: float


def measure(
    folder: Path, *, workers: int, batch_size: int = 64, size_px: int = 224, rounds: int = 7
) -> list[PhotoRow]:
    """Time all paths on the training photos of `folder`."""
    train = data.load(folder, size_px=size_px, stream=True).train
    assert isinstance(train, Files)
    paths = _paths(folder, train, workers=workers, batch_size=batch_size)
    speeds: dict[str, list[float]] = {name: [] for name in paths}
    costs: dict[str, list[float]] = {name: [] for name in paths}
    for number in range(rounds):
        print_progress(f"round {number + 1} of {rounds}")
        for name, batches in paths.items():
            speed, cost = _timed(batches, batch_size, workers)
            speeds[name].append(speed)
            costs[name].append(cost)
    rows = []
    for name, values in speeds.items():
        ratios = {
            other: median_ratio(values, speeds[other]) for other in ("DataLoader", "decoding")
        }
        rows.append(
            PhotoRow(
                path=name,
                workers=workers,
                batch_size=batch_size,
                size_px=size_px,
                images_per_second=statistics.median(values),
                cpu_milliseconds=statistics.median(costs[name]) if Path("/proc").is_dir() else None,
                times_dataloader=ratios["DataLoader"],
                share_of_decoding_pct=100 * ratios["decoding"],
            )
        )
    return rows


def _paths(
    folder: Path, files: Files, *, workers: int, batch_size: int
) -> Mapping[str, Iterator[object]]:
    torch.set_num_threads(1)
    for index in range(len(files)):
        files.path(index).read_bytes()
    plain: DataLoader[tuple[Tensor, int]] = DataLoader(
        Photos(files),
        batch_size=batch_size,
        sampler=_endless_order(len(files)),
        num_workers=workers,
        persistent_workers=True,
    )
    plain_batches = iter(plain)  # its workers start now, with the usual settings of memory
    keep_freed_memory()  # as a training does
    preprocess = Preprocess.fit(files, mean="imagenet", std="imagenet")
    options: dict[str, Any] = {
        "augment": AUGMENT,
        "batch_size": batch_size,
        "seed": 0,
        "num_workers": workers,
    }
    in_memory = data.load(folder, size_px=files.size_px, keep_whole=True).train
    return {
        "files": photo_batches(files, preprocess, **options),
        "memory": photo_batches(in_memory, preprocess, **options),
        "DataLoader": plain_batches,
        "decoding": _decoding(files, workers=workers, batch_size=batch_size),
    }


def _timed(batches: Iterator[object], batch_size: int, workers: int) -> tuple[float, float]:
    """Return images per second and CPU milliseconds per image, after what was made ahead."""
    for _ in range(2 * workers + 2):
        next(batches)
    num_batches, seconds = 0, 0.0
    started, cpu_started = time.perf_counter(), _cpu_seconds()
    while num_batches < 6 or seconds < 1.0:
        next(batches)
        num_batches += 1
        seconds = time.perf_counter() - started
    num_images = num_batches * batch_size
    return num_images / seconds, 1e3 * (_cpu_seconds() - cpu_started) / num_images


def _cpu_seconds() -> float:
    """Return the CPU time of this process and of the workers of a DataLoader."""
    seconds = time.process_time()
    for worker in multiprocessing.active_children():
        with contextlib.suppress(OSError):
            seconds += process_seconds(worker.pid or 0)
    return seconds


def _endless_order(num_images: int) -> Iterator[int]:
    while True:
        yield from torch.randperm(num_images).tolist()


class Photos(Dataset[tuple[Tensor, int]]):
    """The plainest training set of photos: PIL, random resized crop, mirror image, normalize."""

    def __init__(self, files: Files) -> None:
        self.files = files
        self.mean = torch.tensor(MEAN).view(3, 1, 1)
        self.std = torch.tensor(STD).view(3, 1, 1)

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        with Image.open(self.files.path(index)) as image:
            photo = image.convert("RGB")
        size_px = self.files.size_px
        box = random_crop(*photo.size)
        photo = photo.crop(box).resize((size_px, size_px), Image.Resampling.BILINEAR)
        if random.random() < 0.5:
            photo = photo.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        x = torch.from_numpy(np.array(photo)).permute(2, 0, 1).contiguous().float().div_(255)
        return x.sub_(self.mean).div_(self.std), int(self.files.labels[index])


def random_crop(width: int, height: int) -> tuple[int, int, int, int]:
    """Return the box of torchvision's RandomResizedCrop."""
    for _ in range(10):
        area = random.uniform(*AREA) * width * height
        ratio = math.exp(random.uniform(math.log(3 / 4), math.log(4 / 3)))
        crop_width, crop_height = (
            round(math.sqrt(area * ratio)),
            round(math.sqrt(area / ratio)),
        )
        if crop_width <= width and crop_height <= height:
            break
    else:
        crop_width = crop_height = min(width, height)
    x, y = random.randint(0, width - crop_width), random.randint(0, height - crop_height)
    return x, y, x + crop_width, y + crop_height


def _decoding(files: Files, *, workers: int, batch_size: int) -> Iterator[None]:
    """Decode the files of each batch, at the scale of our loader, and drop the pixels."""
    sequence = PhotoSequence(seed=0, num_images=len(files), augment=AUGMENT)
    pool = ThreadPoolExecutor(workers)

    def decode(index: int, shorter_px: int) -> None:
        decode_bytes(files.path(index).read_bytes(), shorter_px)

    start = 0
    while True:
        views = sequence.between(start, start + batch_size)
        start += batch_size
        indices = [view.index for view in views]
        lengths = [2 * view.half_shorter_px(files.size_px) for view in views]
        for _ in pool.map(decode, indices, lengths):
            pass
        yield


def enlarge(folder: Path, destination: Path, *, megapixels: float, num_photos: int = 48) -> None:
    """Write some training photos of `folder`, enlarged as if by a phone, into class folders."""
    photos = data.load(folder, stream=True)
    assert isinstance(photos.train, Files)
    chosen = photos.train.evenly_spaced(num_photos)
    for index in range(len(chosen)):
        pixels, label = chosen[index]
        height, width = pixels.shape[:2]
        factor = math.sqrt(megapixels * 1e6 / (height * width))
        photo = Image.fromarray(pixels).resize(
            (round(width * factor), round(height * factor)), Image.Resampling.BICUBIC
        )
        for part in ("train", "test") if index < 2 * len(photos.classes) else ("train",):
            class_folder = destination / part / photos.classes[label]
            class_folder.mkdir(parents=True, exist_ok=True)
            photo.save(class_folder / f"{index}.jpg", quality=90)


def table(rows: Sequence[PhotoRow]) -> str:
    """Return the rows as text, one line each."""
    lines = []
    for row in rows:
        workers = f"{row.workers} worker{'s' * (row.workers > 1)}"
        lines.append(
            f"{row.path:10} {workers}: {row.images_per_second:7,.0f} images/s, "
            f"{row.cpu_milliseconds or math.nan:6.2f} ms of CPU per image, "
            f"{row.times_dataloader:5.2f} times the DataLoader, "
            f"{row.share_of_decoding_pct:5.0f} % of decoding alone"
        )
    return "\n".join(lines)
