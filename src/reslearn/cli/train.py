"""`reslearn train`: one recipe, one run folder."""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from reslearn.recipes import Recipe
    from reslearn.train import Plan

EXAMPLES = (
    "reslearn train digits --model resnet20 --out runs/digits",
    "reslearn train cifar10 --model resnet56 --recipe cifar-paper --set schedule.warm_up_lr=0.01",
    "reslearn train --resume --out runs/digits",
    "reslearn train photos --init torchvision:resnet50 --set data.size_px=224",
)
# glibc's malloc reads its settings at start-up only (worth: LOG.md).
HUGE_PAGES = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}


def train(
    data: Annotated[
        str | None,
        typer.Argument(
            help="digits, cifar10, cifar100 or a folder of images; default: the recipe's."
        ),
    ] = None,
    model: Annotated[str | None, typer.Option(help="A name of `reslearn list models`.")] = None,
    recipe: Annotated[
        str | None,
        typer.Option(
            help="A name of `reslearn list recipes`, or .toml; default: digits or cifar-paper."
        ),
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set", help="A value of the recipe, as in optimizer.lr=0.2; may be repeated."
        ),
    ] = None,
    epochs: Annotated[
        float | None,
        typer.Option(
            help="Short for --set schedule.duration='N epochs', milestones in proportion."
        ),
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option("--batch-size", "-b", help="Short for --set train.batch_size=N.")
    ] = None,
    lr: Annotated[float | None, typer.Option(help="Short for --set optimizer.lr=X.")] = None,
    seed: Annotated[int | None, typer.Option(help="Short for --set seed=N.")] = None,
    init: Annotated[
        str | None,
        typer.Option(
            help="Weights to start from: a file, torchvision:NAME, timm:NAME or an address."
        ),
    ] = None,
    partial: Annotated[
        bool,
        typer.Option(
            "--partial", help="With --init: go on where tensors do not match, and list them."
        ),
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(help="The run folder; default: runs/NAME, from model, data and recipe."),
    ] = None,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume", help="Go on where the folder stopped; start where there is nothing yet."
        ),
    ] = False,
    device: Annotated[
        str | None, typer.Option(help="cpu, cuda or cuda:N; default: CUDA where there is one.")
    ] = None,
    threads: Annotated[
        int | None, typer.Option(min=1, help="CPU threads; default: all cores.")
    ] = None,
    data_dir: Annotated[
        Path | None,
        typer.Option(help="Where data sets lie; default: RESLEARN_DATA, then the cache."),
    ] = None,
    download: Annotated[
        bool, typer.Option("--download", help="Fetch the data set where it is absent.")
    ] = False,
    workers: Annotated[
        int | None,
        typer.Option(
            "-j", "--workers", min=0, help="Processes to read pictures; default: all cores."
        ),
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run", help="Say what it would take, in memory and minutes, and write nothing."
        ),
    ] = False,
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", help="Write TensorBoard files into the run folder too.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Train one network and write a run folder that can be resumed, evaluated and reported."""
    _huge_pages()
    from reslearn import recipes
    from reslearn.train import Interrupted, Machine, plan, train_recipe
    from reslearn.train.distributed import are_many, is_first

    short = {
        "data.name": _quoted(data),
        "model.name": _quoted(model),
        **_lasting(epochs, recipe=recipe or _usual(data), overrides=set_ or []),
        "train.batch_size": batch_size,
        "optimizer.lr": lr,
        "seed": seed,
        "init.source": _quoted(init),
        "init.partial": "true" if partial else None,
    }
    overrides = [f"{key}={value}" for key, value in short.items() if value is not None] + (
        set_ or []
    )
    chosen = _recipe(out, data=data, recipe=recipe, overrides=overrides, resume=resume)
    if out is None:
        # Of which network the weights of --init are is known only once they are read.
        net = (
            chosen.model.name
            if init is None or model
            else f"from-{Path(init.rpartition(':')[2]).stem}"
        )
        out = (
            Path("runs")
            / f"{net}-{Path(chosen.data.name).name}-{recipes.recipe_hash(chosen.to_dict())}"
        )
    machine = Machine(
        device=device, threads=threads, data_dir=data_dir, download=download, workers=workers
    )
    if dry_run:
        if are_many():
            raise ValueError("--dry-run plans for one process: leave torchrun out")
        _print_plan(plan(chosen, out, machine, resume=resume), as_json=as_json)
        return
    try:
        result = train_recipe(
            chosen,
            out,
            machine,
            resume=resume,
            tensorboard=tensorboard,
            command=["reslearn", *sys.argv[1:]],
        )
    except Interrupted as stop:
        print(f"\nreslearn: {stop}", file=sys.stderr)
        raise typer.Exit(stop.exit_status) from None
    if is_first():  # of many processes one speaks
        _print_result(result, out, as_json=as_json)


def _recipe(
    out: Path | None, *, data: str | None, recipe: str | None, overrides: list[str], resume: bool
) -> "Recipe":
    """The folder's own recipe where nothing but the folder is named, else the recipe that the flags make."""
    from reslearn import recipes
    from reslearn.runs import RunFolder

    if resume and out is None and data is None and recipe is None and not overrides:
        raise ValueError(
            "--resume needs to know what: name the folder, as in: reslearn train --resume --out runs/digits"
        )
    folder = RunFolder(out) if out is not None else None
    if resume and folder is not None and recipe is None and not overrides:
        if not folder.exists():
            raise ValueError(
                f"{out} holds nothing to resume: name the data to start with, as in: reslearn train digits --resume --out ..."
            )
        return recipes.from_dict(folder.recipe, source=str(folder.path / "recipe.json"))
    return recipes.load(recipe or _usual(data), overrides=overrides)


