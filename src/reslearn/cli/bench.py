"""`reslearn bench`: how fast training and loading are here, how often a diagnosis errs. Runs benchmarks/ of a source checkout."""

import importlib
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from reslearn.progress import print_progress

TRAIN_EXAMPLES = (
    "reslearn bench train",
    "reslearn bench train --models resnet20 --repeats 9 --json",
    "reslearn bench train --models resnet20 --parts",
    "reslearn bench train --models resnet50 --batch-size 256 --against torchvision,torchvision-compiled",
)
LOAD_EXAMPLES = ("reslearn bench load", "reslearn bench load --threads 1,2 --json")
STUDY_EXAMPLES = (
    "reslearn bench study",
    "reslearn bench study --models resnet8,resnet20 --seeds 4 --epochs 20 --json",
)
DIAGNOSE_EXAMPLES = (
    "reslearn bench diagnose",
    "reslearn bench diagnose --half tuning --only 'mlp*' --json",
    "reslearn bench diagnose --truth",
)


def train(
    models: Annotated[
        str, typer.Option(help="Networks, separated by commas.")
    ] = "resnet20,resnet56,resnet50",
    repeats: Annotated[
        int, typer.Option(min=1, help="Rounds in which each loop trains for three seconds.")
    ] = 7,
    parts: Annotated[
        bool,
        typer.Option("--parts", help="Also our step without bf16, without compilation, and so on."),
    ] = False,
    against: Annotated[
        str,
        typer.Option(
            help="Rivals: plain; on a GPU autocast, torchvision, timm, each also as NAME-compiled."
        ),
    ] = "plain",
    batch_size: Annotated[
        int | None,
        typer.Option("--batch-size", "-b", min=1, help="Images a step; default: 128, resnet50 32."),
    ] = None,
    threads: Annotated[
        int | None, typer.Option(min=1, help="CPU threads; default: all cores.")
    ] = None,
    device: Annotated[
        str | None, typer.Option(help="cpu, cuda or cuda:N; default: CUDA where there is one.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for programs.")] = False,
) -> None:
    """Time our training step against the plainest PyTorch loop.

    Images per second of the step that `reslearn train` runs and of a float32, NCHW loop with torch's DataLoader and PIL, in turns on
    images made up: CIFAR's shape and batches of 128, for resnet50 ImageNet's and 32. Takes about five minutes, compilation included.
    """
    bench = _benchmark("train")
    from dataclasses import asdict
    from json import dumps

    import torch

    from reslearn.train.numerics import choose_device

    tasks = [bench.task_of(name, batch_size) for name in models.split(",")]
    place = choose_device(device)
    used = (
        [part for part in bench.Part if place != "cpu" or part is not bench.Part.replay]
        if parts
        else ()
    )
    where = {
        "threads": threads or torch.get_num_threads(),
        "device": place,
        "against": against.split(","),
    }
    rows = [
        row
        for task in tasks
        for row in bench.measure(task, rounds=repeats, parts=used, say=print_progress, **where)
    ]
    typer.echo(dumps([asdict(row) for row in rows], indent=2) if as_json else bench.table(rows))


def load(
    threads: Annotated[
        str | None,
        typer.Option(help="Numbers of CPU threads, separated by commas; default: all cores."),
    ] = None,
    batch_size: Annotated[
        int, typer.Option("--batch-size", "-b", min=1, help="Images a batch.")
    ] = 128,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for programs.")] = False,
) -> None:
    """Time the loaders, and their share of a step of resnet20."""
    bench = _benchmark("loader")
    from dataclasses import asdict
    from json import dumps

    import torch

    counts = (
        [_count(word) for word in threads.split(",")]
        if threads is not None
        else [torch.get_num_threads()]
    )
    rows = [row for count in counts for row in bench.measure(threads=count, batch_size=batch_size)]
    typer.echo(dumps([asdict(row) for row in rows], indent=2) if as_json else bench.table(rows))


