"""Put the commands together, and turn errors into one line and an exit status.

A command is a function in `reslearn/cli/<command>.py`, with `EXAMPLES` beside it and one line in
this file. Command files import other rooms inside functions only, so `reslearn --help` needs
neither torch nor numpy (tests/cli/test_commands.py).

Exit status: 0 success, 1 a negative result, 2 wrong use or bad input, 130 and 143 if Ctrl-C or
SIGTERM stopped the command. `reslearn/cli/interrupt.py` handles Ctrl-C before and after a
command.
"""

import os
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

# The errors that typer raises about arguments. `typer` itself does not export their base class.
from typer.exceptions import TyperException

import reslearn
from reslearn.cli import (
    analyze,
    bench,
    bench_deploy,
    bench_load,
    demo,
    diagnose,
    download,
    evaluate,
    export,
    inspect,
    paper,
    predict,
    report,
    serve,
    study,
    train,
)
from reslearn.cli import list as list_
from reslearn.cli.help import CommandWithPanels, GroupWithPanels, unwrap
from reslearn.terminal import joined_lines, make_streams_safe, print_lines

_LONGEST_MESSAGE = 2000
# Plain markup: `reslearn.cli.help` decides when rich draws the help.
app = typer.Typer(
    name="reslearn",
    cls=GroupWithPanels,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"max_content_width": 120},
)


def examples_epilog(examples: tuple[str, ...]) -> str:
    """Return the end of a --help text. The backspace keeps its lines from being joined."""
    lines = ["\b", "Examples:"]
    lines += [f"  {example}" for example in examples]
    return "\n".join(lines)


def add(
    name: str,
    function: Callable[..., None],
    examples: tuple[str, ...],
    *,
    to: typer.Typer = app,
    panel: str | None = None,
) -> None:
    """Register `function` as the command `reslearn NAME`, or as a command of a group.

    Its docstring is the help text. `panel` is the title under which --help lists it.
    """
    register = to.command(
        name,
        cls=CommandWithPanels,
        help=unwrap(function.__doc__ or ""),
        epilog=examples_epilog(examples),
        rich_help_panel=panel,
    )
    register(function)


def add_group(name: str, summary: str, *examples: str, panel: str) -> typer.Typer:
    """Register a group of commands, `reslearn NAME COMMAND`, and return it."""
    group = typer.Typer(
        cls=GroupWithPanels,
        rich_markup_mode=None,
        help=summary,
        epilog=examples_epilog(tuple(f"reslearn {example}" for example in examples)),
    )
    app.add_typer(group, name=name, rich_help_panel=panel)
    return group


TRAIN = "Train and evaluate"
add("train", train.train, train.EXAMPLES, panel=TRAIN)
add("evaluate", evaluate.evaluate, evaluate.EXAMPLES, panel=TRAIN)
add("predict", predict.predict, predict.EXAMPLES, panel=TRAIN)
add("serve", serve.serve, serve.EXAMPLES, panel=TRAIN)
add("report", report.report, report.EXAMPLES, panel=TRAIN)
add("download", download.download, download.EXAMPLES, panel=TRAIN)

COMPARE = "Compare and reproduce"
add("demo", demo.demo, demo.EXAMPLES, panel=COMPARE)
add("study", study.study, study.EXAMPLES, panel=COMPARE)
paper_group = add_group(
    "paper",
    "Reproduce the claims, tables and figures of the paper, with verdicts.",
    "paper list",
    "paper table1",
    panel=COMPARE,
)
add("list", paper.list_paper, paper.LIST_EXAMPLES, to=paper_group)
add("claims", paper.claims, paper.CLAIMS_EXAMPLES, to=paper_group)
for exhibit in paper.EXHIBITS:
    add(exhibit, paper.exhibit_command(exhibit), paper.exhibit_examples(exhibit), to=paper_group)

DIAGNOSE = "Diagnose and analyze"
add("diagnose", diagnose.diagnose, diagnose.EXAMPLES, panel=DIAGNOSE)
add("analyze", analyze.analyze, analyze.EXAMPLES, panel=DIAGNOSE)

