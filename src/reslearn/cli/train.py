"""`reslearn train`: train one recipe into one run folder."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from reslearn.cli import interrupt
from reslearn.cli.options import DataDirOption, DeviceOption, JsonOption, ThreadsOption
from reslearn.cli.train_options import (
    BatchSizeOption,
    DataArgument,
    DownloadOption,
    DryRunOption,
    EpochsOption,
    InitEntryOption,
    InitOption,
    LearningRateOption,
    MinutesOption,
    ModelOption,
    OutOption,
    PartialOption,
    RecipeOption,
    ResumeOption,
    SeedOption,
    SetOption,
    TensorBoardOption,
    WorkersOption,
)
from reslearn.cli.train_output import print_plan, print_result
from reslearn.cli.train_recipe import (
    all_overrides,
    check_duration,
    check_resumable,
    check_unused,
    default_folder,
    default_recipe,
    fit_to_minutes,
    init_values,
    load_recipe,
    minutes_of,
    quoted,
    recorded_recipe,
)
from reslearn.terminal import print_lines

if TYPE_CHECKING:
    from reslearn.recipes import Recipe
    from reslearn.train import Machine

EXAMPLES = (
    "reslearn train digits --model resnet20 --out runs/digits",
    "reslearn train cifar10 --model resnet56 --recipe cifar-paper --set schedule.warm_up_lr=0.01",
    "reslearn train --resume --out runs/digits",
    "reslearn train photos --minutes 20",
    "reslearn train photos --init torchvision:resnet50 --set data.size_px=224",
)
# glibc's malloc reads these settings only when a process starts (LOG.md has the gain).
HUGE_PAGES = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}


def train(
    data: DataArgument = None,
    model: ModelOption = None,
    recipe: RecipeOption = None,
    set_: SetOption = None,
    epochs: EpochsOption = None,
    minutes: MinutesOption = None,
    batch_size: BatchSizeOption = None,
    lr: LearningRateOption = None,
    seed: SeedOption = None,
    init: InitOption = None,
    entry: InitEntryOption = None,
    partial: PartialOption = False,
    data_dir: DataDirOption = None,
    download: DownloadOption = False,
    out: OutOption = None,
    resume: ResumeOption = False,
    tensorboard: TensorBoardOption = False,
    device: DeviceOption = None,
    threads: ThreadsOption = None,
    workers: WorkersOption = None,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """Train one network and write a run folder.

    With a folder of photos alone, all settings are chosen for these photos and for 30 minutes.
    """
    _restart_with_huge_pages()
    began_at = time.monotonic()
    from reslearn.train import Machine, plan

    check_duration(minutes, epochs, set_ or [])
    origin = recipe or recorded_recipe(out, resume=resume) or default_recipe(data, data_dir)
    values = {
        "data.name": quoted(data),
        "model.name": quoted(model),
        "train.batch_size": batch_size,
        "optimizer.lr": lr,
        "seed": seed,
        **init_values(init, entry, partial=partial, set_=set_ or [], origin=origin),
    }
    overrides = all_overrides(values, set_ or [], epochs=epochs, origin=origin)
    if resume and recipe is None and not overrides:
        check_resumable(out)
    chosen = load_recipe(origin, overrides)
    machine = Machine(
        device=device, threads=threads, data_dir=data_dir, download=download, workers=workers
    )
    minutes = minutes_of(minutes, origin, overrides, dry_run=dry_run)
    end_at = None if minutes is None else began_at + 60 * minutes
    if minutes is not None and isinstance(origin, str):  # a run that has begun keeps its recipe
        check_unused(out, resume=resume)
        chosen, machine = fit_to_minutes(origin, overrides, machine, minutes, began_at)
    folder = out or default_folder(chosen, init=None if model or init == "none" else init)
    if dry_run:
        print_plan(plan(chosen, folder, machine, resume=resume), as_json=as_json)
        return
    output = {"tensorboard": tensorboard, "as_json": as_json}
    _train(chosen, folder, machine, resume=resume, end_at=end_at, **output)


def _restart_with_huge_pages() -> None:
    """Start this process over with huge pages for malloc, unless the user has own settings."""
    is_possible = sys.platform == "linux" and "torch" not in sys.modules
    if is_possible and not HUGE_PAGES.keys() & os.environ.keys():
        arguments = [sys.executable, *sys.orig_argv[1:]]
        interrupt.execve(sys.executable, arguments, {**os.environ, **HUGE_PAGES})


def _train(
    recipe: Recipe,
    folder: Path,
    machine: Machine,
    *,
    resume: bool,
    end_at: float | None,
    tensorboard: bool,
    as_json: bool,
) -> None:
    from reslearn.runs import RunFolder
    from reslearn.train import Interrupted, train_recipe
    from reslearn.train.distributed import is_first_process

    was_complete = RunFolder(folder).is_complete
    try:
        result = train_recipe(
            recipe,
            folder,
            machine,
            resume=resume,
            tensorboard=tensorboard,
            command=["reslearn", *sys.argv[1:]],
            end_at=end_at,
        )
    except Interrupted as stop:
        print_lines("", f"reslearn: {stop}", file=sys.stderr)
        raise typer.Exit(stop.exit_status) from None
    # Of many processes only the first prints.
    if is_first_process():
        if was_complete and not as_json:
            print("the run is already complete: nothing was trained")
        print_result(result, folder, as_json=as_json)
