"""`reslearn train`: train one recipe into one run folder."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from reslearn.cli import interrupt
from reslearn.cli.options import (
    DATA,
    MACHINE,
    OUTPUT,
    RECIPE,
    RUN,
    DataDirOption,
    DeviceOption,
    JsonOption,
    ThreadsOption,
)
from reslearn.cli.output import print_json
from reslearn.terminal import print_lines

if TYPE_CHECKING:
    from reslearn.recipes import Recipe
    from reslearn.runs import RunFolder
    from reslearn.train import Machine, Plan

EXAMPLES = (
    "reslearn train digits --model resnet20 --out runs/digits",
    "reslearn train cifar10 --model resnet56 --recipe cifar-paper --set schedule.warm_up_lr=0.01",
    "reslearn train --resume --out runs/digits",
    "reslearn train photos --init torchvision:resnet50 --set data.size_px=224",
)
# glibc's malloc reads these settings only when a process starts (LOG.md has the gain).
HUGE_PAGES = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}

DataArgument = Annotated[
    str | None,
    typer.Argument(
        help="A name of `reslearn list data`, or a folder of images. Default: the recipe's data."
    ),
]
ModelOption = Annotated[
    str | None,
    typer.Option(
        rich_help_panel=RECIPE, help="Train this network, a name of `reslearn list models`."
    ),
]
RecipeOption = Annotated[
    str | None,
    typer.Option(
        "--recipe",
        rich_help_panel=RECIPE,
        help="Start from this recipe: a name of `reslearn list recipes` or a .toml file. "
        "Default: digits for the digits, cifar-paper for other data.",
    ),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        rich_help_panel=RECIPE,
        help="Set a value of the recipe, as in optimizer.lr=0.2. May be repeated.",
    ),
]
EpochsOption = Annotated[
    float | None,
    typer.Option(
        rich_help_panel=RECIPE,
        help="Train for this many epochs, and move the milestones in proportion. "
        "Short for --set schedule.duration='N epochs'.",
    ),
]
BatchSizeOption = Annotated[
    int | None,
    typer.Option(
        "--batch-size",
        "-b",
        rich_help_panel=RECIPE,
        help="Use batches of this many images. Short for --set train.batch_size=N.",
    ),
]
LearningRateOption = Annotated[
    float | None,
    typer.Option(
        rich_help_panel=RECIPE,
        help="Use this learning rate. Short for --set optimizer.lr=X.",
    ),
]
SeedOption = Annotated[
    int | None,
    typer.Option(rich_help_panel=RECIPE, help="Use this seed. Short for --set seed=N."),
]
InitOption = Annotated[
    str | None,
    typer.Option(
        rich_help_panel=RECIPE,
        help="Start from these weights: a file, torchvision:NAME, timm:NAME or an address.",
    ),
]
PartialOption = Annotated[
    bool,
    typer.Option(
        "--partial",
        rich_help_panel=RECIPE,
        help="With --init, skip tensors that do not match, and list them.",
    ),
]
DownloadOption = Annotated[
    bool,
    typer.Option("--download", rich_help_panel=DATA, help="Download the data set if missing."),
]
OutOption = Annotated[
    Path | None,
    typer.Option(
        rich_help_panel=RUN,
        help="Write the run to this folder. Default: runs/NAME, from model, data and recipe.",
    ),
]
ResumeOption = Annotated[
    bool,
    typer.Option(
        "--resume",
        rich_help_panel=RUN,
        help="Continue the run in the folder where it stopped, or start it if there is none.",
    ),
]
TensorBoardOption = Annotated[
    bool,
    typer.Option(
        "--tensorboard",
        rich_help_panel=RUN,
        help="Write TensorBoard files into the run folder too.",
    ),
]
WorkersOption = Annotated[
    int | None,
    typer.Option(
        "-j",
        "--workers",
        min=0,
        rich_help_panel=MACHINE,
        help="Read images in this many processes. Default: all cores.",
    ),
]
DryRunOption = Annotated[
    bool,
    typer.Option(
        "--dry-run",
        rich_help_panel=OUTPUT,
        help="Report the memory and minutes that the training needs, and write nothing.",
    ),
]


def train(
    data: DataArgument = None,
    model: ModelOption = None,
    recipe: RecipeOption = None,
    set_: SetOption = None,
    epochs: EpochsOption = None,
    batch_size: BatchSizeOption = None,
    lr: LearningRateOption = None,
    seed: SeedOption = None,
    init: InitOption = None,
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

    The run can be resumed (--resume), evaluated, analyzed and reported from its folder.
    """
    _restart_with_huge_pages()
    from reslearn.train import Machine, plan
    from reslearn.train.distributed import is_distributed

    if epochs is not None and not 0 < epochs < float("inf"):
        raise ValueError(f"--epochs {epochs:g}: a number above 0 is needed")
    origin = recipe or _recorded_recipe(out, resume=resume) or _default_recipe(data)
    values = {
        "data.name": _quoted(data),
        "model.name": _quoted(model),
        "train.batch_size": batch_size,
        "optimizer.lr": lr,
        "seed": seed,
        "init.source": _quoted(init),
        "init.partial": "true" if partial else None,
    }
    overrides = _overrides(values)
    # The schedule is that of the whole command line, and --set has the last word.
    epoch_values = _epoch_values(epochs, origin=origin, overrides=[*overrides, *(set_ or [])])
    overrides += [*_overrides(epoch_values), *(set_ or [])]
    if resume and recipe is None and not overrides:
        _check_resumable(out)
    chosen = _load_recipe(origin, overrides)
    folder = out or _default_folder(chosen, init=init if model is None else None)
    machine = Machine(
        device=device, threads=threads, data_dir=data_dir, download=download, workers=workers
    )
    if not dry_run:
        _train(chosen, folder, machine, resume=resume, tensorboard=tensorboard, as_json=as_json)
        return
    if is_distributed():
        raise ValueError("--dry-run plans for one process: run it without torchrun")
    _print_plan(plan(chosen, folder, machine, resume=resume), as_json=as_json)