NETWORKS = "Networks and weights"
add("list", list_.list_names, list_.EXAMPLES, panel=NETWORKS)
add("inspect", inspect.inspect, inspect.EXAMPLES, panel=NETWORKS)
add("export", export.export, export.EXAMPLES, panel=NETWORKS)

bench_group = add_group(
    "bench",
    "Measure the speed of training and predictions, and the errors of diagnosis.",
    "bench train",
    "bench study",
    panel="Benchmarks",
)
add("train", bench.train, bench.TRAIN_EXAMPLES, to=bench_group)
add("load", bench_load.load, bench_load.EXAMPLES, to=bench_group)
add("infer", bench_deploy.infer, bench_deploy.INFER_EXAMPLES, to=bench_group)
add("serve", bench_deploy.serve, bench_deploy.SERVE_EXAMPLES, to=bench_group)
add("study", bench.study, bench.STUDY_EXAMPLES, to=bench_group)
add("diagnose", bench.diagnose, bench.DIAGNOSE_EXAMPLES, to=bench_group)


def _print_version(requested: bool) -> None:
    if requested:
        print(f"reslearn {reslearn.__version__}")
        raise typer.Exit


@app.callback(
    invoke_without_command=True,
    epilog=examples_epilog(("reslearn demo", "reslearn train cifar10 --model resnet20")),
)
def root(
    context: typer.Context,
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version and stop."
        ),
    ] = False,
) -> None:
    """Residual learning: build very deep networks, train them, and check the ResNet paper."""
    if context.invoked_subcommand is None:
        print(context.get_help())


def main() -> NoReturn:
    """Run the command line in `sys.argv` and exit with its status.

    ValueError (raised for every user error) and OSError (a missing file, a full disk) become one
    line on stderr and status 2. RESLEARN_DEBUG=1 shows the traceback instead. Any other error is a
    bug and shows its traceback.
    """
    make_streams_safe()
    warnings.showwarning = _show_warning
    try:
        status = app(prog_name="reslearn", standalone_mode=False)
        sys.stdout.flush()
    except TyperException as error:
        _stop(_usage_error(error), status=error.exit_code)
    except BrokenPipeError:
        # The reader is gone (`reslearn list models | head -1`). Nothing may be flushed into the
        # pipe any more, not even at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 1
    except KeyboardInterrupt:
        status = 130
    except (ValueError, OSError) as error:
        if os.environ.get("RESLEARN_DEBUG", "0") not in {"", "0"}:
            raise
        _stop(_one_line(error), status=2)
    sys.exit(status or 0)


def _one_line(error: Exception) -> str:
    """Return the message of an error. An OSError loses its number and keeps its file."""
    if isinstance(error, OSError) and error.strerror:
        text = error.strerror
        if error.filename is not None:
            from reslearn.runs import disk_state

            text += f": {error.filename}{disk_state(error, Path(str(error.filename)))}"
    else:
        text = str(error) or type(error).__name__
    return joined_lines(text)


def _usage_error(error: TyperException) -> str:
    """Describe a wrong option or argument: the message, its value, and where to find the help."""
    # typer reads values with pydantic, which begins its messages with these words.
    message = error.format_message().replace("Value error, ", "")
    line = joined_lines(message)
    details: list[dict[str, Any]] = getattr(error.__cause__, "errors", list)()
    values = ", ".join(repr(detail["input"]) for detail in details)
    if values and values not in line:
        line = f"{line}, not {values}"
    context: Any = getattr(error, "ctx", None)
    return line if context is None else f"{line} (see {context.command_path} --help)"


def _stop(message: str, *, status: int) -> NoReturn:
    if len(message) > _LONGEST_MESSAGE:  # it quotes a value of the user
        message = f"{message[: _LONGEST_MESSAGE - 500]} ... {message[-500:]}"
    print_lines(f"reslearn: {message}", file=sys.stderr)
    sys.exit(status)


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: object = None,
    line: object = None,
) -> None:
    """Print a warning for the user without the source line that Python adds."""
    print_lines(f"reslearn: warning: {joined_lines(str(message))}", file=sys.stderr)