def _usual(data: str | None) -> str:
    return "digits" if data == "digits" else "cifar-paper"


def _lasting(epochs: float | None, *, recipe: str, overrides: list[str]) -> dict[str, str]:
    """What `--epochs` stands for: milestones keep their share of the duration where they are told in its unit."""
    import json
    import math

    from reslearn import recipes

    if epochs is None:
        return {}
    meant = {"schedule.duration": json.dumps(f"{epochs:.10g} epochs")}
    schedule = recipes.load(recipe, overrides=overrides).schedule
    can_be = math.isfinite(epochs) and epochs > 0
    if (
        can_be
        and isinstance(schedule, recipes.Stepwise)
        and {one.unit for one in schedule.milestones} <= {schedule.duration.unit}
    ):
        moved = [
            f"{epochs * one.amount / schedule.duration.amount:.10g} epochs"
            for one in schedule.milestones
        ]
        meant["schedule.milestones"] = json.dumps(moved)
    return meant


def _quoted(text: str | None) -> str | None:
    """A text as TOML writes it, so that a folder called 2015 is no number."""
    import json

    return None if text is None else json.dumps(text, ensure_ascii=False)


def _print_result(result: dict[str, Any], out: Path, *, as_json: bool) -> None:
    import json
    import shlex

    if as_json:
        print(json.dumps({"out": str(out), **result}))
        return
    print(
        f"test error {result['test_top1_error_pct']:.2f} %, training error {result['train_top1_error_pct']:.2f} % "
        f"(clean images) after {result['epochs']:.4g} epochs, {result['seconds']:.0f} s\n{out}\n"
        f"a page of it: reslearn report {shlex.quote(str(out))}"
    )


def _print_plan(planned: "Plan", *, as_json: bool) -> None:
    import json
    from dataclasses import asdict

    if as_json:
        print(json.dumps(asdict(planned)))
        return
    begin = "begin" if not planned.begins_at_step else f"go on at step {planned.begins_at_step:,}"
    compiled = (
        ", without the compilation that this run would get" if planned.numerics.compiled else ""
    )
    timed = (
        "not timed, since a step needs more memory than is free"
        if planned.minutes is None
        else _spoken(planned.minutes)
    )
    print(
        f"would {begin} in {planned.out}: {planned.steps:,} steps, {planned.epochs:.4g} epochs\n"
        f"{planned.parameters:,} parameters, {planned.macs:,} multiply-adds an image\n"
        f"memory, beside torch itself: {planned.memory_mib:,.0f} MiB (weights, gradients, momentum {planned.weights_mib:,.0f}; "
        f"activations {planned.activations_mib:,.0f}; images {planned.images_mib:,.0f})\n"
        f"time: {timed} ({planned.numerics.device}, {planned.numerics.precision}, {planned.numerics.threads} threads{compiled})\n"
        "nothing was written"
    )


def _spoken(minutes: float) -> str:
    return f"about {minutes:.1f} minutes" if minutes < 60 else f"about {minutes / 60:,.1f} hours"


def _huge_pages() -> None:
    """Start over with huge pages for malloc, unless the user has settings of their own."""
    if (
        sys.platform == "linux"
        and not HUGE_PAGES.keys() & os.environ.keys()
        and "torch" not in sys.modules
    ):
        os.environ.update(HUGE_PAGES)
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