def study(
    models: Annotated[
        str, typer.Option(help="Networks, separated by commas.")
    ] = "plain8,resnet8,plain20,resnet20",
    seeds: Annotated[int, typer.Option(min=1, help="Seeds a network.")] = 4,
    epochs: Annotated[float, typer.Option(min=0.01, help="Epochs a run, on digits.")] = 20.0,
    jobs: Annotated[
        int | None, typer.Option(min=1, help="Runs at once; default: one a core.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for programs.")] = False,
) -> None:
    """Time a study on digits against the sum of its training times: what starting runs and loading data costs."""
    bench = _benchmark("study")
    from dataclasses import asdict
    from json import dumps

    duration = f"schedule.duration={epochs:.10g} epochs"
    rows = bench.measure(
        models=models.split(","),
        seeds=seeds,
        overrides=[duration, "schedule.milestones=[]"],
        jobs=jobs,
    )
    typer.echo(dumps([asdict(row) for row in rows], indent=2) if as_json else bench.table(rows))


def diagnose(
    half: Annotated[
        str, typer.Option(help="held-out, tuning or both: the halves of the networks.")
    ] = "held-out",
    only: Annotated[
        str, typer.Option(help="Networks to run now, as in 'mlp*'; all that were run are scored.")
    ] = "*",
    truth: Annotated[
        bool,
        typer.Option(
            "--truth", help="Measure what is true of the networks instead, at ten times the steps."
        ),
    ] = False,
    jobs: Annotated[
        int | None,
        typer.Option(min=1, help="Networks at once, a thread each; default: one a core."),
    ] = None,
    list_only: Annotated[
        bool, typer.Option("--list", help="Run nothing: score what was run.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for programs.")] = False,
) -> None:
    """Diagnose networks whose truth is known, and count false alarms and misses.

    Healthy and ill networks of benchmarks/depth, each diagnosed at a fixed number of steps; then the confusion matrix, rates with exact
    95 % intervals, rivals that only watch, and seconds a network. A network that was run is a line in results/depth/verdicts.jsonl: a
    benchmark that was stopped goes on, and lines made by other rules are made anew. Takes an hour or two.
    """
    bench, scoring, halves = (
        _benchmark("depth.run"),
        _benchmark("depth.score"),
        _benchmark("depth.members").HALVES,
    )
    from fnmatch import fnmatch
    from json import dumps

    if half not in (*halves, "both"):
        raise ValueError(f"--half {half}: allowed are {', '.join(halves)}, both")
    wanted = None if half == "both" else half
    chosen = [
        one for one in bench.members() if wanted in (None, one.half) and fnmatch(one.name, only)
    ]
    if not chosen:
        some = ", ".join(one.name for one in bench.members()[:5])
        raise ValueError(
            f"--only {only}: no network of the half {half} is called so; there are {some}, ..."
        )
    if not list_only:
        run = bench.measure_truths if truth else bench.measure_verdicts
        run(chosen, jobs=jobs or os.cpu_count() or 1, say=print_progress)
    if not truth:
        found = scoring.score(bench.judged(wanted), unsettled=bench.unsettled(wanted))
        typer.echo(dumps(scoring.to_json(found), indent=2) if as_json else scoring.table(found))


def _benchmark(name: str) -> Any:
    """A module of benchmarks/, which lies beside src/ and is not installed."""
    import reslearn

    root = Path(reslearn.__file__).resolve().parents[2]
    if not (root / "benchmarks" / f"{name.replace('.', '/')}.py").is_file():
        raise ValueError(
            "reslearn bench needs a source checkout of reslearn: its folder benchmarks/ is not part of the installed package"
        )
    if str(root) not in sys.path:
        sys.path.insert(0, str(root))
    return importlib.import_module(f"benchmarks.{name}")


def _count(word: str) -> int:
    if not word.isdecimal() or int(word) < 1:
        raise ValueError(
            f"--threads {word}: numbers of threads separated by commas are needed, as in 1,2"
        )
    return int(word)