def _overrides(values: dict[str, Any]) -> list[str]:
    """Return the values that are set as overrides of a recipe."""
    return [f"{key}={value}" for key, value in values.items() if value is not None]


def _restart_with_huge_pages() -> None:
    """Start this process over with huge pages for malloc, unless the user has own settings."""
    is_possible = sys.platform == "linux" and "torch" not in sys.modules
    if is_possible and not HUGE_PAGES.keys() & os.environ.keys():
        arguments = [sys.executable, *sys.orig_argv[1:]]
        interrupt.execve(sys.executable, arguments, {**os.environ, **HUGE_PAGES})


def _recorded_recipe(out: Path | None, *, resume: bool) -> RunFolder | None:
    """Return the run folder whose recipe is the start with --resume, if there is one."""
    from reslearn.runs import RunFolder

    if not resume or out is None:
        return None
    folder = RunFolder(out)
    return folder if folder.exists() else None


def _load_recipe(origin: str | RunFolder, overrides: list[str]) -> Recipe:
    """Return the recipe of a name, a file or a run folder, with `overrides` applied."""
    from reslearn import recipes

    if isinstance(origin, str):
        return recipes.load(origin, overrides=overrides)
    source = str(origin.path / "recipe.json")
    return recipes.from_dict(origin.recipe, source=source, overrides=overrides)


def _check_resumable(out: Path | None) -> None:
    """Raise ValueError unless a run folder is given, as --resume without a recipe needs it."""
    from reslearn.runs import RunFolder

    if out is None:
        raise ValueError(
            "--resume needs a run folder, as in: reslearn train --resume --out runs/digits"
        )
    if not RunFolder(out).exists():
        raise ValueError(
            f"{out} holds nothing to resume: name the data to start with, as in: "
            f"reslearn train digits --resume --out {out}"
        )


def _default_recipe(data: str | None) -> str:
    return "digits" if data == "digits" else "cifar-paper"


