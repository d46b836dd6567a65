"""`reslearn bench`: how fast training is here, and how often a diagnosis is wrong.

It runs the modules of benchmarks/ in a source checkout.
"""

import importlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from reslearn.cli.options import (
    DeviceOption,
    JobsOption,
    JsonOption,
    ThreadsOption,
)
from reslearn.cli.output import print_json
from reslearn.progress import print_progress

TRAIN_EXAMPLES = (
    "reslearn bench train",
    "reslearn bench train --models resnet20 --repeats 9 --json",
    "reslearn bench train --models resnet20 --parts",
    "reslearn bench train --models resnet50 -b 256 --against torchvision,torchvision-compiled",
)
STUDY_EXAMPLES = (
    "reslearn bench study",
    "reslearn bench study --models resnet8,resnet20 --seeds 4 --epochs 20 --json",
)
DIAGNOSE_EXAMPLES = (
    "reslearn bench diagnose",
    "reslearn bench diagnose --half tuning --members '*-softmax' --json",
    "reslearn bench diagnose --cores 2 --jobs 1",
    "reslearn bench diagnose --generation 1 --half both --list",
    "reslearn bench diagnose --truth",
)

WHAT = "What to measure"

Models = Annotated[
    str,
    typer.Option(help="Measure these networks, separated by commas.", rich_help_panel=WHAT),
]
Repeats = Annotated[
    int,
    typer.Option(
        min=1,
        help="Run this number of rounds. In each, every loop trains for three seconds.",
        rich_help_panel=WHAT,
    ),
]
Parts = Annotated[
    bool,
    typer.Option(
        "--parts",
        help="Also measure our step without bf16, without compilation, and so on.",
        rich_help_panel=WHAT,
    ),
]
Against = Annotated[
    str,
    typer.Option(
        help="Compare with these rivals: plain; on a GPU also autocast, torchvision and timm, and "
        "each as NAME-compiled.",
        rich_help_panel=WHAT,
    ),
]
TrainBatchSize = Annotated[
    int | None,
    typer.Option(
        "--batch-size",
        "-b",
        min=1,
        help="Use this number of images per step. The default is 128, and 32 for resnet50.",
        rich_help_panel=WHAT,
    ),
]
Seeds = Annotated[
    int, typer.Option(min=1, help="Train this number of seeds per network.", rich_help_panel=WHAT)
]
Epochs = Annotated[
    float,
    typer.Option(min=0.01, help="Train each run for these epochs of digits.", rich_help_panel=WHAT),
]
Half = Annotated[
    str,
    typer.Option(
        help="Score this half of the networks: held-out, tuning or both.", rich_help_panel=WHAT
    ),
]
MemberPattern = Annotated[
    str,
    typer.Option(
        "--members",
        "--only",
        help="Run only networks whose name matches this pattern, as in 'mlp*'. All networks that "
        "were run before are scored too.",
        rich_help_panel=WHAT,
    ),
]
MeasureTruth = Annotated[
    bool,
    typer.Option(
        "--truth",
        help="Measure the truth about the networks instead, at ten times the steps.",
        rich_help_panel=WHAT,
    ),
]
GenerationNumber = Annotated[
    int,
    typer.Option(
        help="Use this generation of networks: 1 is benchmarks/depth, 2 is benchmarks/causes.",
        rich_help_panel=WHAT,
    ),
]
CoresPerNetwork = Annotated[
    int,
    typer.Option(
        min=1,
        help="Give each diagnosis this number of processes. The seconds depend on it.",
        rich_help_panel=WHAT,
    ),
]
ListOnly = Annotated[
    bool,
    typer.Option(
        "--list", help="Run nothing, and score what was run before.", rich_help_panel=WHAT
    ),
]


