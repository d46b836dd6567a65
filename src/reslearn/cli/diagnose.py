"""`reslearn diagnose FILE.py:BUILD --data DATA`: does depth hurt this network, and what helps?"""

import itertools
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from reslearn.cli.options import OUTPUT, DataDirOption, JsonOption
from reslearn.cli.output import print_json
from reslearn.progress import print_progress
from reslearn.terminal import print_lines, safe_console

if TYPE_CHECKING:
    from reslearn.diagnose import Diagnosis, Patch, Problem

EXAMPLES = (
    "reslearn diagnose net.py:build --data digits",
    "reslearn diagnose net.py:build --depth 56 --data net.py:data --minutes 10 --json",
    "reslearn diagnose net.py:build --data digits --patch",
    "reslearn diagnose net.py:build --data digits --patch-file net_with_shortcuts.py",
)

TASK, BUDGET, PATCH = "The network and its task", "Budget", "The patch"

Network = Annotated[
    str,
    typer.Argument(
        help="FILE.py:BUILD or MODULE:BUILD. BUILD is a function that returns a new nn.Module."
    ),
]
Data = Annotated[
    str,
    typer.Option(
        help="Use digits, cifar10, a folder of images, or FILE.py:DATA, a function that returns "
        "(inputs, targets).",
        rich_help_panel=TASK,
    ),
]
Depth = Annotated[
    int | None,
    typer.Option(min=1, help="Pass this depth to BUILD.", rich_help_panel=TASK),
]
LossFunction = Annotated[
    str | None,
    typer.Option(
        help="Use FILE.py:LOSS, a function of (outputs, targets). By default, the loss is "
        "cross-entropy for classes and mean squared error otherwise.",
        rich_help_panel=TASK,
    ),
]
OptimizerName = Annotated[
    str,
    typer.Option(
        help="Use sgd, adam, adamw, or FILE.py:MAKE, a function of (parameters, learning rate).",
        rich_help_panel=TASK,
    ),
]
LearningRate = Annotated[
    float | None,
    typer.Option(
        help="Give your learning rate, and it is judged too. Other rates are tried in any case.",
        rich_help_panel=TASK,
    ),
]
BatchSize = Annotated[
    int,
    typer.Option(
        "--batch-size",
        "-b",
        min=2,
        help="Train on this number of examples per step.",
        rich_help_panel=TASK,
    ),
]
SizePx = Annotated[
    int | None,
    typer.Option(
        min=2,
        help="Resize the images of a folder to this side, in pixels.",
        rich_help_panel=TASK,
    ),
]
Minutes = Annotated[
    float, typer.Option(help="Stop training after this time.", rich_help_panel=BUDGET)
]
Steps = Annotated[
    int | None,
    typer.Option(
        min=4,
        help="Train each short trial for this number of steps. By default, it is chosen so that "
        "the whole diagnosis fits into --minutes.",
        rich_help_panel=BUDGET,
    ),
]
Jobs = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Run this number of trials at once, with one thread each. The default is one per "
        "core, and 1 with a GPU.",
        rich_help_panel=BUDGET,
    ),
]
Seed = Annotated[
    int,
    typer.Option(
        min=0,
        help="Repeat the diagnosis with other random weights and orders of the examples.",
        rich_help_panel=BUDGET,
    ),
]
WithPatch = Annotated[
    bool,
    typer.Option(
        "--patch",
        help="Write a patch with the repair that helped, and train before and after it on a fresh "
        "seed.",
        rich_help_panel=PATCH,
    ),
]
PatchFile = Annotated[
    Path | None,
    typer.Option(
        help="Write the patch to this file. A name that ends in .py gives a new file with its own "
        "build. The default is a file in --out.",
        rich_help_panel=PATCH,
    ),
]
Out = Annotated[
    Path | None,
    typer.Option(
        help="Write the page to this folder. The default is diagnosis/NAME, then NAME-2, and so "
        "on.",
        rich_help_panel=OUTPUT,
    ),
]
Check = Annotated[
    bool,
    typer.Option(
        "--check",
        help="Exit with status 1 unless the network is healthy.",
        rich_help_panel=OUTPUT,
    ),
]