def _default_folder(recipe: Recipe, *, init: str | None) -> Path:
    """Name the run after its model, data and recipe.

    With `init` the network is known only once its weights are read, so they give the name.
    """
    from reslearn.recipes import recipe_hash

    network = recipe.model.name
    if init is not None:
        network = f"from-{Path(init.rpartition(':')[2]).stem}"
    return Path("runs") / f"{network}-{Path(recipe.data.name).name}-{recipe_hash(recipe.to_dict())}"


def _epoch_values(
    epochs: float | None, *, origin: str | RunFolder, overrides: list[str]
) -> dict[str, str | None]:
    """Return the recipe values that `--epochs` sets.

    Milestones keep their fraction of the duration if both have the same unit.
    """
    import json

    from reslearn import recipes

    if epochs is None:
        return {}
    values: dict[str, str | None] = {"schedule.duration": json.dumps(f"{epochs:.10g} epochs")}
    schedule = _load_recipe(origin, overrides).schedule
    if not isinstance(schedule, recipes.Stepwise):
        return values
    duration = schedule.duration
    if all(milestone.unit == duration.unit for milestone in schedule.milestones):
        milestones = []
        for milestone in schedule.milestones:
            milestones.append(f"{epochs * milestone.amount / duration.amount:.10g} epochs")
        values["schedule.milestones"] = json.dumps(milestones)
    return values


def _quoted(text: str | None) -> str | None:
    """Write a text as in TOML, so that a folder called 2015 is not a number."""
    import json

    if text is None:
        return None
    # TOML wants the escape of DEL, which JSON does not write, and refuses surrogate pairs.
    return json.dumps(text, ensure_ascii=False).replace("\x7f", r"\u007f")


def _train(
    recipe: Recipe,
    folder: Path,
    machine: Machine,
    *,
    resume: bool,
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
        )
    except Interrupted as stop:
        print_lines("", f"reslearn: {stop}", file=sys.stderr)
        raise typer.Exit(stop.exit_status) from None
    # Of many processes only the first prints.
    if is_first_process():
        if was_complete and not as_json:
            print("the run is already complete: nothing was trained")
        _print_result(result, folder, as_json=as_json)


def _print_result(result: dict[str, Any], folder: Path, *, as_json: bool) -> None:
    import shlex

    if as_json:
        print_json({"out": str(folder), **result})
        return
    print(
        f"test error {result['test_top1_error_pct']:.2f} %, "
        f"training error {result['train_top1_error_pct']:.2f} % (clean images) "
        f"after {result['epochs']:.4g} epochs, {result['seconds']:.0f} s"
    )
    print_lines(folder, f"write its page: reslearn report {shlex.quote(str(folder))}")


def _print_plan(plan: Plan, *, as_json: bool) -> None:
    from dataclasses import asdict

    if as_json:
        print_json(asdict(plan))
        return
    begin = f"resume at step {plan.begins_at_step:,}" if plan.begins_at_step else "begin"
    time = "unknown, since a step needs more memory than is free"
    if plan.minutes is not None:
        time = _duration_text(plan.minutes)
    numerics = plan.numerics
    measured = ", measured without the compilation of the real run" if numerics.compiled else ""
    if 0 < plan.timed_images < plan.batch_size:
        measured += f", estimated from steps of {plan.timed_images} images"
    print_lines(
        f"would {begin} in {plan.out}: {plan.steps:,} steps, {plan.epochs:.4g} epochs",
        f"{plan.parameters:,} parameters, {plan.macs:,} multiply-adds per image",
        f"memory in addition to torch: {plan.memory_mib:,.0f} MiB "
        f"(weights, gradients, momentum {plan.weights_mib:,.0f}; "
        f"activations {plan.activations_mib:,.0f}; images {plan.images_mib:,.0f})",
        f"time: {time} "
        f"({numerics.device}, {numerics.precision}, {numerics.threads} threads{measured})",
        "nothing was written",
    )


def _duration_text(minutes: float) -> str:
    return f"about {minutes:.1f} minutes" if minutes < 60 else f"about {minutes / 60:,.1f} hours"
