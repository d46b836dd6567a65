"""`reslearn bench load`: how fast images become batches here."""

import os
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer

from reslearn.cli.bench import WHAT, import_benchmark, print_rows
from reslearn.cli.options import MACHINE, JsonOption
from reslearn.progress import print_progress

EXAMPLES = (
    "reslearn bench load",
    "reslearn bench load --threads 1,2 --json",
    "reslearn bench load photos/",
    "reslearn bench load photos/ --workers 2 --size-px 128 --megapixels 12",
)

Folder = Annotated[
    Path | None,
    typer.Argument(
        help="A folder of photos, as for `reslearn train`. Without it, synthetic images of CIFAR's "
        "shape are loaded from memory.",
        metavar="[FOLDER]",
    ),
]
BatchSize = Annotated[
    int | None,
    typer.Option(
        "--batch-size",
        "-b",
        min=1,
        help="Use this number of images per batch. The default is 128, and 64 for photos.",
        rich_help_panel=WHAT,
    ),
]
SizePx = Annotated[
    int,
    typer.Option("--size-px", min=2, help="Side of the crops of photos.", rich_help_panel=WHAT),
]
Megapixels = Annotated[
    float | None,
    typer.Option(
        min=0.01,
        help="Enlarge 48 of the photos to this size first, as a phone takes them.",
        rich_help_panel=WHAT,
    ),
]
Rounds = Annotated[
    int,
    typer.Option(
        min=1,
        help="Run this number of rounds on photos. In each, every path has its turn.",
        rich_help_panel=WHAT,
    ),
]
ThreadCounts = Annotated[
    str | None,
    typer.Option(
        help="Without photos: measure with these numbers of CPU threads, separated by commas. The "
        "default is all cores.",
        rich_help_panel=MACHINE,
    ),
]
Workers = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Number of workers that read photos. The default is one per core.",
        rich_help_panel=MACHINE,
    ),
]


def load(
    folder: Folder = None,
    batch_size: BatchSize = None,
    size_px: SizePx = 224,
    megapixels: Megapixels = None,
    rounds: Rounds = 7,
    threads: ThreadCounts = None,
    workers: Workers = None,
    as_json: JsonOption = False,
) -> None:
    """Measure how fast images become batches.

    With a folder of photos, the whole path from JPEG files to batches is measured beside PIL with a
    torch DataLoader, and beside the JPEG library alone. Without it, the benchmark measures the
    loaders of small images, and their share of a step of resnet20.
    """
    if folder is None:
        _measure_small_images(threads, batch_size or 128, as_json=as_json)
        return
    if not folder.is_dir():
        raise ValueError(f"{folder} is no folder: name a folder of photos")
    bench = import_benchmark("photo_loader")
    options = {
        "workers": workers or os.cpu_count() or 1,
        "batch_size": batch_size or 64,
        "size_px": size_px,
        "rounds": rounds,
    }
    if megapixels is None:
        print_rows(bench, bench.measure(folder, **options), as_json)
        return
    with TemporaryDirectory() as enlarged:
        print_progress(f"enlarging photos to {megapixels:g} megapixels")
        bench.enlarge(folder, Path(enlarged), megapixels=megapixels)
        print_rows(bench, bench.measure(Path(enlarged), **options), as_json)


def _measure_small_images(threads: str | None, batch_size: int, *, as_json: bool) -> None:
    bench = import_benchmark("loader")
    import torch

    counts = [torch.get_num_threads()]
    if threads is not None:
        counts = [_thread_count(word) for word in threads.split(",")]
    rows = []
    for count in counts:
        rows += bench.measure(threads=count, batch_size=batch_size)
    print_rows(bench, rows, as_json)


def _thread_count(word: str) -> int:
    if not word.isdecimal() or int(word) < 1:
        raise ValueError(
            f"--threads {word}: give numbers of threads, separated by commas, as in 1,2"
        )
    return int(word)