def diagnose(
    network: Network,
    data: Data,
    depth: Depth = None,
    loss: LossFunction = None,
    optimizer: OptimizerName = "sgd",
    lr: LearningRate = None,
    batch_size: BatchSize = 64,
    size_px: SizePx = None,
    data_dir: DataDirOption = None,
    minutes: Minutes = 10.0,
    steps: Steps = None,
    jobs: Jobs = None,
    seed: Seed = 0,
    patch: WithPatch = False,
    patch_file: PatchFile = None,
    out: Out = None,
    check: Check = False,
    as_json: JsonOption = False,
) -> None:
    """Find out by experiment whether depth hurts a network, or what else does.

    First it looks for faults that need no training, such as a softmax before cross-entropy. Then it
    trains variants of your network. Each would be better if one suspected cause were true.

    With --patch, it also writes the change that helped: shortcuts, new initial weights, another
    output layer, registered modules or scaled inputs. This is a diff of FILE.py if BUILD is a
    function in it, and otherwise a new file. After Ctrl-C, the trials so far are judged.
    """
    from reslearn.diagnose import diagnose as run_diagnosis
    from reslearn.diagnose import load_data, load_function, make_problem

    build, name = load_function(network)
    pair = load_data(_function_or_name(data), size_px=size_px, data_dir=data_dir)
    problem = make_problem(
        build,
        pair,
        name=name,
        depth=depth,
        loss=None if loss is None else load_function(loss)[0],
        optimizer=_function_or_name(optimizer),
        lr=lr,
        batch_size=batch_size,
    )
    folder = _page_folder(out, name)
    wants_patch = patch or patch_file is not None
    new_patch = _make_patch(network, problem, depth, patch_file, folder) if wants_patch else None
    diagnosis = run_diagnosis(
        problem,
        minutes=minutes,
        steps=steps,
        with_proof=wants_patch,
        jobs=jobs,
        seed=seed,
        say=print_progress,
    )
    if wants_patch and _mends_otherwise(diagnosis):
        new_patch = _cure_patch(diagnosis, (network, data), depth, patch_file, folder)
    _report(diagnosis, new_patch, folder, as_json=as_json)
    _exit(diagnosis, check=check)


def _exit(diagnosis: "Diagnosis", *, check: bool) -> None:
    """Exit with a status other than 0 if Ctrl-C ended the diagnosis, or if a check fails."""
    if diagnosis.interrupted:
        raise typer.Exit(130)
    if check and diagnosis.verdict.name != "healthy":
        raise typer.Exit(1)


def _function_or_name(value: str) -> Any:
    from reslearn.diagnose import load_function

    return load_function(value)[0] if ":" in value else value


def _page_folder(out: Path | None, name: str) -> Path:
    folder = out or _unused(Path("diagnosis") / name.replace(":", "-"))
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"--out {folder} is a file: give the name of a folder")
    return folder


def _unused(folder: Path) -> Path:
    """Return `folder`, or folder-2, folder-3, and so on, so that no diagnosis is overwritten."""
    numbered = (Path(f"{folder}-{number}") for number in itertools.count(2))
    candidates = itertools.chain([folder], numbered)
    return next(candidate for candidate in candidates if not candidate.exists())


def _make_patch(
    network: str, problem: "Problem", depth: int | None, path: Path | None, folder: Path
) -> "Patch | None":
    """Make the patch with shortcuts before training, so that a wrong path is reported at once.

    Returns:
        None if the network takes no shortcuts.
    """
    from reslearn.diagnose import make_patch
    from reslearn.models import SurgeryError

    try:
        patch = make_patch(network, problem, depth=depth, path=path, folder=folder)
    except SurgeryError as error:
        print_lines(f"There is no patch with shortcuts: {error}.", file=sys.stderr)
        return None
    num_blocks = len(patch.shortcuts_around)
    print_progress(
        f"A patch can add shortcuts around {num_blocks} block{'s' * (num_blocks > 1)}. The repair "
        "that helps will be tried on a fresh seed within the given minutes."
    )
    return patch


def _mends_otherwise(diagnosis: "Diagnosis") -> bool:
    """Return whether shortcuts are not the repair: there is another one, or none at all."""
    from reslearn.diagnose import unrepaired

    if unrepaired(diagnosis.verdict):
        return True
    if diagnosis.proof is not None:
        return diagnosis.proof.repairs != ("shortcuts",)
    return diagnosis.screening.proof is not None


