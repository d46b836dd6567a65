"""Survey a folder: list it, examine every picture on all cores, search copies, and judge.

The records of the pictures are written to temporary files, so memory grows by about 300 bytes
per picture: listing, digests and hashes.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor, Executor, Future
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from reslearn.progress import progress_bar
from reslearn.survey.advice import Advice, advise
from reslearn.survey.copies import Candidates, Copies, find_copies
from reslearn.survey.examine import Examination, Flag, examine_files
from reslearn.survey.facts import (
    FolderFacts,
    OddFiles,
    choose_examples,
    count_images,
    count_values,
    find_odd_files,
    lost_shares,
    measure_shapes,
    measure_sizes,
    predict_from_form,
    shorter_sides,
    split_indices,
    split_names,
)
from reslearn.survey.finding import Finding
from reslearn.survey.findings import judge
from reslearn.survey.near import SMALL_PX
from reslearn.survey.records import Records

if TYPE_CHECKING:
    from reslearn.data.listing import Listing

MIN_IMAGES_FOR_POOL = 300
"""Fewer pictures are examined before worker processes have started."""
_FILES_PER_TASK = 32
_TASKS_PER_CORE = 4
_EXAMPLES_PER_CLASS = 6
_EXAMPLES_OF_CROPS = 12
_LARGE_LOSS = 1 / 3


@dataclass(frozen=True, kw_only=True)
class Survey:
    """The result for a folder.

    Attributes:
        findings: What is wrong or odd, the most serious first.
        advice: How to train on these images, with reasons.
    """

    facts: FolderFacts
    findings: tuple[Finding, ...]
    advice: tuple[Advice, ...]
    seconds: float


def survey_folder(
    folder: Path | str, *, start_pool: Callable[[], Executor] | None = None
) -> Survey:
    """Examine every image of a folder, or of a CSV file of path and label.

    Args:
        start_pool: Starts worker processes for a folder with many pictures. Its result is a context
            manager. Without it this process does the work.

    Raises:
        DataError: If the folder has no pictures or cannot be read.
    """
    start_time = time.monotonic()
    listing, problem, is_drawn = _list(Path(folder))
    with Records() as records:
        _examine_all(listing, records, start_pool)
        facts = _measure(listing, records, problem=problem, is_drawn=is_drawn)
    return Survey(
        facts=facts,
        findings=judge(facts),
        advice=advise(facts),
        seconds=time.monotonic() - start_time,
    )


def _list(folder: Path) -> tuple[Listing, str, bool]:
    """Return the images with their splits, why training refuses them, and if splits are drawn."""
    from reslearn.data.content_split import assign_splits
    from reslearn.data.errors import DataError
    from reslearn.data.layout import check_layout
    from reslearn.data.listing import list_images

    listed = list_images(folder)
    problem = ""
    try:
        check_layout(listed)
        listing = assign_splits(listed)
    except DataError as error:
        listing, problem = listed, str(error)
    return listing, problem, listing.splits != listed.splits


def _examine_all(
    listing: Listing, records: Records, start_pool: Callable[[], Executor] | None
) -> None:
    with progress_bar(
        f"examining {listing.folder.resolve().name}", len(listing), after_seconds=2.0
    ) as advance:
        if start_pool is None or len(listing) < MIN_IMAGES_FOR_POOL:
            examinations: Iterator[Examination] = map(examine_files, _tasks(listing))
            for examination in examinations:
                records.append(examination)
                advance(len(examination.records))
            return
        with start_pool() as pool:
            for examination in _map_in_order(pool, _tasks(listing)):
                records.append(examination)
                advance(len(examination.records))


def _tasks(listing: Listing) -> Iterator[list[str]]:
    """Yield the paths of all images in lists of equal length."""
    for start in range(0, len(listing), _FILES_PER_TASK):
        stop = min(start + _FILES_PER_TASK, len(listing))
        yield [os.path.join(listing.folder, listing.name(row)) for row in range(start, stop)]


def _map_in_order(pool: Executor, tasks: Iterator[list[str]]) -> Iterator[Examination]:
    """Yield the examination of each task, in order, with a bounded number ahead."""
    from reslearn.data.errors import DataError

    num_ahead = _TASKS_PER_CORE * (os.cpu_count() or 1)
    pending: deque[tuple[Future[Examination], str]] = deque()
    try:
        for paths in tasks:
            pending.append((pool.submit(examine_files, paths), paths[0]))
            if len(pending) > num_ahead:
                yield pending[0][0].result()
                pending.popleft()
        while pending:
            yield pending[0][0].result()
            pending.popleft()
    except BrokenExecutor:
        raise DataError(
            f"a worker process ended while it read {pending[0][1]} or one of the next "
            f"{_FILES_PER_TASK} files: find and remove the file that ends it, with --workers 1"
        ) from None
    finally:
        # Not `future.cancel()`: if Ctrl-C has ended the workers too, the pool prints a traceback.
        pool.shutdown(wait=False, cancel_futures=True)


def _measure(listing: Listing, records: Records, *, problem: str, is_drawn: bool) -> FolderFacts:
    table = records.table()
    is_readable = (table["flags"] & Flag.UNREADABLE) == 0
    rows = np.flatnonzero(is_readable)
    readable, labels = table[rows], listing.labels[rows]
    lost = lost_shares(readable)
    unreadable_labels = listing.labels[~is_readable]
    return FolderFacts(
        folder=listing.folder,
        listing=listing,
        layout_problem=problem,
        is_drawn=is_drawn,
        num_files=len(listing),
        num_images=len(rows),
        counts=count_images(listing, is_readable),
        unreadable=dict(records.reasons),
        num_unreadable=len(listing) - len(rows),
        unreadable_of_class=_count_labels(unreadable_labels, listing.classes),
        sizes=measure_sizes(readable),
        formats=count_values(readable["format"]),
        modes=count_values(readable["mode"]),
        odd=find_odd_files(table),
        shapes=measure_shapes(lost),
        lost_pct=100 * float(np.median(lost)) if len(lost) else 0.0,
        cropped=OddFiles(
            count=int((lost > _LARGE_LOSS).sum()),
            rows=tuple(rows[np.argsort(-lost, kind="stable")[:_EXAMPLES_OF_CROPS]].tolist()),
        ),
        smallest=int(rows[np.argmin(shorter_sides(readable))]) if len(rows) else 0,
        forms=predict_from_form(readable, labels, len(listing.classes)),
        copies=_find_copies(listing, records, rows),
        examples=choose_examples(listing, is_readable, _EXAMPLES_PER_CLASS),
    )


def _find_copies(listing: Listing, records: Records, rows: npt.NDArray[np.int64]) -> Copies:
    table = records.table()
    pictures = Candidates(
        rows=rows,
        content=table["content"][rows],
        hashes=table["hash"][rows],
        is_flat=(table["flags"][rows] & Flag.FLAT) != 0,
        is_small=shorter_sides(table[rows]) <= SMALL_PX,
        labels=listing.labels[rows],
        splits=split_indices(listing)[rows],
        tiny=records.tiny(),
    )
    return find_copies(pictures, split_names(listing))


def _count_labels(labels: npt.NDArray[np.int64], classes: tuple[str, ...]) -> dict[str, int]:
    numbers: list[Any] = np.bincount(labels, minlength=len(classes)).tolist()
    return {name: number for name, number in zip(classes, numbers, strict=True) if number}