def train(
    models: Models = "resnet20,resnet56,resnet50",
    repeats: Repeats = 7,
    parts: Parts = False,
    against: Against = "plain",
    batch_size: TrainBatchSize = None,
    threads: ThreadsOption = None,
    device: DeviceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Compare the speed of our training step with the plainest PyTorch loop.

    The benchmark measures images per second of the step that `reslearn train` runs, and of a
    float32 NCHW loop with torch's DataLoader and PIL. Both take turns on synthetic images: CIFAR's
    shape in batches of 128, and ImageNet's shape in batches of 32 for resnet50. It takes about five
    minutes, including compilation.
    """
    bench = import_benchmark("train")
    import torch

    from reslearn.train.numerics import choose_device

    tasks = [bench.task_of(name, batch_size) for name in models.split(",")]
    chosen_device = choose_device(device)
    left_out = []
    if parts:
        left_out = list(bench.Part)
        if chosen_device == "cpu":
            left_out.remove(bench.Part.replay)
    rows = []
    for task in tasks:
        rows += bench.measure(
            task,
            rounds=repeats,
            threads=threads or torch.get_num_threads(),
            device=chosen_device,
            parts=left_out,
            against=against.split(","),
            say=print_progress,
        )
    print_rows(bench, rows, as_json)


def study(
    models: Models = "plain8,resnet8,plain20,resnet20",
    seeds: Seeds = 4,
    epochs: Epochs = 20.0,
    jobs: JobsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Compare the time of a study on digits with its pure training time.

    The difference is the cost of starting runs and loading data.
    """
    bench = import_benchmark("study")
    duration = f"schedule.duration={epochs:.10g} epochs"
    rows = bench.measure(
        models=models.split(","),
        seeds=seeds,
        overrides=[duration, "schedule.milestones=[]"],
        jobs=jobs,
    )
    print_rows(bench, rows, as_json)


def diagnose(
    half: Half = "held-out",
    members: MemberPattern = "*",
    generation: GenerationNumber = 2,
    truth: MeasureTruth = False,
    cores: CoresPerNetwork = 1,
    jobs: JobsOption = None,
    list_only: ListOnly = False,
    as_json: JsonOption = False,
) -> None:
    """Diagnose networks with known truth; count false alarms and misses.

    The second generation of healthy and ill networks is in benchmarks/causes, the first one in
    benchmarks/depth. Each is diagnosed at a fixed number of steps. The benchmark prints the
    confusion matrix, rates with exact 95 % intervals, rivals that only watch a training, and the
    seconds per network.

    Each network that was run is a line of results/causes/verdicts.jsonl or
    results/depth/verdicts.jsonl, so a stopped benchmark can be resumed. Lines made by other rules
    are measured again. It takes an hour or two.
    """
    bench, score = import_benchmark("depth.run"), import_benchmark("depth.score")
    from fnmatch import fnmatch

    generations = import_benchmark("generations")
    if generation not in generations.GENERATIONS:
        numbers = ", ".join(str(number) for number in generations.GENERATIONS)
        raise ValueError(f"--generation is {generation}: allowed are {numbers}")
    networks = generations.GENERATIONS[generation]
    if half not in (*generations.HALVES, "both"):
        raise ValueError(f"--half is {half}: allowed are {', '.join(generations.HALVES)}, both")
    chosen_half = None if half == "both" else half
    chosen = [
        member
        for member in networks.members()
        if chosen_half in (None, member.half) and fnmatch(member.name, members)
    ]
    if not chosen:
        names = ", ".join(member.name for member in networks.members()[:5])
        raise ValueError(
            f"--members {members} matches no network of the half {half}: there are {names}, and "
            "others"
        )
    if truth:
        bench.measure_truths(networks, chosen, jobs=_jobs_at_once(jobs, 1), say=print_progress)
        return
    if not list_only:
        at_once = _jobs_at_once(jobs, cores)
        bench.measure_verdicts(networks, chosen, jobs=at_once, say=print_progress, cores=cores)
    result = score.score(
        bench.judged(networks, chosen_half),
        num_unsettled=bench.num_unsettled(networks, chosen_half),
    )
    if as_json:
        print_json(score.to_json(result), indent=2)
    else:
        print(score.table(result))


def _jobs_at_once(jobs: int | None, cores: int) -> int:
    return jobs or max(1, (os.cpu_count() or 1) // cores)


def print_rows(bench: Any, rows: Sequence[Any], as_json: bool) -> None:
    """Print the rows of a benchmark as its table, or as JSON."""
    from dataclasses import asdict

    if as_json:
        print_json([asdict(row) for row in rows], indent=2)
    else:
        print(bench.table(rows))


def import_benchmark(name: str) -> Any:
    """Import a module of benchmarks/, which lies beside src/ and is not installed."""
    import reslearn

    root = Path(reslearn.__file__).resolve().parents[2]
    if not (root / "benchmarks" / f"{name.replace('.', '/')}.py").is_file():
        raise ValueError(
            "reslearn bench needs a source checkout of reslearn: its folder benchmarks/ is not "
            "part of the installed package"
        )
    if str(root) not in sys.path:
        sys.path.insert(0, str(root))
    return importlib.import_module(f"benchmarks.{name}")