def _cure_patch(
    diagnosis: "Diagnosis",
    places: tuple[str, str],
    depth: int | None,
    path: Path | None,
    folder: Path,
) -> "Patch | None":
    """Make the patch of all repairs that were tried.

    Args:
        places: Where the network and the data are defined.

    Returns:
        None without a repair, for a learning rate, which is a value, or if there is no code to
        change.
    """
    from reslearn.diagnose import CHANGED_BY_HAND, make_patch, unrepaired

    repairs = () if diagnosis.proof is None else diagnosis.proof.repairs
    of_build = [name for name in repairs if name not in ("given", "standardized")]
    network, data = places
    if not of_build and "standardized" not in repairs:
        if not repairs:
            reason = unrepaired(diagnosis.verdict) or CHANGED_BY_HAND
            print_lines(f"There is no patch: {reason}.", file=sys.stderr)
        return None
    if not of_build and ":" not in data:
        print_lines(
            f"There is no patch: no function of yours returns the data {data}.", file=sys.stderr
        )
        return None
    if of_build and "standardized" in repairs:
        print_progress("The patch does not scale the inputs: change the data function yourself.")
    try:
        return make_patch(
            network if of_build else data,
            diagnosis.problem,
            depth=depth if of_build else None,
            path=path,
            folder=folder,
            repair=of_build or "standardized",
        )
    except ValueError as error:
        print_lines(f"There is no patch: {error}.", file=sys.stderr)
        return None


def _report(diagnosis: "Diagnosis", patch: "Patch | None", folder: Path, *, as_json: bool) -> None:
    """Write the page and the patch, then print the result."""
    from reslearn.diagnose import write_patch
    from reslearn.diagnose.page import diagnosis_page
    from reslearn.report import write_page

    command = ["reslearn", *sys.argv[1:]]
    page = write_page(diagnosis_page(diagnosis, command=command, patch=patch), folder)
    if patch is not None:
        write_patch(patch)
    _print(diagnosis, page, patch, command, as_json=as_json)


def _print(
    diagnosis: "Diagnosis",
    page: Path,
    patch: "Patch | None",
    command: list[str],
    *,
    as_json: bool,
) -> None:
    from reslearn.diagnose.answer import answer_lines, further_findings
    from reslearn.diagnose.diagnosis_json import diagnosis_json
    from reslearn.diagnose.page import patch_line

    if as_json:
        values = {**diagnosis_json(diagnosis, patch=patch, command=command), "page": str(page)}
        print_json(values)
        return
    console = safe_console()
    first_line, *further_lines = answer_lines(diagnosis, command)
    console.print(first_line, style="bold", soft_wrap=True)
    for line in further_lines:
        console.print(line, soft_wrap=True)
    if diagnosis.trials:
        _print_scores(diagnosis, console)
    for finding in further_findings(diagnosis):
        console.print(f"Screening, {finding.level}: {finding.text}", soft_wrap=True)
    for note in diagnosis.variants.notes:
        console.print(f"Note: {note}.")
    if patch is not None:
        action = "apply it with" if patch.kind == "diff" else "use it as"
        console.print(patch_line(diagnosis, patch), soft_wrap=True)
        console.print(f"patch: {patch.path} ({action} {patch.use})", soft_wrap=True)
    elif diagnosis.proof is not None:
        console.print(f"{diagnosis.proof.text()}.", soft_wrap=True)
    console.print(f"page: {page}")


def _print_scores(diagnosis: "Diagnosis", console: Any) -> None:
    from rich.table import Table

    from reslearn.diagnose.page import scores_table
    from reslearn.study import number_text

    scores = scores_table(diagnosis)
    table = Table(title=scores.caption, title_justify="left")
    for column in ("variant", "description", "training", "held out", "seeds"):
        table.add_column(column)
    for name, description, train, deviation, _, held_out, seeds in scores.rows:
        training = number_text(train, deviation=deviation)  # type: ignore[arg-type]
        table.add_row(str(name), str(description), training, f"{held_out:.2f}", str(seeds))
    console.print(table)
